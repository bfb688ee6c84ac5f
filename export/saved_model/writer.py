"""Write a function and its params as a SavedModel with the interface of version 1.

The interface is that of a Reusable SavedModel (https://www.tensorflow.org/hub/reusable_saved_models): `__call__` with
one tensor of any batch size, `variables`, `trainable_variables`, `regularization_losses`; and the signature
`serving_default(inputs) -> {"output_0": ...}`. There are further signatures (`models.signatures`).

Only the variables depend on the weights: a `Graph` is traced on shapes alone, and is used for every checkpoint with
those shapes.
"""

import gc
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from export.saved_model.canonical import rewrite_saved_model
from export.saved_model.preprocessing import checked, decoded
from export.saved_model.settings import fixed_settings
from export.saved_model.variables import Layout
from models.params import nest
from models.resize import scale
from models.signatures import OUTPUT, SERVING_DEFAULT, SIGNATURES

Function = Callable[[Mapping[str, Any], tf.Tensor], Any]
"""Takes nested params and images `[batch, height, width, 3]`, float32; returns the outputs of `__call__`, `[batch, n]`.

If it returns a dictionary with `output_0`, `__call__` returns only that entry, and each other entry becomes a signature
of the same name. Any other dictionary is returned unchanged, and the only signature is then `serving_default`.
"""

Entry = Callable[[tf.Tensor], tf.Tensor]
"""Takes the only input of a signature and returns its only output."""

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of each parameter, by its path `a/b/c`."""


@dataclass(frozen=True)
class Graph:
    """A SavedModel without its weights."""

    saved_model: bytes
    """The contents of `saved_model.pb`."""

    layout: Layout
    """How to write the variables."""

    @classmethod
    def trace(cls, function: Function, shapes: Shapes, *, image_size: int, labels: Path | None = None) -> Self:
        """Trace a function on the shapes of its float32 params.

        Raises:
            MixerError: the exported function would not run in all supported TensorFlow releases.
            OSError: there is no space for temporary files.
        """
        with fixed_settings():
            model, signatures = _reusable_model(function, shapes, image_size=image_size, labels=labels)
            with tempfile.TemporaryDirectory() as folder, _tensors_by_identity(), _collector_at_rest():
                _save(model, signatures, Path(folder))
                return cls((Path(folder) / "saved_model.pb").read_bytes(), Layout.read(Path(folder), shapes))

    def write(self, arrays: Mapping[str, NDArray[np.float32]], directory: Path, *, labels: Path | None = None) -> None:
        """Write the SavedModel with these weights into an existing, empty directory.

        Args:
            arrays: the weights, by the paths that the graph was traced with.
            directory: where to write; this is not atomic, see `export.install.staged`.
            labels: the class list that the graph was traced with.

        Raises:
            OSError: the directory cannot be written, for example because the disk is full.
        """
        self.layout.write(arrays, directory)
        if labels is not None:
            (directory / "assets").mkdir()
            shutil.copyfile(labels, directory / "assets" / labels.name)
        (directory / "saved_model.pb").write_bytes(self.saved_model)


def _save(model: tf.train.Checkpoint, signatures: Mapping[str, Any], directory: Path) -> None:
    """Save a model and its variables in the form that is published."""
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=True, experimental_skip_saver=True)
    tf.saved_model.save(model, str(directory), signatures=signatures, options=options)
    rewrite_saved_model(directory)


@contextmanager
def _tensors_by_identity() -> Iterator[None]:
    """Compare tensors by identity during the block, which makes tracing much cheaper.

    TensorFlow looks up each captured tensor in a list of all and compares by value: n * n operations for n params. Even
    its comparison by identity goes through a dispatcher, which takes a tenth of the time of tracing.
    """
    compare = tf.Tensor.__eq__
    tf.compat.v1.disable_tensor_equality()
    tf.Tensor.__eq__ = lambda one, other: one is other
    try:
        yield
    finally:
        tf.Tensor.__eq__ = compare
        tf.compat.v1.enable_tensor_equality()


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Turn off the garbage collector during the block: nearly all objects that are made are used until its end."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _reusable_model(
    function: Function, shapes: Shapes, *, image_size: int, labels: Path | None
) -> tuple[tf.train.Checkpoint, dict[str, Any]]:
    """Return the object to save, with empty variables, and its signatures."""
    nested, variables = _empty_variables(shapes)
    images = tf.TensorSpec([None, image_size, image_size, 3], tf.float32)

    def apply_function(images: tf.Tensor) -> Any:  # noqa: ANN401 (whatever the function returns)
        return function(nested, images)

    mixer = tf.function(apply_function, autograph=False).get_concrete_function(images)
    named = mixer.structured_outputs if isinstance(mixer.structured_outputs, Mapping) else {}

    def apply(inputs: tf.Tensor) -> Any:  # noqa: ANN401 (whatever the function returns)
        outputs = mixer(checked(inputs, image_size))
        return outputs[OUTPUT] if OUTPUT in named else outputs

    model = tf.train.Checkpoint()
    model.__call__ = tf.function(apply, input_signature=[_spec(SERVING_DEFAULT, image_size)], autograph=False)
    model.variables = variables
    model.trainable_variables = variables
    model.regularization_losses = []
    if labels is not None:
        model.labels = tf.saved_model.Asset(str(labels))

    signatures = {SERVING_DEFAULT: model.__call__}
    if OUTPUT in named or not named:
        entries = _further_entries(apply, mixer, sorted(named.keys() - {OUTPUT}), image_size)
        signatures |= {name: _signature(entry, _spec(name, image_size)) for name, entry in entries.items()}
    return model, signatures


def _further_entries(apply: Entry, mixer: Callable[..., Any], named: list[str], image_size: int) -> dict[str, Entry]:
    """Return the entries besides `__call__`: for other inputs, and for the function's other named outputs."""

    def entry_of(name: str) -> Entry:
        return lambda inputs: mixer(checked(inputs, image_size))[name]

    return {
        "serving_uint8": lambda pixels: apply(scale(pixels)),
        "serving_bytes": lambda encoded: apply(scale(decoded(encoded, image_size))),
        **{name: entry_of(name) for name in named},
    }


def _signature(entry: Entry, spec: tf.TensorSpec) -> Any:  # noqa: ANN401
    """Return a concrete function with one input, named as in `spec`, and one output, `output_0`."""

    def serve(given: tf.Tensor) -> dict[str, tf.Tensor]:
        return {OUTPUT: entry(given)}

    return tf.function(serve, input_signature=[spec], autograph=False).get_concrete_function()


def _spec(name: str, image_size: int) -> tf.TensorSpec:
    signature = SIGNATURES[name]
    return tf.TensorSpec(signature.input_shape(image_size), signature.dtype, name=signature.input_name)


def _empty_variables(shapes: Shapes) -> tuple[dict[str, Any], list[tf.Variable]]:
    """Return empty variables of these shapes, nested and as a list; once made, they take no memory."""
    variables = {}
    for path, shape in shapes.items():
        # NumPy's zeros take no memory until they are written to, which never happens.
        zeros = tf.experimental.dlpack.from_dlpack(np.zeros(shape, np.float32).__dlpack__())
        variables[path] = tf.Variable(zeros, name=path)
        tf.raw_ops.AssignVariableOp(resource=variables[path].handle, value=tf.zeros([0]))
    return nest(variables), list(variables.values())
