"""Inspect a SavedModel of any origin: its signatures, variables and outputs."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import numpy as np
import tensorflow as tf

from validation.memory import free
from validation.parity.check import one_line
from validation.parity.images import Images
from validation.parity.outputs import Outputs

ENTRY: Final = "serving_default"
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
class Fingerprint:
    """A variable: its name, which others may share, and its contents: dtype, shape and sha256 of the bits."""

    name: str
    contents: tuple[str, str, str]

    def __str__(self) -> str:
        """Return name, dtype and shape."""
        return f"{self.name} {self.contents[0]}{self.contents[1]}"


@dataclass(frozen=True)
class Inspection:
    """What could be read from a SavedModel.

    Attributes:
        signatures: by name; None if they could not be read.
        variables: None if they could not be read.
        outputs: of `serving_default`, `[n, ...]`, float32; None if it did not run.
        problems: why something is None.
    """

    signatures: Mapping[str, _SignatureSpec] | None
    variables: tuple[Fingerprint, ...] | None
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


def _fingerprints(model: Any, held: Sequence[Any]) -> tuple[Fingerprint, ...]:  # noqa: ANN401 (a restored user object)
    """Return the variables that the model lists, as Reusable SavedModels do; all that it contains if it lists none.

    A variable that is not listed is not a parameter, for instance `tf.train.Checkpoint`'s save counter.
    """
    return tuple(map(_fingerprint, getattr(model, "variables", ()) or held))


def _fingerprint(variable: Any) -> Fingerprint:  # noqa: ANN401
    value = variable.numpy()
    bits = repr(value.tolist()).encode() if value.dtype.hasobject else np.ascontiguousarray(value).tobytes()
    contents = (variable.dtype.name, str(list(value.shape)), hashlib.sha256(bits).hexdigest())
    return Fingerprint(variable.name.removesuffix(":0"), contents)


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
