"""The rules of matrix products and convolutions (see `convert.flavours.primitives`)."""

import math

import jax
import tensorflow as tf

from convert.flavours.operand import GraphError, Operand, Params, Shape, reshape


def dot_general(params: Params, shape: Shape, batch: tf.Tensor, left: Operand, right: Operand) -> Operand:
    """Contract as one matrix product, batched if needed, after transposing axes that are out of order.

    The result has the batch axes, then the remaining axes of `left`, then those of `right`.
    """
    _require_full_precision(params)
    preferred = params["preferred_element_type"]
    dtypes = [left.unscaled.dtype, right.unscaled.dtype]
    result = tf.as_dtype(
        jax.numpy.promote_types(*(one.as_numpy_dtype for one in dtypes)) if preferred is None else preferred
    )
    if not all(one.is_floating or one.is_integer for one in (*dtypes, result)):
        raise GraphError(f"has no rule for {dtypes[0].name} times {dtypes[1].name} in {result.name}.")
    inner = _multiplied_in(dtypes[0], dtypes[1], result)
    left, right = (one if one.unscaled.dtype == inner else one.cast(inner) for one in (left, right))
    product = _product_of_matrices(params, shape, left, right)
    return product if inner == result else product.cast(result)


def _multiplied_in(left: tf.DType, right: tf.DType, result: tf.DType) -> tf.DType:
    """Return the dtype to multiply matrices in, wide enough for both operands and the result."""
    floats = [one for one in (left, right, result) if one.is_floating]
    if not floats:
        sizes = max(one.size for one in (left, right, result))
        return tf.int32 if sizes <= tf.int32.size else tf.int64  # wraps as smaller and unsigned ones do
    widest = max(floats, key=lambda one: one.size)
    return tf.float32 if len(set(floats)) > 1 and widest.size < tf.float32.size else widest


def _require_full_precision(params: Params) -> None:
    known = (None, jax.lax.Precision.DEFAULT, jax.lax.Precision.HIGH, jax.lax.Precision.HIGHEST)
    given = params["precision"]
    if not all(one in known for one in (given if isinstance(given, tuple) else (given,))):
        raise GraphError(f"has no rule for precision={given}: leave it out.")


def _product_of_matrices(params: Params, shape: Shape, left: Operand, right: Operand) -> Operand:
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


def conv_general_dilated(params: Params, shape: Shape, batch: tf.Tensor, images: Operand, kernel: Operand) -> Operand:
    """Convolve images `[n, h, w, c]` with a kernel `[h, w, c, outputs]`, as TensorFlow does by default."""
    numbers = params["dimension_numbers"]
    plain = {
        "lhs_spec": (numbers.lhs_spec, (0, 3, 1, 2)),
        "rhs_spec": (numbers.rhs_spec, (3, 2, 0, 1)),
        "out_spec": (numbers.out_spec, (0, 3, 1, 2)),
        "lhs_dilation": (tuple(params["lhs_dilation"]), (1, 1)),
        "feature_group_count": (params["feature_group_count"], 1),
        "batch_group_count": (params["batch_group_count"], 1),
        "preferred_element_type": (params["preferred_element_type"] or images.tensor.dtype, images.tensor.dtype),
        "negative padding": (any(size < 0 for pair in params["padding"] for size in pair), False),
        "integers": (not images.tensor.dtype.is_floating, False),
    }
    other = [f"{name} {found}" for name, (found, known) in plain.items() if found != known]
    if other:
        raise GraphError(f"has no rule for {', '.join(other)}: only for images [n, h, w, c].")
    _require_full_precision(params)
    padding = [[0, 0], *map(list, params["padding"]), [0, 0]]
    convolved = tf.nn.conv2d(
        images.full,
        kernel.full,
        strides=params["window_strides"],
        padding=padding if any(map(any, padding)) else "VALID",
        dilations=params["rhs_dilation"],
    )
    return Operand(convolved, shape)
