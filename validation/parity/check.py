"""Parity: compare a SavedModel, read back from disk, with JAX and the oracle on the checkpoint's params."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.catalog import Handle
from models.errors import counted
from models.params import flatten
from models.records.check import Check, Probe
from models.records.tolerances import TOLERANCES
from validation.memory import release
from validation.parity.outputs import Comparison, Entry, Expected, Outputs
from validation.parity.probe import ProbingHead, assign
from validation.parity.reference import Reference

GATE_ORACLE = ("blank", "chelsea.png")
"""Images of the gate set that the oracle is run on."""


@dataclass(frozen=True)
class _InputBatch:
    """Images that are run through one entry point as a batch."""

    entry: Entry
    names: tuple[str, ...]


GATE_PLAN = (
    _InputBatch("__call__", ("noise", "blank", "chelsea.png")),
    _InputBatch("serving_default", ("blank",)),
    _InputBatch("serving_default", ("coffee.png",)),
)


def full_plan(names: Sequence[str]) -> tuple[_InputBatch, ...]:
    """Return the batches of the full set: 1, 2, 7 and 16 images (with repeats), some through each entry point."""
    around = tuple(names) * (16 // len(names) + 1)
    singles = tuple(
        _InputBatch("serving_default", (name,)) for name in ("blank", "near tie", "coffee.png") if name in names
    )
    return (
        *singles,
        _InputBatch("__call__", ("blank",)),
        _InputBatch("serving_default", around[:2]),
        _InputBatch("__call__", around[1:8]),
        _InputBatch("__call__", around[:16]),
    )


def _probe_plan(plan: Sequence[_InputBatch]) -> tuple[_InputBatch, ...]:
    """Return the batches of a plan that probing heads are run on: those of at most 7 images with the blank image."""
    return tuple(batch for batch in plan if "blank" in batch.names and len(batch.names) <= 7)


@dataclass(frozen=True)
class _VariablesCheck:
    """A model's variables compared with the checkpoint's arrays, bit for bit."""

    compared: int = 0
    different: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, in words."""
        if not self.different:
            return ()
        said = counted(len(self.different), "variable differs", "variables differ")
        return (f"{said}: {', '.join(self.different[:5])}",)


