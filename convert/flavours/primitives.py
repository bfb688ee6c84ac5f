"""The rules that write JAX's primitives as TensorFlow operations, one for each primitive.

The primitives are those of `jax.lax` (https://docs.jax.dev/en/latest/jax.lax.html), documented there under their names
in `RULES`; exceptions are noted at the rule. A rule takes the primitive's parameters, the shape of the result, the size
of the batch (a scalar tensor) and the operands.
"""

import math
from collections.abc import Callable, Mapping

import jax
import tensorflow as tf

from convert.flavours.contractions import conv_general_dilated, dot_general
from convert.flavours.operand import GraphError, Operand, Params, Shape, reshape

Rule = Callable[..., Operand]
Elementwise = Callable[..., tf.Tensor]


def _elementwise(operation: Elementwise) -> Rule:
    """Return the rule of an elementwise operation on equal shapes or scalars; folded operands stay folded."""

    def rule(params: Params, shape: Shape, batch: tf.Tensor, *operands: Operand) -> Operand:
        _require_default_accuracy(params)
        large = [operand for operand in operands if not operand.is_row]
        if any(operand.is_folded for operand in large) and all(operand.shape == shape for operand in large):
            return Operand(operation(*(one.tensor if one.is_row else one.rows for one in operands)), shape)
        if large:
            return Operand(operation(*(one.tensor if one.is_row else one.full for one in operands)), shape)
        return Operand(operation(*(one.tensor for one in operands)), shape)

    return rule


def _require_default_accuracy(params: Params) -> None:
    if params.get("accuracy") is not None:
        raise GraphError(f"has no rule for accuracy={params['accuracy']}: leave it out.")


