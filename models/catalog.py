"""The catalog: each checkpoint with two heads gives two handles; six give the twelve of version 1's collection.

This is the only place that lists handles, objects of the bucket and shapes; the command line, the tests, the manifests
and the README are derived from it. It needs only the standard library.

Sources: the architectures are those of table 1 of "MLP-Mixer: An all-MLP Architecture for Vision"
(https://arxiv.org/abs/2105.01601) and of `vit_jax/configs/models.py` in
https://github.com/google-research/vision_transformer, which also names the objects of the bucket.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from models.labels import LABELS_1K, LABELS_21K, Labels

BUCKET = "gs://mixer_models"
"""The public bucket of the original checkpoints (anonymous reads)."""

DEFAULT_VERSION = 2
"""Version of the models that this project makes; version 1 was published in 2021."""

REPOSITORY = "https://github.com/google-research/vision_transformer"
LICENSE = "Apache-2.0"

MIXER_PAPER = "https://arxiv.org/abs/2105.01601"
SAM_PAPER = "https://arxiv.org/abs/2010.01412"
VIT_SAM_PAPER = "https://arxiv.org/abs/2106.01548"
GSAM_PAPER = "https://arxiv.org/abs/2203.08065"

Head = Literal["classification", "fe"]
HEADS: tuple[Head, ...] = ("classification", "fe")

Flavour = Literal["native", "graph"]
"""How a model is written in TensorFlow: JAX's own lowering as one operation, or plain operations."""

GRAPH_SUFFIX = "-graph"
"""Suffix of the names of models of the graph flavour."""

