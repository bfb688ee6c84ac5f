"""Arithmetic where JAX and TensorFlow differ: integer division, casts of floats to integers, dtypes of products.

XLA's results at the ends of a range are specified at https://openxla.org/stablehlo/spec (`divide`, `convert`).
"""

import tensorflow as tf


def divide(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Divide; integers towards zero, with all bits set (-1) for x / 0, and wrapping for the smallest by -1."""
    if left.dtype.is_floating:
        return tf.divide(left, right)
    one, none = tf.ones_like(right), tf.zeros_like(right)
    by_zero, ones = tf.equal(right, none), tf.bitwise.invert(none)
    if left.dtype.is_unsigned:
        return tf.where(by_zero, ones, tf.truncatediv(left, tf.where(by_zero, one, right)))
    negated = tf.equal(right, ones)
    quotient = tf.truncatediv(left, tf.where(by_zero | negated, one, right))
    return tf.where(by_zero, ones, tf.where(negated, -left, quotient))


def cast(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Cast; floats to integers towards zero, clamped to the range, and NaN to 0."""
    if not (x.dtype.is_floating and dtype.is_integer):
        return tf.cast(x, dtype)
    wide = x if x.dtype in (tf.float32, tf.float64) else tf.cast(x, tf.float32)
    above = tf.constant(float(dtype.max) + 1, wide.dtype)  # a power of two, unlike the largest integer itself
    below = tf.constant(float(dtype.min), wide.dtype)
    inside = (wide < above) & (wide > below)  # not NaN
    kept = tf.cast(tf.where(inside, wide, tf.zeros_like(wide)), dtype)
    highest, lowest = (tf.constant(end, dtype) for end in (dtype.max, dtype.min))
    return tf.where(wide >= above, highest, tf.where(wide <= below, lowest, kept))


def multiplied_in(left: tf.DType, right: tf.DType, result: tf.DType) -> tf.DType:
    """Return the dtype to multiply matrices in, wide enough for both operands and the result."""
    floats = [one for one in (left, right, result) if one.is_floating]
    if not floats:
        sizes = max(one.size for one in (left, right, result))
        return tf.int32 if sizes <= tf.int32.size else tf.int64  # wraps as smaller and unsigned ones do
    widest = max(floats, key=lambda one: one.size)
    return tf.float32 if len(set(floats)) > 1 and widest.size < tf.float32.size else widest
