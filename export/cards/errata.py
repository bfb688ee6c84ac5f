"""List the errors in the pages of version 1, each with its correction and the models concerned."""

from dataclasses import dataclass

from models.catalog import CHECKPOINTS, Handle, Head

TIMM_PULL_REQUEST = "https://github.com/huggingface/pytorch-image-models/pull/651"


@dataclass(frozen=True)
class _Erratum:
    """An error in version 1's pages: what they said, what is right, and for which models."""

    was: str
    now: str
    source: str | None = None
    """The URL of the source, if it is not the new page itself."""
    checkpoints: tuple[str, ...] = tuple(CHECKPOINTS["mixer"])
    heads: tuple[Head, ...] = ("classification", "fe")

    def is_about(self, handle: Handle) -> bool:
        """Return whether the page of this model had the error."""
        return handle.head in self.heads and handle.checkpoint.name in self.checkpoints


ERRATA = (
    _Erratum(
        "pre-trained on ImageNet-21k and fine-tuned on ImageNet-1k",
        "trained on ImageNet-1k alone",
        TIMM_PULL_REQUEST,
        checkpoints=("b16_i1k", "l16_i1k"),
    ),
    _Erratum(
        "fine-tuned on ImageNet-1k",
        "trained on ImageNet-1k from scratch, with SAM",
        checkpoints=("b32_sam",),
        heads=("fe",),
    ),
    _Erratum(
        "fine-tunable, though it had been exported without gradients",
        "fine-tunable only if the report says so, which compares every gradient with JAX's",
        heads=("classification",),
    ),
    _Erratum("an image classifier, by its tag", "a feature extractor", heads=("fe",)),
    _Erratum(
        "nothing on what the outputs are",
        "logits, not probabilities; the class list comes with the model",
        heads=("classification",),
    ),
    _Erratum("nothing on what the outputs are", "the mean of the tokens after the last norm", heads=("fe",)),
    _Erratum(
        "accuracies with evidence on a board that has shut down, one of them linked to another model",
        "every accuracy with its source, and none called measured that this project did not measure",
    ),
)
"""The most important first."""