Collection = Literal["mixer", "gsam"]
"""A group of checkpoints: those of version 1's twelve handles, or those trained with GSAM, which came later."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Architecture:
    """Sizes of a Mixer, in the paper's letters: patch P, hidden C, blocks, tokens S, token MLP D_S, channel MLP D_C."""

    name: str
    patch_size: int
    hidden_dim: int
    num_blocks: int
    tokens_mlp_dim: int
    channels_mlp_dim: int
    image_size: int = 224

    @property
    def tokens(self) -> int:
        """Number of tokens (patches) of one image."""
        return (self.image_size // self.patch_size) ** 2

    def arrays(self, num_classes: int | None) -> dict[str, Shape]:
        """Return name -> shape of every array of a checkpoint; without the head where `num_classes` is None."""
        hidden, tokens = self.hidden_dim, self.tokens
        norm = {"scale": (hidden,), "bias": (hidden,)}
        shapes: dict[str, Shape] = {
            "stem/kernel": (self.patch_size, self.patch_size, 3, hidden),
            "stem/bias": (hidden,),
        }
        for index in range(self.num_blocks):
            block = f"MixerBlock_{index}"
            for layer in ("LayerNorm_0", "LayerNorm_1"):
                shapes |= {f"{block}/{layer}/{leaf}": shape for leaf, shape in norm.items()}
            for mlp, outer, inner in (
                ("token_mixing", tokens, self.tokens_mlp_dim),
                ("channel_mixing", hidden, self.channels_mlp_dim),
            ):
                shapes |= {
                    f"{block}/{mlp}/Dense_0/kernel": (outer, inner),
                    f"{block}/{mlp}/Dense_0/bias": (inner,),
                    f"{block}/{mlp}/Dense_1/kernel": (inner, outer),
                    f"{block}/{mlp}/Dense_1/bias": (outer,),
                }
        shapes |= {f"pre_head_layer_norm/{leaf}": shape for leaf, shape in norm.items()}
        if num_classes is not None:
            shapes |= {"head/kernel": (hidden, num_classes), "head/bias": (num_classes,)}
        return shapes

    def parameters(self, num_classes: int | None) -> int:
        """Count the parameters, with a head of `num_classes` outputs or (None) without one."""
        return sum(math.prod(shape) for shape in self.arrays(num_classes).values())


@dataclass(frozen=True)
class _Training:
    """How a family of checkpoints was trained, and on which classes."""

    name: str
    folder: str
    data: str
    method: str
    papers: tuple[str, ...]
    num_classes: int
    labels: Labels | None
    source: str = REPOSITORY
    license: str = LICENSE
    collection: Collection = "mixer"
    many_labels: bool = False
    """Whether an image may have several labels: the loss is then the sigmoid's, one class at a time."""


@dataclass(frozen=True)
class Checkpoint:
    """An original checkpoint: its object in the bucket and its contents."""

    name: str
    object: str
    architecture: Architecture
    training: _Training
    size: int | None = None
    """Expected bytes of the object (inferred from the bucket's listing: a soft check)."""
    testing: bool = False

    @property
    def url(self) -> str:
        """Address of the original."""
        return f"{BUCKET}/{self.object}"

    @property
    def num_classes(self) -> int:
        """Number of logits of the checkpoint's head."""
        return self.training.num_classes

    @property
    def arrays(self) -> dict[str, Shape]:
        """Name -> shape of every array in the file."""
        return self.architecture.arrays(self.num_classes)

    @property
    def parameters(self) -> int:
        """Number of parameters in the file, head included."""
        return self.architecture.parameters(self.num_classes)


@dataclass(frozen=True)
class Handle:
    """One published model: the classifier of a checkpoint, or its feature extractor."""

    name: str
    checkpoint: Checkpoint
    head: Head
    flavour: Flavour = "native"

    def in_flavour(self, flavour: Flavour) -> "Handle":
        """Return this model in a flavour; the graph flavour is a separate model with its own name."""
        name = self.name.removesuffix(GRAPH_SUFFIX)
        return replace(self, name=name + GRAPH_SUFFIX if flavour == "graph" else name, flavour=flavour)

    @property
    def num_classes(self) -> int | None:
        """Number of logits; None for a feature extractor."""
        return self.checkpoint.num_classes if self.head == "classification" else None

    @property
    def arrays(self) -> dict[str, Shape]:
        """Name -> shape of every parameter of this model: all of the checkpoint's, for `fe` all but `head`."""
        return self.checkpoint.architecture.arrays(self.num_classes)

    @property
    def parameters(self) -> int:
        """Number of parameters of this model."""
        return self.checkpoint.architecture.parameters(self.num_classes)

    @property
    def outputs(self) -> int:
        """Length of the output vector: logits, or features."""
        return self.num_classes or self.checkpoint.architecture.hidden_dim

    @property
    def labels(self) -> Labels | None:
        """The class list; None for a feature extractor, and where the classes are not known."""
        return self.checkpoint.training.labels if self.head == "classification" else None


B16 = Architecture("B/16", 16, 768, 12, 384, 3072)
B32 = Architecture("B/32", 32, 768, 12, 384, 3072)
S8 = Architecture("S/8", 8, 512, 8, 256, 2048)
S16 = Architecture("S/16", 16, 512, 8, 256, 2048)
S32 = Architecture("S/32", 32, 512, 8, 256, 2048)
L16 = Architecture("L/16", 16, 1024, 24, 512, 4096)
TINY = Architecture("Ti/8", 8, 32, 2, 24, 48, image_size=32)
SQUARE = Architecture("Sq/8", 8, 16, 4, 16, 16, image_size=32)
"""Tokens, channels and both hidden layers are 16 wide: kernels of blocks and their transposes have one shape."""

_PLAIN = "supervised, from scratch"
SAM = _Training(
    "sam",
    "sam",
    "ImageNet-1k",
    f"{_PLAIN}, with sharpness-aware minimisation (SAM)",
    (MIXER_PAPER, SAM_PAPER, VIT_SAM_PAPER),
    1000,
    LABELS_1K,
)
# Trained on ImageNet-1k alone (https://github.com/huggingface/pytorch-image-models/pull/651); version 1 said otherwise.
I1K = _Training("i1k", "imagenet1k", "ImageNet-1k", _PLAIN, (MIXER_PAPER,), 1000, LABELS_1K)
I21K = _Training("i21k", "imagenet21k", "ImageNet-21k", _PLAIN, (MIXER_PAPER,), 21843, LABELS_21K, many_labels=True)
GSAM = _Training(
    "gsam",
    "gsam",
    "ImageNet-1k",
    f"{_PLAIN}, with surrogate gap guided sharpness-aware minimisation (GSAM)",
    (MIXER_PAPER, GSAM_PAPER),
    1000,
    LABELS_1K,
    collection="gsam",
)
SEEDED = _Training("seeded", "testing", "nothing", "seeded, never trained", (MIXER_PAPER,), 1000, LABELS_1K)


def _row(
    architecture: Architecture, training: _Training, size: int | None = None, *, testing: bool = False
) -> Checkpoint:
    name = f"{architecture.name.replace('/', '').lower()}_{training.name}"
    stored = f"{training.folder}/Mixer-{architecture.name.replace('/', '_')}.npz"
    return Checkpoint(name, stored, architecture, training, size, testing)


_ROWS = (
    _row(B16, SAM, 239_567_448),
    _row(B32, SAM, 241_219_272),
    _row(B16, I1K, 239_564_448),
    _row(L16, I1K, 832_868_560),
    _row(B16, I21K, 303_677_516),
    _row(L16, I21K, 918_324_860),
    *(_row(architecture, GSAM) for architecture in (B16, B32, S8, S16, S32)),
    _row(TINY, SEEDED, testing=True),
    _row(SQUARE, SEEDED, testing=True),
)

CHECKPOINTS: dict[Collection, dict[str, Checkpoint]] = {
    collection: {row.name: row for row in _ROWS if row.training.collection == collection and not row.testing}
    for collection in get_args(Collection)
}
"""The checkpoints of each collection, by name."""

ALL_HANDLES: dict[str, Handle] = {
    handle.name: handle for handle in (Handle(f"mixer_{row.name}_{head}", row, head) for row in _ROWS for head in HEADS)
}
"""The handles of the collections and of the tests, by name."""

COLLECTIONS: dict[Collection, dict[str, Handle]] = {
    collection: {name: handle for name, handle in ALL_HANDLES.items() if handle.checkpoint.name in checkpoints}
    for collection, checkpoints in CHECKPOINTS.items()
}
"""The handles of each collection, by name."""

HANDLES: dict[str, Handle] = COLLECTIONS["mixer"]
"""The twelve handles of version 1, by name: those that are meant where none is named."""

TESTING_HANDLES: dict[str, Handle] = {
    name: handle for name, handle in ALL_HANDLES.items() if handle.checkpoint.architecture is TINY
}
"""Tiny models for the tests: found when named, never listed or part of "all twelve"."""

SQUARE_HANDLES: dict[str, Handle] = {
    name: handle for name, handle in ALL_HANDLES.items() if handle.checkpoint.architecture is SQUARE
}
"""The same, for errors that go unnoticed where all shapes are equal."""
