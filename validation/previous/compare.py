"""Compare two versions of a handle: the SavedModel made now, and an earlier published one."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import numpy as np
import tensorflow as tf

from models.records.check import Check
from models.records.report import PublishedComparison, PublishedVariables
from validation.memory import free
from validation.parity.check import one_line
from validation.parity.images import Images, Inputs
from validation.parity.outputs import Expected, Outputs
from validation.previous.open import Published

ENTRY: Final = "serving_default"
MOST_NAMES = 5
"""Most names of variables in a message; the record has them all."""
MOST_OF_A_LINE = 300
"""Most characters of a message from TensorFlow, which may quote whole tensors and modules."""

Tensors = Mapping[str, tuple[str, str]]
"""Dtype and shape by name, as text."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class _SignatureSpec:
    """What a signature takes and returns."""

    takes: Tensors
    returns: Tensors


@dataclass(frozen=True)
class _Fingerprint:
    """A variable: its name, which others may share, and its contents: dtype, shape and sha256 of the bits."""

    name: str
    contents: tuple[str, str, str]

    def __str__(self) -> str:
        """Return name, dtype and shape."""
        return f"{self.name} {self.contents[0]}{self.contents[1]}"


@dataclass(frozen=True)
class _Inspection:
    """What could be read from a SavedModel of any origin.

    Attributes:
        signatures: by name; None if they could not be read.
        variables: None if they could not be read.
        outputs: of `serving_default`, `[n, ...]`, float32; None if it did not run.
        problems: why something is None.
    """

    signatures: Mapping[str, _SignatureSpec] | None
    variables: tuple[_Fingerprint, ...] | None
    outputs: Outputs | None
    problems: tuple[str, ...]

    @classmethod
    def of(cls, directory: Path, images: Images) -> Self:
        """Load a SavedModel, inspect it, run images `[n, size, size, 3]` through it, and free it.

        An error becomes one of the problems, without the path of the model; nothing is raised.
        """
        problems: list[str] = []

        def attempt(what: str, look: Callable[[], _T]) -> _T | None:
            try:
                return look()
            except Exception as error:  # TensorFlow raises any of a dozen types for a foreign model
                said = one_line(error, directory).split(" Received args:")[0]
                problems.append(f"{what}: {said[:MOST_OF_A_LINE]}")
                return None

        model = attempt("does not load", lambda: tf.saved_model.load(str(directory)))
        if model is None:
            return cls(None, None, None, tuple(problems))
        held = [part for part in tf.train.TrackableView(model).descendants() if isinstance(part, tf.Variable)]
        try:
            signatures = attempt("has signatures that cannot be read", lambda: _signatures(model))
            variables = attempt("has variables that cannot be read", lambda: _fingerprints(model, held))
            outputs = attempt("does not run", lambda: _run(model, images))
        finally:
            free(held)
        return cls(signatures, variables, outputs, tuple(problems))


def _fingerprints(model: Any, held: Sequence[Any]) -> tuple[_Fingerprint, ...]:  # noqa: ANN401 (a restored user object)
    """Return the variables that the model lists, as Reusable SavedModels do; all that it contains if it lists none.

    A variable that is not listed is not a parameter, for instance `tf.train.Checkpoint`'s save counter.
    """
    return tuple(map(_fingerprint, getattr(model, "variables", ()) or held))


def _fingerprint(variable: Any) -> _Fingerprint:  # noqa: ANN401
    value = variable.numpy()
    bits = repr(value.tolist()).encode() if value.dtype.hasobject else np.ascontiguousarray(value).tobytes()
    contents = (variable.dtype.name, str(list(value.shape)), hashlib.sha256(bits).hexdigest())
    return _Fingerprint(variable.name.removesuffix(":0"), contents)


def _signatures(model: Any) -> dict[str, _SignatureSpec]:  # noqa: ANN401
    return {
        name: _SignatureSpec(_tensors(function.structured_input_signature[1]), _tensors(function.structured_outputs))
        for name, function in model.signatures.items()
    }


def _tensors(specs: Mapping[str, Any]) -> Tensors:
    return {name: (spec.dtype.name, str(spec.shape)) for name, spec in specs.items()}


def _run(model: Any, images: Images) -> Outputs:  # noqa: ANN401
    """Run all images at once, or one after the other if the model takes only one."""
    if ENTRY not in model.signatures:
        raise LookupError(f"no signature {ENTRY}, only {', '.join(sorted(model.signatures)) or 'none'}")
    function = model.signatures[ENTRY]
    takes, returns = function.structured_input_signature[1], function.structured_outputs
    if len(takes) != 1 or len(returns) != 1:
        names = [", ".join(sorted(tensors)) or "nothing" for tensors in (takes, returns)]
        raise LookupError(f"{ENTRY} takes {names[0]} and returns {names[1]}; expected one of each")
    ((name, spec),) = takes.items()
    singly = spec.shape.rank is not None and spec.shape.rank > 0 and spec.shape[0] == 1
    batches = np.split(images, len(images)) if singly else [images]
    found = [next(iter(function(**{name: tf.constant(batch)}).values())) for batch in batches]
    return np.concatenate([tf.cast(one, tf.float32).numpy() for one in found])