@dataclass(frozen=True)
class Findings:
    """What the check of one SavedModel measured, and the problems it found."""

    comparisons: tuple[Comparison, ...] = ()
    variables: _VariablesCheck = _VariablesCheck()
    interface: tuple[str, ...] = ()
    """Problems with names, dtypes, shapes and kinds of operations, or why the model does not load."""
    running: tuple[str, ...] = ()
    """Why the model does not run."""
    batching: tuple[Check, ...] = ()
    """Whether the outputs of an image depend on the other images in its batch."""
    outputs: Mapping[str, Outputs] = field(default_factory=dict)
    """The SavedModel's outputs for each image, from the last batch that contained it."""

    @property
    def checks(self) -> tuple[Check, ...]:
        """Everything that was measured, and why something could not be."""
        limit, variables = TOLERANCES["variables"].limit, self.variables
        found = [Check(name="interface", on="serving_default and variables", problems=self.interface)]
        if variables.compared or variables.different:
            measured, said = (
                float(len(variables.different)),
                f"{variables.compared} compared with the checkpoint's arrays",
            )
            on = "bit for bit"
            found += [
                Check(name="variables", on=on, measured=measured, limit=limit, problems=variables.problems, detail=said)
            ]
        found += [Check(name="running", problems=self.running)] if self.running else []
        return (*found, *(check for comparison in self.comparisons for check in comparison.checks), *self.batching)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, in words."""
        return tuple(problem for check in self.checks for problem in check.problems)


def check_parity(
    directory: Path, handle: Handle, params: Mapping[str, Any], reference: Reference, plan: Sequence[_InputBatch]
) -> Findings:
    """Compare the SavedModel in `directory` with JAX, the oracle and, bit for bit, the checkpoint's arrays.

    Then replace a classifier's head in the loaded model with a probing head, and the stem's bias with a probing bias if
    the reference has one: these results do not depend on the checkpoint's own head.

    Args:
        directory: the SavedModel.
        handle: the expected handle.
        params: the handle's params (for `fe` without `head`), nested.
        reference: the images and their expected outputs.
        plan: the batches of images, each with its entry point.
    """
    try:
        model = tf.saved_model.load(str(directory))
    except Exception as error:  # a damaged file raises any of a dozen types
        return Findings(interface=(f"does not load: {one_line(error, directory)}",))
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
    plan: Sequence[_InputBatch],
) -> Findings:
    try:
        interface = (*_flavour_problems(directory, handle), *_interface_problems(model, handle))
    except Exception as error:  # as above
        return Findings(interface=(f"does not load: {one_line(error, directory)}",))
    variables = _compare_variables(model, params)
    expected = reference.for_head(handle.head)
    try:
        rows = [_run(model, batch, reference) for batch in plan]
        compared = [_compare(batch, found, expected) for batch, found in zip(plan, rows, strict=True)]
        outputs = {
            name: row
            for batch, found in zip(plan, rows, strict=True)
            for name, row in zip(batch.names, found, strict=True)
        }
    except Exception as error:  # as above
        return Findings((), variables, interface, (f"does not run: {one_line(error, directory)}",))
    batching = expected.check_batching([(batch.names, found) for batch, found in zip(plan, rows, strict=True)])
    running = []
    try:
        compared += _probe(model, handle, reference, _probe_plan(plan))
    except Exception as error:  # as above
        running.append(f"does not run with probes in it: {one_line(error, directory)}")
    return Findings(tuple(compared), variables, interface, tuple(running), tuple(batching), outputs)


def one_line(error: Exception, directory: Path | None = None) -> str:
    """Return an exception's type and message in one line, with the user's path to `directory` replaced by `.`."""
    # TensorFlow puts the location first, then the error itself.
    lines = str(error).split("<stack traces unavailable>")[-1].strip().splitlines()
    said = ": ".join([type(error).__name__, *lines[:1]])
    return said if directory is None else said.replace(str(directory), ".")


def _run(model: Any, batch: _InputBatch, reference: Reference) -> Outputs:  # noqa: ANN401
    images = tf.constant(reference.inputs.images[[reference.inputs.names.index(name) for name in batch.names]])
    if batch.entry == "__call__":
        return np.asarray(model(images).numpy())
    return np.asarray(model.signatures["serving_default"](inputs=images)["output_0"].numpy())


def _compare(batch: _InputBatch, found: Outputs, expected: Expected, *, probe: Probe | None = None) -> Comparison:
    indices = np.array([expected.names.index(name) for name in batch.names])
    return expected.compare(batch.entry, found, indices, probe=probe)


def _probe(model: Any, handle: Handle, reference: Reference, plan: Sequence[_InputBatch]) -> Iterator[Comparison]:  # noqa: ANN401
    """Run the model with probing heads instead of its own, which is lost, and with the probing stem under each."""
    architecture = handle.checkpoint.architecture
    head = None if handle.num_classes is None else ProbingHead.of(architecture.hidden_dim, handle.num_classes)
    of_heads: dict[_InputBatch, list[Outputs]] = {batch: [] for batch in plan} if head else {}
    of_stem: list[Outputs] = []
    blank = _InputBatch("__call__", ("blank",))
    bias = {variable.name.removesuffix(":0"): variable for variable in model.variables}["stem/bias"].numpy()
    for one in head.heads if head else ({},):
        assign(model, one, group="head")
        for batch, rows in of_heads.items():
            rows.append(_run(model, batch, reference))
        if reference.stem is not None:
            assign(model, {"bias": reference.stem.bias}, group="stem")
            of_stem.append(_run(model, blank, reference))
            assign(model, {"bias": bias}, group="stem")
    if head is not None:
        expected = reference.for_probe(head)
        for batch, rows in of_heads.items():
            yield _compare(batch, np.concatenate(rows, axis=1), expected, probe="head")
    stem = reference.for_stem(head)
    if stem is not None:
        yield _compare(blank, np.concatenate(of_stem, axis=1), stem, probe="stem")


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


def _compare_variables(model: Any, params: Mapping[str, Any]) -> _VariablesCheck:  # noqa: ANN401
    found = {variable.name.removesuffix(":0"): variable for variable in model.variables}
    expected = flatten(params)
    different = [f"{name} (missing)" for name in expected.keys() - found.keys()]
    different += [f"{name} (unexpected)" for name in found.keys() - expected.keys()]
    shared = expected.keys() & found.keys()
    different += [name for name in shared if not _same_bits(found[name].numpy(), expected[name])]
    return _VariablesCheck(compared=len(shared), different=tuple(sorted(different)))


def _same_bits(left: NDArray[np.float32], right: NDArray[np.float32]) -> bool:
    same_kind = left.dtype == right.dtype and left.shape == right.shape
    return same_kind and np.array_equal(left.reshape(-1).view(np.uint32), right.reshape(-1).view(np.uint32))
