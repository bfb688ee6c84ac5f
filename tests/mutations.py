"""Models that are wrong on purpose, in every way that was thought of, and right ones with unusual weights.

One table for the tests and for MUTATIONS.md, which names each with what caught it (`mutation_table.py` prints that).
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from unittest import mock

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import tensorflow as tf
from jax.experimental import jax2tf
from writing import graph_function, native_function, write_saved_model

from convert.checkpoints.reader import LoadedCheckpoint, load_checkpoint
from convert.checkpoints.synthetic import _seeded_arrays
from convert.flavours.native import mixer_apply
from convert.pipeline.tracing import _to_flavour
from export.saved_model.writer import Graph
from models import mixer
from models.catalog import HANDLES, SQUARE_HANDLES, TESTING_HANDLES, Architecture, Checkpoint, Flavour, Handle
from models.params import flatten, nest
from validation.parity import reference
from validation.parity.check import GATE_ORACLE, GATE_PLAN, Findings, check_parity
from validation.parity.images import Inputs
from validation.parity.reference import Reference

TINY, TINY_FEATURES = TESTING_HANDLES.values()
TINY_GRAPH = TINY.in_flavour("graph")
SQUARE, _ = SQUARE_HANDLES.values()
"""Its kernels are square (T = S = D = C), so that they fit where others belong."""
FULL_SIZE = HANDLES["mixer_b32_sam_classification"]
AT_FULL_SIZE = {
    TINY: FULL_SIZE,
    TINY_FEATURES: HANDLES["mixer_b32_sam_fe"],
    TINY_GRAPH: FULL_SIZE.in_flavour("graph"),
    SQUARE: FULL_SIZE,
}
"""What stands for the testing handles where mutations of full size are tried."""
WEIGHTS = "variables/variables.data-00000-of-00001"
INTERFACE = ("serving_default takes ", "serving_default returns ", "saved_model.pb is of the ")
"""How a problem begins that is told from names, types, shapes and kinds of operations."""


@dataclass(frozen=True)
class Bench:
    """A checkpoint and what JAX and the oracle make of it: models are written and checked against these."""

    handle: Handle
    path: Path
    loaded: LoadedCheckpoint
    reference: Reference

    @classmethod
    def of(cls, handle: Handle, path: Path, **options) -> "Bench":
        checkpoint = handle.checkpoint
        loaded = load_checkpoint(path, checkpoint.architecture, num_classes=checkpoint.num_classes)
        inputs = Inputs.gate(checkpoint.architecture.image_size)
        reference = Reference.compute(checkpoint, path, loaded.params, inputs, GATE_ORACLE, **options)
        return cls(handle, path, loaded, reference)

    def of_the_same(self, handle: Handle) -> "Bench":
        """Return the bench of another handle of the same checkpoint."""
        return replace(self, handle=handle)

    @property
    def params(self):
        return self.loaded.for_head(self.handle.head)

    @property
    def right(self):
        return graph_function(self.handle) if self.handle.flavour == "graph" else native_function(self.handle)

    def check_directory(self, directory: Path) -> Findings:
        return check_parity(directory, self.handle, self.params, self.reference, GATE_PLAN)

    def check(self, function=None, params=None, *, image_size=None) -> Findings:
        """Write a function with parameters as a SavedModel (where None: the right ones), and check it."""
        with tempfile.TemporaryDirectory() as folder:
            self.write(Path(folder), function, params, image_size=image_size)
            return self.check_directory(Path(folder))

    def check_anew(self) -> Findings:
        """Trace the right function again, so that what holds meanwhile shows, and check it."""
        return self.check(self.right)

    def check_files(self, change: Callable[[Path], None]) -> Findings:
        """Write the right model, let its files be changed, and check it."""
        with tempfile.TemporaryDirectory() as folder:
            self.write(Path(folder))
            change(Path(folder))
            return self.check_directory(Path(folder))

    def write(self, directory: Path, function=None, params=None, *, image_size=None) -> None:
        params = params or self.params
        if function is None:
            graph = right_graph(self.handle.checkpoint.architecture, self.handle.num_classes, self.handle.flavour)
            graph.write({name: np.asarray(value) for name, value in flatten(params).items()}, directory)
            return
        size = image_size or self.handle.checkpoint.architecture.image_size
        with without_gradients():
            write_saved_model(function, params, directory, image_size=size)


@cache
def right_graph(architecture: Architecture, num_classes: int | None, flavour: Flavour) -> Graph:
    """Return the graph of the right models of a kind, traced once."""
    with without_gradients():
        function = _to_flavour(flavour)(mixer_apply(architecture, num_classes))
        return Graph.trace(function, architecture.arrays(num_classes), image_size=architecture.image_size)


@contextmanager
def without_gradients() -> Iterator[None]:
    """Let models be made without their gradients, which are not looked at here and take half the time."""
    real = jax2tf.convert
    with mock.patch.object(jax2tf, "convert", lambda f, **options: real(f, **(options | {"with_gradient": False}))):
        yield


def furthest(findings: Findings) -> tuple[float, float] | None:
    """Return the difference that is largest over its limit, and the limit: SavedModel to JAX, or JAX to oracle."""
    names = ("max_relative", "jax_oracle_relative")
    found = [(check.measured, check.limit) for check in findings.checks if check.name in names and check.has_power]
    return max(found, key=lambda pair: pair[0] / pair[1], default=None)


def worst(findings: Findings) -> float | None:
    """Return the largest difference of the SavedModel from JAX."""
    return max((comparison.distances.max_relative for comparison in findings.comparisons), default=None)


def caught_by(findings: Findings) -> tuple[str, ...]:
    """Return which parts of the check noticed something."""
    off = {check.name for comparison in findings.comparisons for check in comparison.checks if check.problems}
    ways = {
        "outputs": bool(off - {"jax_oracle_relative"}),
        "oracle": "jax_oracle_relative" in off,
        "variables": bool(findings.variables.different),
        "interface": any(problem.startswith(INTERFACE) for problem in findings.problems),
        "loading": any(problem.startswith("does not load") for problem in findings.problems),
    }
    return tuple(way for way, noticed in ways.items() if noticed)


@dataclass(frozen=True)
class Mutation:
    """A way to be wrong.

    Attributes:
        name: as MUTATIONS.md has it.
        caught_by: the parts of the check that must notice.
        make: writes the wrong model and checks it.
        on: the handle that it should have been.
        during: what holds while the model is made.
        square: whether it needs kernels that are square.
    """

    name: str
    caught_by: tuple[str, ...]
    make: Callable[[Bench], Findings] = Bench.check_anew
    on: Handle = TINY
    during: Callable[[], AbstractContextManager] = field(default=nullcontext)
    square: bool = False

    def run(self, bench: Bench) -> Findings:
        with self.during():
            return self.make(bench)


# --- the computation is another ---

LAYER_NORM = nn.LayerNorm


def with_erf():
    return mock.patch.object(nn, "gelu", lambda x, approximate: _gelu_of_erf(x))


def _gelu_of_erf(x):
    """Return x/2 (1 + erf(x / sqrt(2))), from operations that every StableHLO has (newer JAX calls erf as a whole).

    Abramowitz and Stegun, 7.1.26: erf to 1.5e-7.
    """
    z = jnp.abs(x) / np.float32(np.sqrt(2))
    t = 1 / (1 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return x / 2 * (1 + jnp.sign(x) * (1 - series * jnp.exp(-z * z)))


def with_larger_epsilon():
    return mock.patch.object(mixer, "LAYER_NORM_EPSILON", 1e-5)


def without_norm_bias():
    return mock.patch.object(nn, "LayerNorm", lambda **options: LAYER_NORM(use_bias=False, **options))


def with_mean_before_last_norm():
    def norm(**options):
        layer = LAYER_NORM(**options)
        if options.get("name") != "pre_head_layer_norm":
            return layer
        return lambda x: layer(jnp.mean(x, axis=1, keepdims=True))

    return mock.patch.object(nn, "LayerNorm", norm)


def in_jax_too(bench):
    """JAX is wrong in the same way, which only the oracle can tell."""
    reference._compiled.cache_clear()
    try:
        return Bench.of(bench.handle, bench.path).check_anew()
    finally:
        reference._compiled.cache_clear()


def skip_a_block(bench):
    """The third block is left out; its variables are there all the same."""
    architecture = bench.handle.checkpoint.architecture
    fewer = replace(architecture, num_blocks=architecture.num_blocks - 1)
    apply = native_function(replace(bench.handle, checkpoint=replace(bench.handle.checkpoint, architecture=fewer)))

    def function(params, images):
        return apply({**params, "MixerBlock_2": params["MixerBlock_3"]}, images)

    return bench.check(function)


def using(rearrange):
    """The right variables, used wrongly."""
    return lambda bench: bench.check(lambda params, images: bench.right(rearrange(params), images))


def seeing(change):
    """The right model, given other images."""
    return lambda bench: bench.check(lambda params, images: bench.right(params, change(images)))


def giving(change):
    """The right model, whose outputs are changed."""
    return lambda bench: bench.check(lambda params, images: change(bench.right(params, images)))


def swap(params, *, left, right):
    """Return parameters in which two groups changed places; a group is named by its path."""
    flat = flatten(params)
    exchanged = {}
    for name, value in flat.items():
        for here, there in ((left, right), (right, left)):
            if name.startswith(here):
                exchanged[there + name.removeprefix(here)] = value
    return nest(flat | exchanged)


def exchange_blocks(params):
    """The second and the third block, counted from one."""
    return swap(params, left="MixerBlock_1/", right="MixerBlock_2/")


def exchange_norms(params):
    return swap(params, left="MixerBlock_0/LayerNorm_0/", right="MixerBlock_0/LayerNorm_1/")


def exchange_mixings(params):
    for block in (name for name in params if name.startswith("MixerBlock_")):
        for dense in ("Dense_0", "Dense_1"):
            left, right = (f"{block}/{mixing}/{dense}/kernel" for mixing in ("token_mixing", "channel_mixing"))
            params = swap(params, left=left, right=right)
    return params


def transpose_a_kernel(params):
    flat = flatten(params)
    name = "MixerBlock_2/token_mixing/Dense_0/kernel"
    return nest(flat | {name: tf.transpose(flat[name])})


# --- the variables are others ---


def holding(change):
    """The right computation on other variables."""

    def make(bench):
        flat = {name: np.copy(value) for name, value in flatten(bench.params).items()}
        return bench.check(params=nest(change(flat)))

    return make


def round_to_bfloat16(flat):
    return {name: np.asarray(jnp.asarray(value, jnp.bfloat16), np.float32) for name, value in flat.items()}


def push_one_weight(flat):
    kernel = flat["MixerBlock_0/channel_mixing/Dense_0/kernel"]
    kernel[0, 0] += 1e-3 * kernel.std()
    return flat


def flip_one_bit(flat):
    flat["stem/kernel"].view(np.uint32)[0, 0, 0, 0] ^= 1
    return flat


def hold_another_checkpoint(bench):
    return bench.check(params=nest(dict(_seeded_arrays(replace(bench.handle.checkpoint, name="other")))))


def cut_the_head(bench):
    """A head of ten classes."""
    training = replace(bench.handle.checkpoint.training, num_classes=10)
    other = replace(bench.handle, checkpoint=replace(bench.handle.checkpoint, training=training))
    arrays = flatten(bench.params).items()
    flat = {name: value[..., :10] if name.startswith("head/") else value for name, value in arrays}
    return bench.check(native_function(other), nest(flat))


# --- the files are others ---


def with_graph_of(**other):
    """`saved_model.pb` of a model with another checkpoint, head or flavour beside the right variables."""

    def make(bench):
        def change(directory):
            handle = replace(bench.handle, **other)
            params = nest(dict(_seeded_arrays(handle.checkpoint)))
            if handle.head == "fe":
                del params["head"]
            with tempfile.TemporaryDirectory() as folder:
                Bench(handle, None, None, None).write(Path(folder), params=params)
                shutil.copy(Path(folder) / "saved_model.pb", directory)

        return bench.check_files(change)

    return make


def flip_a_bit(directory):
    path = directory / WEIGHTS
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_the_weights(directory):
    path = directory / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1000])


OUTPUTS, ORACLE, VARIABLES, BOTH = ("outputs",), ("oracle",), ("variables",), ("outputs", "variables")

MUTATIONS = (
    Mutation("GELU in its erf form", OUTPUTS, during=with_erf),
    Mutation("GELU in its erf form, feature extractor", OUTPUTS, during=with_erf, on=TINY_FEATURES),
    Mutation("layer norm epsilon 1e-5", OUTPUTS, during=with_larger_epsilon),
    Mutation("layer norm epsilon 1e-5, feature extractor", OUTPUTS, during=with_larger_epsilon, on=TINY_FEATURES),
    Mutation("GELU in its erf form, graph flavour", OUTPUTS, during=with_erf, on=TINY_GRAPH),
    Mutation("layer norm epsilon 1e-5, graph flavour", OUTPUTS, during=with_larger_epsilon, on=TINY_GRAPH),
    Mutation("GELU in its erf form, in JAX too", ORACLE, in_jax_too, during=with_erf),
    Mutation("GELU in its erf form, in JAX too, feature extractor", ORACLE, in_jax_too, TINY_FEATURES, with_erf),
    Mutation("layer norm epsilon 1e-5, in JAX too", ORACLE, in_jax_too, during=with_larger_epsilon),
    Mutation("layer norms without bias", OUTPUTS, during=without_norm_bias),
    Mutation("mean over the tokens before the last norm", OUTPUTS, during=with_mean_before_last_norm),
    Mutation("one block skipped", OUTPUTS, skip_a_block, SQUARE),
    Mutation("blocks 2 and 3 exchanged", OUTPUTS, using(exchange_blocks), SQUARE),
    Mutation("both norms of a block exchanged", OUTPUTS, using(exchange_norms)),
    Mutation("kernels of token and channel mixing swapped", OUTPUTS, using(exchange_mixings), SQUARE, square=True),
    Mutation("one kernel transposed", OUTPUTS, using(transpose_a_kernel), SQUARE, square=True),
    Mutation("RGB taken as BGR", OUTPUTS, seeing(lambda images: images[..., ::-1])),
    Mutation("input scaled to [0, 1]", OUTPUTS, seeing(lambda images: (images + 1) / 2)),
    Mutation("probabilities instead of logits", OUTPUTS, giving(tf.nn.softmax)),
    Mutation("images of a batch mixed up", OUTPUTS, giving(lambda outputs: tf.reverse(outputs, axis=[0]))),
    Mutation("outputs not finite", OUTPUTS, giving(lambda outputs: outputs / tf.constant(0.0))),
    Mutation("weights rounded to bfloat16", BOTH, holding(round_to_bfloat16)),
    Mutation("one weight off by 1e-3 of its spread", VARIABLES, holding(push_one_weight)),
    Mutation("one weight off by its last bit", VARIABLES, holding(flip_one_bit)),
    Mutation("variables of another checkpoint", BOTH, hold_another_checkpoint),
    Mutation("head of the wrong size", ("variables", "interface"), cut_the_head),
    Mutation("saved_model.pb of another architecture", ("loading",), with_graph_of(checkpoint=SQUARE.checkpoint)),
    Mutation("saved_model.pb of the feature extractor", ("variables", "interface"), with_graph_of(head="fe")),
    Mutation("saved_model.pb of the classifier", ("loading",), with_graph_of(head="classification"), TINY_FEATURES),
    Mutation("saved_model.pb of the graph flavour", ("interface",), with_graph_of(flavour="graph")),
    Mutation("saved_model.pb of the native flavour", ("interface",), with_graph_of(flavour="native"), TINY_GRAPH),
    Mutation("one bit flipped in the file of the variables", ("loading",), lambda bench: bench.check_files(flip_a_bit)),
    Mutation("file of the variables cut short", ("loading",), lambda bench: bench.check_files(cut_the_weights)),
)

FULL_SIZE_MUTATIONS = tuple(replace(one, on=AT_FULL_SIZE[one.on]) for one in MUTATIONS if not one.square)
"""The same in full size, but for what needs square kernels."""

SMALLEST_MARGINS = (
    "GELU in its erf form",
    "GELU in its erf form, feature extractor",
    "GELU in its erf form, in JAX too, feature extractor",
)
"""Those of full size that differ least from what is right, for its limit, where differences of outputs must tell."""


# --- right models of other temperaments ---

Temper = Callable[[str, np.ndarray], np.ndarray]


def tame(name, array):
    """As initialised for training: norms that do nothing, no biases, small kernels."""
    if name.endswith("scale"):
        return np.ones_like(array)
    return np.zeros_like(array) if name.endswith("bias") else array / 2


def without_tails(name, array):
    """Norm scales around one half, no heavy tails, moderate biases; the stem's stays as small as it is."""
    if name.endswith("scale"):
        return np.abs(array) / 4 + np.float32(0.3)
    return np.clip(array, -2 * array.std(), 2 * array.std())