def compare_versions(directory: Path, published: Published, inputs: Inputs, expected: Expected) -> PublishedComparison:
    """Compare the SavedModel in `directory` with a published one: outputs, signatures, variables.

    If one of them cannot be loaded, read or run, that is a difference like any other.

    Args:
        directory: the SavedModel made now.
        published: the earlier one; its variables and tensors may have other names.
        inputs: the images that both are run on.
        expected: the outputs expected of the model made now; gives the scale, and whether the outputs are logits.
    """
    theirs = _Inspection.of(published.directory, inputs.images)
    ours = _Inspection.of(directory.resolve(), inputs.images)
    differences = [f"{published.name} {problem}" for problem in theirs.problems]
    differences += [f"this version {problem}" for problem in ours.problems]
    outputs, signatures, variables = None, None, None
    if ours.outputs is not None and theirs.outputs is not None:
        outputs, wrong = _compare_outputs(ours.outputs, theirs.outputs, inputs.names, expected)
        differences += wrong
    if ours.signatures is not None and theirs.signatures is not None:
        signatures = tuple(_signature_differences(ours, theirs))
        differences += signatures
    if ours.variables is not None and theirs.variables is not None:
        variables = _match_variables(ours.variables, theirs.variables)
        differences += _variable_differences(variables)
    return PublishedComparison(
        name=published.name,
        kind=published.kind,
        sha256=published.sha256,
        outputs=outputs,
        signatures=signatures,
        variables=variables,
        differences=tuple(differences),
        verdict="different" if differences else "same",
    )


def _compare_outputs(
    ours: Outputs, theirs: Outputs, names: tuple[str, ...], expected: Expected
) -> tuple[tuple[Check, ...] | None, list[str]]:
    if ours.shape != theirs.shape or ours.ndim != 2 or len(ours) != len(names):
        return None, [f"outputs: shape {ours.shape}, in the published version {theirs.shape}"]
    if not np.isfinite(theirs).all():
        odd = [name for name, row in zip(names, theirs, strict=True) if not np.isfinite(row).all()]
        return None, [f"outputs: the published version's are not finite on {', '.join(odd)}"]
    published = replace(expected, names=names, jax=theirs, oracle={})
    checks = published.compare(ENTRY, ours, np.arange(len(names))).checks
    return checks, [f"outputs: {problem}" for check in checks for problem in check.problems]


def _signature_differences(ours: _Inspection, theirs: _Inspection) -> Iterator[str]:
    """Yield the differences that a consumer of the published version would notice; an added signature is none."""
    here, there = ours.signatures or {}, theirs.signatures or {}
    for name in sorted(there):
        if name not in here:
            yield f"signature {name}: only in the published version"
        else:
            pairs = {
                "takes": (here[name].takes, there[name].takes),
                "returns": (here[name].returns, there[name].returns),
            }
            for verb, (now, then) in pairs.items():
                if now != then:
                    yield f"signature {name}: {verb} {_listed(now)}, in the published version {_listed(then)}"


def _listed(tensors: Tensors) -> str:
    return "; ".join(f"{name}: {dtype} {shape}" for name, (dtype, shape) in sorted(tensors.items())) or "nothing"


def _match_variables(ours: Sequence[_Fingerprint], theirs: Sequence[_Fingerprint]) -> PublishedVariables:
    """Find an equal counterpart for each of our variables: by name where that is possible, otherwise by contents."""
    named = _only_names(ours).keys() & _only_names(theirs).keys()
    theirs_named = _only_names(theirs)
    different = [one.name for one in ours if one.name in named and one.contents != theirs_named[one.name].contents]
    free = Counter(one.contents for one in theirs if one.name not in named)
    for one in ours:
        if one.name in named:
            continue
        if free[one.contents]:
            free[one.contents] -= 1
        else:
            different.append(one.name)
    left_over = []
    for one in theirs:
        if one.name not in named and free[one.contents]:
            free[one.contents] -= 1
            left_over.append(str(one))
    return PublishedVariables(
        count=len(ours),
        published=len(theirs),
        same_name=len(named),
        equal=len(ours) - len(different),
        different=tuple(sorted(different)),
        left_over=tuple(sorted(left_over)),
    )


def _only_names(variables: Sequence[_Fingerprint]) -> dict[str, _Fingerprint]:
    """Return the variables whose name is unique, by name."""
    counts = Counter(one.name for one in variables)
    return {one.name: one for one in variables if counts[one.name] == 1}


def _variable_differences(found: PublishedVariables) -> Iterator[str]:
    if found.different:
        yield (
            f"variables: {len(found.different)} of {found.count} have no equal counterpart in the published version: "
            f"{_shortened(found.different)}"
        )
    if found.left_over:
        yield (
            f"variables: {len(found.left_over)} of the published version's {found.published} have none here: "
            f"{_shortened(found.left_over)}"
        )


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")
