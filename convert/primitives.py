"""How each primitive of JAX is written in TensorFlow operations: one short rule each.

The primitives are those of `jax.lax` (https://docs.jax.dev/en/latest/jax.lax.html), where each is documented under its
name in `RULES` but for what is said at the rule. A rule takes the primitive's parameters, the shape of the result, the
size of the batch (a scalar tensor) and the operands.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from convert.operand import Operand, Shape, reshape
from models.errors import MixerError

Rule = Callable[..., Operand]
Params = Mapping[str, Any]
Elementwise = Callable[..., tf.Tensor]


class GraphError(MixerError):
    """A function that cannot be written as plain TensorFlow operations."""


def _elementwise(operation: Elementwise) -> Rule:
    """Return the rule of an operation on equal shapes (scalars may be anywhere); it keeps folded what is folded."""

    def rule(params: Params, shape: Shape, batch: tf.Tensor, *operands: Operand) -> Operand:
        large = [operand for operand in operands if not operand.is_row]
        if any(operand.is_folded for operand in large) and all(operand.shape == shape for operand in large):
            return Operand(operation(*(one.tensor if one.is_row else one.rows for one in operands)), shape)
        if large:
            return Operand(operation(*(one.tensor if one.is_row else one.full for one in operands)), shape)
        return Operand(operation(*(one.tensor for one in operands)), shape)

    return rule


def _add(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Add; a row to the result of a matrix product or of a convolution as the bias that it is."""
    for values, row in ((left, right), (right, left)):
        if values.shape.rank in (2, 4) and row.shape == values.shape[-1:] and values.dtype.is_floating:
            return tf.nn.bias_add(values, row)
    return tf.add(left, right)


def _mul(params: Params, shape: Shape, batch: tf.Tensor, left: Operand, right: Operand) -> Operand:
    """Multiply, as `(c * a) * b` rather than `a * (c * b)` where c is a power of two, which changes no bit.

    So GELU ends as TensorFlow's own does, `(0.5 x) (1 + tanh(...))`, which the optimiser fuses with the matrix product
    before it.
    """
    if _is_power_of_two(left.tensor) and left.tensor.dtype.is_floating and right.factor is None:
        return Operand(right.unscaled, right.shape, left.tensor)
    if right.factor is not None and left.factor is None:
        left, right = Operand(left.unscaled, left.shape, right.factor), Operand(right.unscaled, right.shape)
    return _elementwise(tf.multiply)(params, shape, batch, left, right)


def _is_power_of_two(tensor: tf.Tensor) -> bool:
    value = tf.get_static_value(tensor) if tensor.shape.rank == 0 else None
    return value is not None and bool(math.frexp(abs(float(value)))[0] == 0.5)


def _integer_pow(params: Params, shape: Shape, batch: tf.Tensor, base: Operand) -> Operand:
    """Multiply repeatedly, as XLA does: TensorFlow's `pow` is slower and rounds otherwise."""

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
        raise GraphError("reshape has no rule for another order of the axes: transpose first.")
    return _in_shape(x, shape)


def _in_shape(x: Operand, shape: Shape) -> Operand:
    """Return the same elements in another shape; a row stays a row where only axes of size 1 come before it."""
    if x.is_row and shape[-1:] == x.shape[-1:] and all(size == 1 for size in shape[:-1]):
        return Operand(x.tensor, shape)
    return Operand(reshape(x.tensor, shape), shape)


def _broadcast_in_dim(params: Params, shape: Shape, batch: tf.Tensor, x: Operand) -> Operand:
    """Insert axes of size 1; repeat along them only where that is not all."""
    spread: list[int | None] = [1] * len(shape)
    for axis, size in zip(params["broadcast_dimensions"], x.shape, strict=True):
        spread[axis] = size
    inserted = _in_shape(x, tuple(spread))
    if tuple(spread) == shape:
        return inserted
    return Operand(tf.broadcast_to(inserted.full, [batch if size is None else size for size in shape]), shape)


def _transpose(params: Params, shape: Shape, batch: tf.Tensor, x: Operand) -> Operand:
    return Operand(tf.transpose(x.full, params["permutation"]), shape)


def _dot_general(params: Params, shape: Shape, batch: tf.Tensor, left: Operand, right: Operand) -> Operand:
    """Contract as one product of matrices, or of a batch of them, after axes are brought in order where they are not.

    The result has the batch axes, those left of `left`, those left of `right`.
    """
    (left_axes, right_axes), (left_batch, right_batch) = params["dimension_numbers"]
    if not left_batch and tuple(left_axes) == (len(left.shape) - 1,) and len(right.shape) == 2:
        product = tf.linalg.matmul(left.rows, right.full, transpose_b=tuple(right_axes) == (1,))
        return Operand(product, shape)
    ours = _as_matrices(left, left_batch, left_axes, contracted_last=True)
    theirs = _as_matrices(right, right_batch, right_axes, contracted_last=False)
    return Operand(reshape(tf.linalg.matmul(ours, theirs), shape), shape)