def trained(name, array):
    """As after training: norm scales around 1, biases of about 0.1, the stem's too, kernels with tails."""
    if name.endswith("scale"):
        return np.abs(array) / 4 + np.float32(0.8)
    return array * (np.float32(0.1) / array.std()) if name.endswith("bias") else array


def large(name, array):
    """What the blocks add is so large that activations reach 1e3."""
    return array * 160 if "Dense_1" in name else array


def small_kernels(name, array):
    return array * np.float32(1e-6) if name.endswith("kernel") else array


TEMPERS: dict[str, Temper] = {
    "as seeded": lambda name, array: array,
    "tame": tame,
    "without tails": without_tails,
    "trained-like": trained,
    "activations to 1e3": large,
    "kernels times 1e-6": small_kernels,
}


def tempered(checkpoint: Checkpoint, temper: str, folder: Path) -> Path:
    """Write the seeded checkpoint with its arrays changed."""
    path = folder / "tempered.npz"
    np.savez(path, **{name: TEMPERS[temper](name, array) for name, array in _seeded_arrays(checkpoint)})
    return path


# --- heads that hide what comes before them, and few outputs ---

Head = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def first(outputs: int) -> Head:
    return lambda kernel, bias: (kernel[:, :outputs], bias[:outputs])


def zeros(outputs: int) -> Head:
    return lambda kernel, bias: (np.zeros_like(kernel[:, :outputs]), np.zeros_like(bias[:outputs]))


