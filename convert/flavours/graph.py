"""The graph flavour: the Mixer as plain TensorFlow operations, which need no XLA and run in TensorFlow from 2.6 on.

The same apply function that the native flavour exports is traced to a jaxpr, JAX's own list of primitive operations
(https://docs.jax.dev/en/latest/jaxpr.html), and each primitive is written by a rule of `convert.flavours.primitives`.
Gradients are TensorFlow's own. They may differ from JAX's where JAX defines a gradient by convention (a tie of two
arguments of `max`, a function with a custom derivative rule); the check of gradients reports that.
"""

from collections.abc import Mapping
from typing import Any

import jax
import tensorflow as tf
from jax import export

from convert.flavours.native import Apply, TensorFlowFunction
from convert.flavours.operand import GraphError, Operand, Shape
from convert.flavours.primitives import RULES, Rule
from convert.flavours.shared_layers import SharedLayers

BATCH = "batch"
"""Name of the only size that may be unknown."""

NESTED = {"pjit": "jaxpr", "jit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"}
"""Primitives that contain a jaxpr, which is written inline, and the parameter that contains it."""

JITTED = ("pjit", "jit")
"""Those that JAX traces once for all their uses: a large enough one becomes a function."""


def to_graph(apply: Apply) -> TensorFlowFunction:
    """Return an apply function as plain TensorFlow operations.

    It is traced when called, on the shapes of the arguments; the first axis of the images may be unknown.

    Raises:
        GraphError: when called, if the function uses a primitive or a size without a rule.
    """

    def function(params: Mapping[str, Any], images: tf.Tensor) -> Any:  # noqa: ANN401 (any tree of tensors)
        size = images.shape[0]
        shape = (export.symbolic_shape(BATCH)[0] if size is None else size, *images.shape[1:])
        abstract = jax.tree.map(_abstract, params), _abstract(images, shape)
        closed, outputs = jax.make_jaxpr(apply, return_shape=True)(*abstract)
        if closed.effects:
            raise GraphError(
                f"the function has effects ({closed.effects}), which a graph cannot represent: write a pure function."
            )
        given = [Operand.of(tf.convert_to_tensor(value)) for value in (*jax.tree.leaves(params), images)]
        writer = _Writer(tf.shape(images)[0] if size is None else tf.constant(size))
        found = [operand.full for operand in writer.write(closed, given)]
        return jax.tree.unflatten(jax.tree.structure(outputs), found)

    return function


def _abstract(value: Any, shape: Any = None) -> Any:  # noqa: ANN401 (what JAX traces on: no types come with it)
    return jax.ShapeDtypeStruct(shape or tuple(value.shape), value.dtype.as_numpy_dtype)  # type: ignore[no-untyped-call]


class _Writer:
    """Writes jaxprs into the graph that is being traced; `batch` is the size of the batch, a scalar tensor."""

    def __init__(self, batch: tf.Tensor, layers: SharedLayers | None = None) -> None:
        self._batch = batch
        self._layers = layers or SharedLayers(
            lambda closed, given, size: _Writer(size, self._layers).write(closed, given)
        )

    def write(self, closed: Any, given: list[Operand]) -> list[Operand]:  # noqa: ANN401 (a closed jaxpr)
        """Write the equations of a jaxpr for these arguments, and return its results."""
        known: dict[Any, Operand] = dict(zip(closed.jaxpr.constvars, map(_constant, closed.consts), strict=True))
        known |= dict(zip(closed.jaxpr.invars, given, strict=True))

        def read(atom: Any) -> Operand:  # noqa: ANN401 (a variable or a literal)
            return Operand.of(tf.constant(atom.val, atom.aval.dtype)) if hasattr(atom, "val") else known[atom]

        for equation in closed.jaxpr.eqns:
            results = self._write_equation(equation, [read(atom) for atom in equation.invars])
            known.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in closed.jaxpr.outvars]

    def _write_equation(self, equation: Any, operands: list[Operand]) -> list[Operand]:  # noqa: ANN401
        name = equation.primitive.name
        if name in NESTED:
            nested = equation.params[NESTED[name]]
            if name in JITTED and SharedLayers.fits(nested):
                return self._layers.call(nested, operands, self._batch)
            return self.write(nested, operands)
        shapes = [_known_shape(result.aval.shape, name) for result in equation.outvars]
        rule: Rule | None = RULES.get(name)
        if rule is None or len(shapes) != 1:
            raise GraphError(
                f"no rule for the primitive {name} ({equation}): add one to convert/flavours/primitives.py, or "
                "convert with --flavour native."
            )
        try:
            found = rule(equation.params, shapes[0], self._batch, *operands)
        except GraphError as error:  # its text says what has no rule
            raise GraphError(f"{name} {error}") from error
        except (TypeError, ValueError, tf.errors.OpError) as error:
            raise GraphError(f"the rule for {name} does not cover {equation}: {str(error).splitlines()[0]}") from error
        expected = equation.outvars[0].aval.dtype
        if found.unscaled.dtype != expected:  # `unscaled`, so that a deferred factor stays deferred
            raise GraphError(f"the rule for {name} does not cover {equation}: it gives {found.unscaled.dtype.name}.")
        return [found]


def _constant(value: Any) -> Operand:  # noqa: ANN401 (an array of NumPy's or of JAX's)
    return Operand.of(tf.constant(value))


def _known_shape(shape: tuple[Any, ...], name: str) -> Shape:
    """Return a shape with None for the batch.

    Raises:
        GraphError: it has another unknown size, or the batch twice.
    """
    unknown = [str(size) for size in shape if not isinstance(size, int)]
    if unknown not in ([], [BATCH]):
        raise GraphError(
            f"{name} gives the shape {shape}, expected constant sizes except for one axis, the batch: keep the batch "
            "as a separate axis."
        )
    return tuple(size if isinstance(size, int) else None for size in shape)