def _add(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Add; a row is added to the result of a matrix product or a convolution as a bias."""
    for values, row in ((left, right), (right, left)):
        if values.shape.rank in (2, 4) and row.shape == values.shape[-1:] and values.dtype.is_floating:
            return tf.nn.bias_add(values, row)
    return tf.add(left, right)


def _mul(params: Params, shape: Shape, batch: tf.Tensor, left: Operand, right: Operand) -> Operand:
    """Multiply, as `(c * a) * b` instead of `a * (c * b)` if c is a power of two up to 1, which changes no bit.

    GELU then ends like TensorFlow's own, `(0.5 x) (1 + tanh(...))`, which the optimiser fuses with the matrix product
    before it.
    """
    if _is_power_of_two(left.tensor) and right.factor is None:
        return Operand(right.unscaled, right.shape, left.tensor)
    if right.factor is not None and left.factor is None:
        left, right = Operand(left.unscaled, left.shape, right.factor), Operand(right.unscaled, right.shape)
    return _elementwise(tf.multiply)(params, shape, batch, left, right)


def _is_power_of_two(tensor: tf.Tensor) -> bool:
    """Return whether it is a power of two up to 1; a larger one could overflow a product that JAX's order does not."""
    if tensor.shape.rank != 0 or tensor.dtype not in (tf.float32, tf.float64):
        return False
    value = tf.get_static_value(tensor)
    return value is not None and abs(value) <= 1 and math.frexp(abs(float(value)))[0] == 0.5


def _divide(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Divide; integers towards zero, with all bits set (-1) for x / 0, and wrapping for the smallest by -1.

    As XLA does: https://openxla.org/stablehlo/spec#divide.
    """
    if left.dtype.is_floating:
        return tf.divide(left, right)
    one, none = tf.ones_like(right), tf.zeros_like(right)
    by_zero, ones = tf.equal(right, none), tf.bitwise.invert(none)
    if left.dtype.is_unsigned:
        return tf.where(by_zero, ones, tf.truncatediv(left, tf.where(by_zero, one, right)))
    negated = tf.equal(right, ones)
    quotient = tf.truncatediv(left, tf.where(by_zero | negated, one, right))
    return tf.where(by_zero, ones, tf.where(negated, -left, quotient))


def _erf(x: tf.Tensor) -> tf.Tensor:
    """Return the error function; clipped in float64, where TensorFlow's own gives NaN at infinity."""
    return tf.math.erf(tf.clip_by_value(x, -6, 6) if x.dtype == tf.float64 else x)


def _integer_pow(params: Params, shape: Shape, batch: tf.Tensor, base: Operand) -> Operand:
    """Multiply repeatedly, as XLA does: TensorFlow's `pow` is slower and rounds differently."""

    def power(x: tf.Tensor) -> tf.Tensor:
        result, factor, exponent = None, x, abs(params["y"])
        while exponent:
            if exponent % 2:
                result = factor if result is None else result * factor
            exponent //= 2
            factor = factor * factor if exponent else factor
        if result is None:
            return tf.ones_like(x)
        return tf.math.reciprocal(result) if params["y"] < 0 else result

    return _elementwise(power)(params, shape, batch, base)


def _reduce(operation: Elementwise) -> Rule:
    def rule(params: Params, shape: Shape, batch: tf.Tensor, x: Operand) -> Operand:
        return Operand(operation(x.full, axis=list(params["axes"])), shape)

    return rule


def _reshape(params: Params, shape: Shape, batch: tf.Tensor, x: Operand) -> Operand:
    if params["dimensions"] is not None:
        raise GraphError("has no rule for another order of the axes: transpose first.")
    return _in_shape(x, shape)


def _in_shape(x: Operand, shape: Shape) -> Operand:
    """Return the same elements in another shape; a row stays a row where only axes of size 1 come before it."""
    if x.is_row and shape[-1:] == x.shape[-1:] and all(size == 1 for size in shape[:-1]):
        return Operand(x.tensor, shape)
    return Operand(reshape(x.tensor, shape), shape)


def _broadcast_in_dim(params: Params, shape: Shape, batch: tf.Tensor, x: Operand) -> Operand:
    """Insert axes of size 1, and broadcast only if the shape still differs."""
    spread: list[int | None] = [1] * len(shape)
    for axis, size in zip(params["broadcast_dimensions"], x.shape, strict=True):
        spread[axis] = size
    inserted = _in_shape(x, tuple(spread))
    if tuple(spread) == shape:
        return inserted
    return Operand(tf.broadcast_to(inserted.full, [batch if size is None else size for size in shape]), shape)


def _transpose(params: Params, shape: Shape, batch: tf.Tensor, x: Operand) -> Operand:
    return Operand(tf.transpose(x.full, params["permutation"]), shape)


def _same(params: Params, shape: Shape, batch: tf.Tensor, x: Operand) -> Operand:
    return x


def _stop_gradient(params: Params, shape: Shape, batch: tf.Tensor, x: Operand) -> Operand:
    return Operand(tf.stop_gradient(x.tensor), shape)


def _convert_element_type(params: Params, shape: Shape, batch: tf.Tensor, x: Operand) -> Operand:
    return x.cast(tf.as_dtype(params["new_dtype"]))


def _tile(params: Params, shape: Shape, batch: tf.Tensor, x: Operand) -> Operand:
    """Repeat along axes; by the size of the batch only where the operand's axis has size 1."""
    if x.tensor.dtype == tf.uint16:
        raise GraphError("has no rule for uint16, which tf.tile does not support.")
    multiples = [
        batch if size is None and x.shape[axis] == 1 else params["reps"][axis] for axis, size in enumerate(shape)
    ]
    return Operand(tf.tile(x.full, multiples), shape)


def _squeeze(params: Params, shape: Shape, batch: tf.Tensor, x: Operand) -> Operand:
    return _in_shape(x, shape)


def _concatenate(params: Params, shape: Shape, batch: tf.Tensor, *parts: Operand) -> Operand:
    return Operand(tf.concat([part.full for part in parts], params["dimension"]), shape)


def _slice(params: Params, shape: Shape, batch: tf.Tensor, x: Operand) -> Operand:
    """Slice axes between known indices; the batch only as a whole."""
    steps = params["strides"] or [1] * len(shape)
    places = zip(params["start_indices"], params["limit_indices"], steps, strict=True)
    slices = []
    for axis, (start, stop, step) in enumerate(places):
        whole = x.shape[axis] is None and shape[axis] is None
        if not whole and not (isinstance(start, int) and isinstance(stop, int)):
            raise GraphError(
                f"has no rule for {start}:{stop} of the batch: only for the whole batch, or constant indices."
            )
        slices.append(slice(None) if whole else slice(start, stop, step))
    return Operand(x.full[tuple(slices)], shape)


def _gather(params: Params, shape: Shape, batch: tf.Tensor, x: Operand, indices: Operand) -> Operand:
    """Pick one index of one axis, as `x[:, 0]` does."""
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    axes = tuple(numbers.start_index_map)
    others = [axis for axis in range(len(x.shape)) if axis not in axes]
    whole = all(sizes[axis] == x.shape[axis] or x.shape[axis] is None for axis in others)
    if axes != tuple(numbers.collapsed_slice_dims) or len(axes) != 1 or indices.shape != (1,) or not whole:
        raise GraphError(f"has no rule for {numbers} and slices of {sizes}: only for one index of one axis.")
    if params["mode"] != jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS:
        raise GraphError(f"has no rule for {params['mode']}: only for an index promised to be in bounds.")
    return Operand(tf.gather(x.full, indices.full[0], axis=axes[0]), shape)


RULES: Mapping[str, Rule] = {
    "add": _elementwise(_add),
    "sub": _elementwise(tf.subtract),
    "mul": _mul,
    "div": _elementwise(_divide),
    "neg": _elementwise(tf.negative),
    "sign": _elementwise(tf.sign),
    "abs": _elementwise(tf.abs),
    "max": _elementwise(tf.maximum),
    "min": _elementwise(tf.minimum),
    "square": _elementwise(tf.square),
    "sqrt": _elementwise(tf.sqrt),
    "rsqrt": _elementwise(tf.math.rsqrt),
    "exp": _elementwise(tf.exp),
    "log": _elementwise(tf.math.log),
    "tanh": _elementwise(tf.tanh),
    "logistic": _elementwise(tf.sigmoid),
    "erf": _elementwise(_erf),
    "erfc": _elementwise(tf.math.erfc),
    "integer_pow": _integer_pow,
    "reduce_sum": _reduce(tf.reduce_sum),
    "reduce_max": _reduce(tf.reduce_max),
    "reduce_min": _reduce(tf.reduce_min),
    "reshape": _reshape,
    "squeeze": _squeeze,
    "broadcast_in_dim": _broadcast_in_dim,
    "transpose": _transpose,
    "tile": _tile,
    "concatenate": _concatenate,
    "slice": _slice,
    "gather": _gather,
    "dot_general": dot_general,
    "conv_general_dilated": conv_general_dilated,
    "convert_element_type": _convert_element_type,
    "stop_gradient": _stop_gradient,
    "copy": _same,
}
