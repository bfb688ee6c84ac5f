"""Write a function and its parameters as a SavedModel that keeps version 1's interface.

The interface is that of a Reusable SavedModel (https://www.tensorflow.org/hub/reusable_saved_models): `__call__` with
one tensor of any batch, `variables`, `trainable_variables`, `regularization_losses`; and the signature
`serving_default(inputs) -> {"output_0": ...}`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from export.canonical import rewrite_saved_model

INPUT_NAME = "inputs"


def write_saved_model(
    function: Callable[[Mapping[str, Any], tf.Tensor], tf.Tensor],
    params: Mapping[str, Any],
    directory: Path,
    *,
    image_size: int,
    labels: Path | None = None,
) -> None:
    """Write a SavedModel into an existing, empty directory.

    Args:
        function: takes nested parameters and images `[batch, image_size, image_size, 3]`, float32, gives `[batch, n]`.
        params: nested dictionaries of float32 arrays; each becomes a variable named after its path.
        directory: where to; not written atomically, see `export.destination.staged`.
        image_size: height and width of the input, in pixels.
        labels: class list to carry along as a tracked asset, one line a class.

    Raises:
        LoweringError: what the function exports to would not run everywhere.
        OSError: the directory cannot be written, the disk is full.
    """
    model = _reusable_model(function, params, image_size=image_size, labels=labels)
    signature = model.__call__.get_concrete_function()
    try:
        tf.saved_model.save(
            model,
            str(directory),
            signatures=signature,
            options=tf.saved_model.SaveOptions(experimental_custom_gradients=True),
        )
    except tf.errors.OpError as error:
        # TensorFlow writes through operations of its own: "{{node ...}} path; No space left on device [Op:SaveV2]".
        raise OSError(error.message.rpartition("; ")[2]) from error
    finally:
        # TensorFlow's registry of gradients keeps the function, and through it the variables, as long as the process.
        for variable in model.variables:
            tf.raw_ops.AssignVariableOp(resource=variable.handle, value=tf.zeros([0]))
    rewrite_saved_model(directory)


def _reusable_model(
    function: Callable[[Mapping[str, Any], tf.Tensor], tf.Tensor],
    params: Mapping[str, Any],
    *,
    image_size: int,
    labels: Path | None,
) -> tf.train.Checkpoint:
    variables: list[tf.Variable] = []
    nested = _as_variables(params, "", variables)

    def apply(inputs: tf.Tensor) -> tf.Tensor:
        return function(nested, _checked(inputs, image_size))

    model = tf.train.Checkpoint()
    model.__call__ = tf.function(
        apply,
        input_signature=[tf.TensorSpec([None, image_size, image_size, 3], tf.float32, name=INPUT_NAME)],
        autograph=False,
    )
    model.variables = variables
    model.trainable_variables = variables
    model.regularization_losses = []
    if labels is not None:
        model.labels = tf.saved_model.Asset(str(labels))
    return model


def _checked(inputs: tf.Tensor, image_size: int) -> tf.Tensor:
    """Return the images, once their shape has been found right when the model runs.

    TensorFlow itself lets a signature take any height and width, and neither flavour has anything to say of no images.
    """
    shape = (image_size, image_size, 3)
    found = tf.shape(inputs)
    sizes = tf.concat([found, [0] * 5], 0)[:5]  # as many for every rank
    right = tf.logical_and(tf.reduce_all(tf.equal(sizes[1:], [*shape, 0])), sizes[0] > 0)
    expected = f"expected images of shape [batch, {', '.join(map(str, shape))}], at least one, but found the shape"
    with tf.control_dependencies([tf.debugging.Assert(right, [expected, found], summarize=8)]):
        return tf.identity(inputs)


def _as_variables(params: Mapping[str, Any], prefix: str, variables: list[tf.Variable]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            nested[name] = _as_variables(value, f"{prefix}{name}/", variables)
        else:
            nested[name] = tf.Variable(value, name=f"{prefix}{name}")
            variables.append(nested[name])
    return nested