def masked(outputs: int) -> Head:
    """The last class is one that must never come first."""
    return lambda kernel, bias: (kernel[:, :outputs], np.append(bias[: outputs - 1], np.float32(-1e4)))


def wide_biases(kernel, bias):
    return kernel, np.random.default_rng(0).normal(0, 3000, bias.size).astype(np.float32)


def nearly_the_same(kernel, bias):
    return kernel[:, :1] * np.array([1, 1.01], np.float32), np.zeros(2, np.float32)


HEADS: dict[str, Head] = {
    "1000 outputs": first(1000),
    "10 outputs": first(10),
    "2 outputs": first(2),
    "1 output": first(1),
    "x and 1.01 x": nearly_the_same,
    "10 outputs, one masked by -1e4": masked(10),
    "2 outputs, one masked by -1e4": masked(2),
    "biases of N(0, 3000)": wide_biases,
    "a bias of 1e6": lambda kernel, bias: (kernel, bias + np.float32(1e6)),
    "times 1e-12": lambda kernel, bias: (kernel * np.float32(1e-12), bias * np.float32(1e-12)),
    "zeros, 1000 outputs": zeros(1000),
    "zeros, 10 outputs": zeros(10),
    "zeros, 2 outputs": zeros(2),
    "zeros, 1 output": zeros(1),
    "zeros and a bias": lambda kernel, bias: (np.zeros_like(kernel), bias),
}
HIDDEN = {"right": nullcontext, "GELU in its erf form": with_erf, "layer norm epsilon 1e-5": with_larger_epsilon}
"""What is tried under each head."""
LEAST_MARGINS = {"GELU in its erf form": 4, "layer norm epsilon 1e-5": 2}


