"""Compare TensorFlow's gradients through the SavedModel with JAX's, then the outputs after one SGD step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.catalog import Handle
from models.errors import counted
from models.mixer import MlpMixer
from models.records.check import Check, Probe
from models.records.tolerances import TOLERANCES
from validation.parity.images import Images, Inputs
from validation.parity.outputs import Outputs, limited, relative_distance
from validation.parity.probe import ProbingHead, assign
from validation.parity.scale import Scale

STEP = 0.05
"""Share of the loss that a step would remove if the loss were linear."""

ROUNDING = 1e-6
"""Share of the largest gradient: a smaller gradient is rounding, and its error is divided by that largest one.

The second bias of token mixing shifts all channels of a token alike, which every later layer norm removes: its true
gradient is zero.
"""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class _GradientCheck:
    """Gradients of a fixed loss, TensorFlow's compared with JAX's, and one SGD step with them.

    Attributes:
        inputs: names of the images.
        compared: number of variables.
        expected: number of variables that the handle has.
        missing: variables without a gradient.
        worst_variable: the one whose gradient differs most.
        worst_relative: largest difference of its gradient over the gradient's largest value (if that is rounding,
            over the largest value of all gradients).
        input_relative: the same for the gradient with respect to the images.
        step_change: how far one step moves the outputs, over their scale.
        step_relative: difference of SavedModel and JAX after the step, over the outputs' scale before it.
        power: of the outputs that are differentiated.
        probe: `head` if these are the gradients of a probing head.
    """

    inputs: tuple[str, ...]
    compared: int
    expected: int
    missing: tuple[str, ...]
    worst_variable: str | None
    worst_relative: float
    input_relative: float
    step_change: float
    step_relative: float
    power: float
    probe: Probe | None = None

    @property
    def checks(self) -> tuple[Check, ...]:
        """Every figure with its limit and any problem."""
        limit, count = TOLERANCES["gradient_relative"].limit, len(self.missing)
        step, images = TOLERANCES["step_relative"].limit, ", ".join(self.inputs)
        gradients = tuple(
            limited(
                "gradient_relative",
                on,
                found,
                limit,
                power=self.power,
                probe=self.probe,
                problem=f"gradient with respect to {what} differs by {found:.3g}, allowed {limit:.3g}",
            )
            for on, what, found in (
                (
                    f"{self.worst_variable}, the worst of {counted(self.compared, 'variable')}",
                    self.worst_variable,
                    self.worst_relative,
                ),
                (f"the images {images}", "the images", self.input_relative),
            )
        )
        missing = (f"no gradient for {counted(count, 'variable')}: {', '.join(self.missing[:5])}",) * bool(count)
        if self.compared != self.expected:
            missing += (f"{self.compared} gradients compared, expected {self.expected}",)
        moved = self.step_change > step
        still = () if moved else (f"an SGD step moves the outputs only by {self.step_change:.3g}: nothing was trained",)
        after = limited(
            "step_relative", f"outputs after an SGD step, {images}", self.step_relative, step,
            power=self.power if moved else 0.0, probe=self.probe,
            problem=f"outputs after an SGD step differ by {self.step_relative:.3g}, allowed {step:.3g}",
        )  # fmt: skip
        detail = f"the step moves the outputs by {self.step_change:.3g} of their scale"
        return (
            Check(
                name="gradients_missing", on=f"{self.expected} variables", measured=float(count),
                limit=TOLERANCES["gradients_missing"].limit, problems=missing,
                detail=f"missing: {', '.join(self.missing)}" if count else "",
            ),
            *gradients,
            after.model_copy(update={"problems": (*after.problems, *still), "detail": detail}),
        )  # fmt: skip


@dataclass(frozen=True)
class JaxGradients:
    """JAX's gradients of half the mean square of the outputs, and its outputs after one SGD step with them.

    Attributes:
        inputs: the images; two are enough.
        by_variable: gradients with respect to the variables, by name.
        by_images: gradient with respect to the images.
        rate: of the SGD step.
        after: the outputs after that step, `[n, k]`.
        scale: of the outputs before it.
        head: the probing head that replaces a classifier's, so that gradients reach every variable whatever the head.
    """

    inputs: Inputs
    by_variable: Mapping[str, Array]
    by_images: Array
    rate: np.float32
    after: Outputs
    scale: Scale
    head: Mapping[str, Array] | None

    @classmethod
    def compute(cls, handle: Handle, params: Mapping[str, Any], inputs: Inputs, features: Outputs) -> Self:
        """Differentiate with respect to the params, nested, and to the images; `features` are JAX's for the images."""
        head, scale = None, Scale.measure(features, features, None)
        if handle.num_classes is not None:
            head = ProbingHead.of(features.shape[1], handle.num_classes).heads[0]
            scale = Scale.measure(ProbingHead((head,)).outputs(features), features, head)
            params = {**params, "head": head}
        differentiate, apply_after_step = _compiled(handle)
        loss, (tree, by_images) = differentiate(params, inputs.images)
        tree = jax.tree.map(np.asarray, tree)  # JAX would compile each operation below for each shape
        found = {"/".join(key.key for key in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        rate = np.float32(STEP * float(loss) / sum(float(np.vdot(leaf, leaf)) for leaf in found.values()))
        after = np.asarray(apply_after_step(params, tree, rate, inputs.images))
        return cls(inputs, found, np.asarray(by_images), rate, after, scale, head)

    def compare(self, model: Any, handle: Handle) -> _GradientCheck:  # noqa: ANN401 (a restored user object)
        """Compare TensorFlow's gradients with these, and the outputs after the SGD step.

        That step changes the variables of `model`, a restored SavedModel: load it again for anything else.
        """
        expected, images, scale = self.by_variable, self.inputs.images, self.scale
        if self.head is not None:
            assign(model, self.head, group="head")
        found, found_by_images, before = _tensorflow_gradients(model, images)
        distances = _distances(found, expected)
        worst = max(distances, key=distances.__getitem__, default=None)
        missing = tuple(name for name, gradient in found.items() if gradient is None)
        for variable in model.trainable_variables:
            gradient = found.pop(_name(variable))  # freed at once: together they are as large as the model
            if gradient is not None:
                variable.assign_sub(self.rate * gradient)
        after = model(tf.constant(images)).numpy()
        return _GradientCheck(
            inputs=self.inputs.names,
            compared=len(distances),
            expected=len(handle.arrays),
            missing=missing,
            worst_variable=worst,
            worst_relative=distances[worst] if worst else float("inf"),
            input_relative=_distance(found_by_images.numpy(), self.by_images, 0.0),
            step_change=relative_distance(self.after, before, scale.of),
            step_relative=relative_distance(after, self.after, scale.of),
            power=float(scale.power.min()),
            probe=None if self.head is None else "head",
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


def _distance(found: Array, expected: Array, largest: float) -> float:
    size = float(np.abs(expected).max())
    worst = np.abs(found.astype(np.float64) - expected).max() / (size if size > ROUNDING * largest else largest)
    return float(worst) if np.isfinite(worst) else float("inf")


@cache
def _compiled(handle: Handle) -> tuple[Callable[..., Any], Callable[..., Any]]:
    model = MlpMixer(handle.checkpoint.architecture, handle.num_classes)

    def apply(params: Mapping[str, Any], images: jax.Array) -> Any:  # noqa: ANN401 (Flax's type)
        return model.apply({"params": params}, images)

    def loss(params: Mapping[str, Any], images: jax.Array) -> jax.Array:
        return jnp.mean(jnp.square(apply(params, images))) / 2

    def apply_after_step(params: Mapping[str, Any], gradients: Any, rate: jax.Array, images: jax.Array) -> Any:  # noqa: ANN401
        return apply(jax.tree.map(lambda value, gradient: value - rate * gradient, params, gradients), images)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1))), jax.jit(apply_after_step)
