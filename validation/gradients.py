"""Gradients: TensorFlow's, through the SavedModel, against JAX's; then one SGD step in both."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.catalog import Handle
from models.mixer import MlpMixer
from models.records import GradientCheck
from validation.images import Images, Inputs
from validation.outputs import Outputs, relative_distance
from validation.tolerances import TOLERANCES

STEP = 0.05
"""Share of the loss that a step would take away if the loss were linear."""

ROUNDING = 1e-6
"""Of the largest gradient of all: what is smaller is rounding, and is measured against that largest one.

The second bias of token mixing shifts all channels of a token alike, which every later norm undoes: its true gradient
is zero.
"""

Array = NDArray[np.float32]


def check_gradients(model: Any, handle: Handle, params: Mapping[str, Any], inputs: Inputs) -> GradientCheck:  # noqa: ANN401
    """Compare the gradients of half the mean square of the outputs, by every variable and by the images.

    Changes the variables of `model`, a restored SavedModel, by one SGD step: load it anew for anything else.

    Args:
        model: as `tf.saved_model.load` gives it.
        handle: what it is.
        params: its parameters, nested.
        inputs: the images; two are enough.
    """
    found, found_by_images, before = _tensorflow_gradients(model, inputs.images)
    differentiate, apply = _compiled(handle)
    loss, (tree, expected_by_images) = differentiate(params, inputs.images)
    tree = jax.tree.map(np.asarray, tree)  # JAX would compile each operation below for each shape
    expected = {"/".join(key.key for key in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    distances = _distances(found, expected)
    worst = max(distances, key=distances.__getitem__, default=None)

    missing = tuple(name for name, gradient in found.items() if gradient is None)

    rate = np.float32(STEP * float(loss) / sum(float(np.vdot(leaf, leaf)) for leaf in expected.values()))
    for variable in model.trainable_variables:
        gradient = found.pop(_name(variable))  # not held any longer: all of them are as large as the model
        if gradient is not None:
            variable.assign_sub(rate * gradient)
    stepped = jax.tree.map(lambda value, gradient: value - rate * gradient, params, tree)
    del tree, expected
    after = np.asarray(apply(stepped, inputs.images))
    return GradientCheck(
        inputs=inputs.names,
        compared=len(distances),
        missing=missing,
        worst_variable=worst,
        worst_relative=distances[worst] if worst else float("inf"),
        input_relative=_distance(found_by_images.numpy(), np.asarray(expected_by_images), 0.0),
        step_change=relative_distance(after, before),
        step_relative=relative_distance(model(tf.constant(inputs.images)).numpy(), after),
    )


def _tensorflow_gradients(model: Any, images: Images) -> tuple[dict[str, Any], tf.Tensor, Outputs]:  # noqa: ANN401
    with tf.GradientTape() as tape:
        tensor = tf.constant(images)
        tape.watch(tensor)
        outputs = model(tensor)
        loss = tf.reduce_mean(tf.square(outputs)) / 2
    variables = list(model.trainable_variables)
    by_variables, by_images = tape.gradient(loss, [variables, tensor])
    return dict(zip(map(_name, variables), by_variables, strict=True)), by_images, outputs.numpy()


def _name(variable: tf.Variable) -> str:
    return str(variable.name.removesuffix(":0"))


def _distances(found: Mapping[str, Any], expected: Mapping[str, Array]) -> dict[str, float]:
    largest = max(float(np.abs(gradient).max()) for gradient in expected.values())
    return {
        name: _distance(gradient.numpy(), expected[name], largest)
        for name, gradient in found.items()
        if gradient is not None and name in expected
    }


def judge_gradients(check: GradientCheck, handle: Handle) -> list[str]:
    """Say what of the gradients is wrong; nothing, if the model can be fine-tuned as in JAX."""
    problems = [f"no gradient for {len(check.missing)} variables: {', '.join(check.missing[:5])}"] * bool(check.missing)
    if check.compared != len(handle.arrays):
        problems.append(f"{check.compared} gradients compared, expected {len(handle.arrays)}")
    limit = TOLERANCES["gradient_relative"].limit
    for what, found in ((check.worst_variable, check.worst_relative), ("the images", check.input_relative)):
        if not found <= limit:
            problems.append(f"gradient by {what} is {found:.3g} off, allowed {limit:.3g}")
    limit = TOLERANCES["step_relative"].limit
    if not check.step_relative <= limit:
        problems.append(f"outputs after an SGD step are {check.step_relative:.3g} off, allowed {limit:.3g}")
    if not check.step_change > limit:
        problems.append(f"an SGD step moves the outputs by {check.step_change:.3g} only: nothing was trained")
    return problems


def _distance(found: Array, expected: Array, largest: float) -> float:
    size = float(np.abs(expected).max())
    worst = np.abs(found.astype(np.float64) - expected).max() / (size if size > ROUNDING * largest else largest)
    return float(worst) if np.isfinite(worst) else float("inf")


@cache
def _compiled(handle: Handle) -> tuple[Callable[..., Any], Callable[..., Any]]:
    model = MlpMixer(handle.checkpoint.architecture, handle.num_classes)

    def apply(params: Mapping[str, Any], images: jax.Array) -> Any:  # noqa: ANN401 (what Flax says)
        return model.apply({"params": params}, images)

    def loss(params: Mapping[str, Any], images: jax.Array) -> jax.Array:
        return jnp.mean(jnp.square(apply(params, images))) / 2

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1))), jax.jit(apply)