def _as_matrices(
    x: Operand, batch_axes: tuple[int, ...], contracted: tuple[int, ...], *, contracted_last: bool
) -> tf.Tensor:
    """Return `[*batch, free, contracted]`, or `[*batch, contracted, free]`, with the free axes folded into one."""
    free = [axis for axis in range(len(x.shape)) if axis not in (*batch_axes, *contracted)]
    pair = (free, contracted) if contracted_last else (contracted, free)
    order = [*batch_axes, *pair[0], *pair[1]]
    tensor = x.full if order == sorted(order) else tf.transpose(x.full, order)
    sizes = [_product([x.shape[axis] for axis in axes]) for axes in pair]
    return reshape(tensor, (*(x.shape[axis] for axis in batch_axes), *sizes))


def _product(sizes: list[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return None if len(known) < len(sizes) else math.prod(known)


def _conv_general_dilated(params: Params, shape: Shape, batch: tf.Tensor, images: Operand, kernel: Operand) -> Operand:
    """Convolve images `[n, h, w, c]` with a kernel `[h, w, c, outputs]`, as TensorFlow does by default."""
    numbers = params["dimension_numbers"]
    plain = {
        "lhs_spec": (numbers.lhs_spec, (0, 3, 1, 2)),
        "rhs_spec": (numbers.rhs_spec, (3, 2, 0, 1)),
        "out_spec": (numbers.out_spec, (0, 3, 1, 2)),
        "lhs_dilation": (tuple(params["lhs_dilation"]), (1, 1)),
        "feature_group_count": (params["feature_group_count"], 1),
        "batch_group_count": (params["batch_group_count"], 1),
    }
    other = [f"{name} {found}" for name, (found, known) in plain.items() if found != known]
    if other:
        raise GraphError(f"conv_general_dilated has no rule for {', '.join(other)}: only for images [n, h, w, c].")
    padding = [[0, 0], *map(list, params["padding"]), [0, 0]]
    convolved = tf.nn.conv2d(
        images.full,
        kernel.full,
        strides=params["window_strides"],
        padding=padding if any(map(any, padding)) else "VALID",
        dilations=params["rhs_dilation"],
    )
    return Operand(convolved, shape)


def _same(params: Params, shape: Shape, batch: tf.Tensor, x: Operand) -> Operand:
    return x


def _stop_gradient(params: Params, shape: Shape, batch: tf.Tensor, x: Operand) -> Operand:
    return Operand(tf.stop_gradient(x.tensor), shape)


def _convert_element_type(params: Params, shape: Shape, batch: tf.Tensor, x: Operand) -> Operand:
    return Operand(tf.cast(x.tensor, params["new_dtype"]), shape)


def _squeeze(params: Params, shape: Shape, batch: tf.Tensor, x: Operand) -> Operand:
    return _in_shape(x, shape)


def _concatenate(params: Params, shape: Shape, batch: tf.Tensor, *parts: Operand) -> Operand:
    return Operand(tf.concat([part.full for part in parts], params["dimension"]), shape)


def _slice(params: Params, shape: Shape, batch: tf.Tensor, x: Operand) -> Operand:
    """Slice known axes; of the batch only the whole."""
    steps = params["strides"] or [1] * len(shape)
    slices = [
        slice(None) if size is None else slice(start, stop, step)
        for size, start, stop, step in zip(
            x.shape, params["start_indices"], params["limit_indices"], steps, strict=True
        )
    ]
    return Operand(x.full[tuple(slices)], shape)


def _gather(params: Params, shape: Shape, batch: tf.Tensor, x: Operand, indices: Operand) -> Operand:
    """Pick one index of one axis, which is what `x[:, 0]` comes to."""
    numbers = params["dimension_numbers"]
    axes = tuple(numbers.start_index_map)
    if axes != tuple(numbers.collapsed_slice_dims) or len(axes) != 1 or indices.shape != (1,):
        raise GraphError(f"gather has no rule for {numbers}: only for one index of one axis.")
    return Operand(tf.gather(x.full, indices.full[0], axis=axes[0]), shape)


RULES: Mapping[str, Rule] = {
    "add": _elementwise(_add),
    "sub": _elementwise(tf.subtract),
    "mul": _mul,
    "div": _elementwise(tf.divide),
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
    "erf": _elementwise(tf.math.erf),
    "erfc": _elementwise(tf.math.erfc),
    "integer_pow": _integer_pow,
    "reduce_sum": _reduce(tf.reduce_sum),
    "reduce_max": _reduce(tf.reduce_max),
    "reduce_min": _reduce(tf.reduce_min),
    "reshape": _reshape,
    "squeeze": _squeeze,
    "broadcast_in_dim": _broadcast_in_dim,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "slice": _slice,
    "gather": _gather,
    "dot_general": _dot_general,
    "conv_general_dilated": _conv_general_dilated,
    "convert_element_type": _convert_element_type,
    "stop_gradient": _stop_gradient,
    "copy": _same,
}
