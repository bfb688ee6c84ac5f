"""Parity: a SavedModel, read back from disk, against JAX and the oracle on the parameters of the checkpoint."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.catalog import Handle
from models.params import flatten
from models.records import Comparison, VariablesCheck
from validation.memory import release
from validation.outputs import Entry, Outputs, compare_outputs, judge
from validation.reference import Reference

GATE_ORACLE = ("blank", "chelsea.png")
"""Images of the gate set that the oracle is run on."""


@dataclass(frozen=True)
class Batch:
    """Images that go through one entry at once."""

    entry: Entry
    names: tuple[str, ...]


GATE_PLAN = (
    Batch("__call__", ("noise", "blank", "chelsea.png")),
    Batch("serving_default", ("blank",)),
    Batch("serving_default", ("coffee.png",)),
)


def full_plan(names: Sequence[str]) -> tuple[Batch, ...]:
    """Return the batches of the full set: 1, 2, 7 and 32 images (some of them twice then), through both entries."""
    around = tuple(names) * (32 // len(names) + 1)
    singles = tuple(Batch("serving_default", (name,)) for name in ("blank", "near tie", "coffee.png") if name in names)
    return (
        *singles,
        Batch("__call__", ("blank",)),
        Batch("serving_default", around[:2]),
        Batch("__call__", around[2:9]),
        Batch("__call__", around[:32]),
    )


@dataclass(frozen=True)
class Findings:
    """What the check of one SavedModel measured, and what of it is wrong."""

    comparisons: tuple[Comparison, ...]
    variables: VariablesCheck
    problems: tuple[str, ...]
    outputs: Mapping[str, Outputs] = field(default_factory=dict)
    """What the SavedModel gave for each image, in the last batch that it was in."""


def check_parity(
    directory: Path, handle: Handle, params: Mapping[str, Any], reference: Reference, plan: Sequence[Batch]
) -> Findings:
    """Hold the SavedModel in `directory` against JAX, the oracle and, bit for bit, the checkpoint's arrays.

    Args:
        directory: the SavedModel.
        handle: what it should be.
        params: the handle's parameters (for `fe` without `head`), nested.
        reference: the images and what should come out.
        plan: which of them go through which entry, and how many at once.
    """
    try:
        model = tf.saved_model.load(str(directory))
    except Exception as error:  # what a damaged file brings up is any of a dozen types
        return Findings((), VariablesCheck(compared=0, different=()), (f"does not load: {gist(error, directory)}",))
    try:
        return _check_model(model, directory, handle, params, reference, plan)
    finally:
        release(model)


def _check_model(
    model: Any,  # noqa: ANN401
    directory: Path,
    handle: Handle,
    params: Mapping[str, Any],
    reference: Reference,
    plan: Sequence[Batch],
) -> Findings:
    try:
        problems = [*_flavour_problems(directory, handle), *_interface_problems(model, handle)]
    except Exception as error:  # as above
        return Findings((), VariablesCheck(compared=0, different=()), (f"does not load: {gist(error, directory)}",))
    variables = _compare_variables(model, params)
    if variables.different:
        problems.append(f"{len(variables.different)} variables differ: {', '.join(variables.different[:5])}")
    try:
        runs = [_run(model, handle, reference, batch) for batch in plan]
    except Exception as error:  # as above
        return Findings((), variables, (*problems, f"does not run: {gist(error, directory)}"))
    comparisons = tuple(comparison for comparison, _ in runs)
    problems += [problem for comparison in comparisons for problem in judge(comparison)]
    outputs = {
        name: row
        for batch, (_, rows) in zip(plan, runs, strict=True)
        for name, row in zip(batch.names, rows, strict=True)
    }
    return Findings(comparisons, variables, tuple(problems), outputs)


def gist(error: Exception, directory: Path | None = None) -> str:
    """Return in one line what an exception says, with the way to `directory`, which is nobody's business, as `.`."""
    # TensorFlow tells first where it was, and only then what it met.
    lines = str(error).split("<stack traces unavailable>")[-1].strip().splitlines()
    said = ": ".join([type(error).__name__, *lines[:1]])
    return said if directory is None else said.replace(str(directory), ".")


def _run(
    model: Any,  # noqa: ANN401
    handle: Handle,
    reference: Reference,
    batch: Batch,
) -> tuple[Comparison, Outputs]:
    indices = np.array([reference.inputs.names.index(name) for name in batch.names])
    images = tf.constant(reference.inputs.images[indices])
    if batch.entry == "__call__":
        found = model(images)
    else:
        found = model.signatures["serving_default"](inputs=images)["output_0"]
    outputs = found.numpy()
    return compare_outputs(batch.entry, outputs, reference.for_head(handle.head), indices), outputs


def _flavour_problems(directory: Path, handle: Handle) -> Iterator[str]:
    found = "native" if b"XlaCallModule" in (directory / "saved_model.pb").read_bytes() else "graph"
    if found != handle.flavour:
        yield f"saved_model.pb is of the {found} flavour, expected {handle.flavour}"


def _interface_problems(model: Any, handle: Handle) -> Iterator[str]:  # noqa: ANN401 (a restored user object)
    size = handle.checkpoint.architecture.image_size
    signature = model.signatures["serving_default"]
    given = {name: (spec.dtype, tuple(spec.shape)) for name, spec in signature.structured_input_signature[1].items()}
    expected = {"inputs": (tf.float32, (None, size, size, 3))}
    if given != expected:
        yield f"serving_default takes {given}, expected {expected}"
    returned = {name: (spec.dtype, tuple(spec.shape)) for name, spec in signature.structured_outputs.items()}
    wanted = {"output_0": (tf.float32, (None, handle.outputs))}
    if returned != wanted:
        yield f"serving_default returns {returned}, expected {wanted}"
    if len(model.trainable_variables) != len(model.variables) or not all(v.trainable for v in model.variables):
        yield f"{len(model.trainable_variables)} of {len(model.variables)} variables are trainable, expected all"
    if list(model.regularization_losses):
        yield f"{len(model.regularization_losses)} regularization losses, expected none"


def _compare_variables(model: Any, params: Mapping[str, Any]) -> VariablesCheck:  # noqa: ANN401
    found = {variable.name.removesuffix(":0"): variable for variable in model.variables}
    expected = flatten(params)
    different = [f"{name} (missing)" for name in expected.keys() - found.keys()]
    different += [f"{name} (unexpected)" for name in found.keys() - expected.keys()]
    shared = expected.keys() & found.keys()
    different += [name for name in shared if not _same_bits(found[name].numpy(), expected[name])]
    return VariablesCheck(compared=len(shared), different=tuple(sorted(different)))


def _same_bits(left: NDArray[np.float32], right: NDArray[np.float32]) -> bool:
    same_kind = left.dtype == right.dtype and left.shape == right.shape
    return same_kind and np.array_equal(left.reshape(-1).view(np.uint32), right.reshape(-1).view(np.uint32))