def with_head(handle: Handle, temper: str, head: str, folder: Path) -> Bench:
    """Write the seeded checkpoint of a classifier with its arrays changed and another head; return its bench."""
    arrays = {name: TEMPERS[temper](name, array) for name, array in _seeded_arrays(handle.checkpoint)}
    arrays["head/kernel"], arrays["head/bias"] = HEADS[head](arrays["head/kernel"], arrays["head/bias"])
    np.savez(folder / "head.npz", **arrays)
    training = replace(handle.checkpoint.training, num_classes=arrays["head/bias"].size)
    return Bench.of(replace(handle, checkpoint=replace(handle.checkpoint, training=training)), folder / "head.npz")


@cache
def _hidden_graph(what: str, architecture: Architecture, num_classes: int, flavour: Flavour) -> Graph:
    with HIDDEN[what]():
        return right_graph.__wrapped__(architecture, num_classes, flavour)


def check_hidden(bench: Bench, what: str) -> Findings:
    """Check a model that is right, or wrong in what its head may hide; its graph is traced once a kind."""
    handle = bench.handle
    graph = _hidden_graph(what, handle.checkpoint.architecture, handle.num_classes, handle.flavour)
    with tempfile.TemporaryDirectory() as folder:
        graph.write({name: np.asarray(value) for name, value in flatten(bench.params).items()}, Path(folder))
        return bench.check_directory(Path(folder))
