"""The operands of primitives: tensors whose leading axes may be folded into one, and whose scaling may be deferred.

TensorFlow's optimiser and the converters recognise a dense layer only as a matrix product, a bias and an activation
right after each other, with no reshape between them. So values stay matrices after a product, as long as only
elementwise operations follow.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import tensorflow as tf

from models.errors import MixerError

Params = Mapping[str, Any]
"""The parameters of a primitive."""

Shape = tuple[int | None, ...]
"""Sizes of the axes; None for the batch."""


class GraphError(MixerError):
    """A function that cannot be written as plain TensorFlow operations."""


class Operand:
    """A value of shape `shape`, held in `tensor` in that shape or folded.

    Folded means `[rows, n]` for `[..., n]`, and `[n]` for `[1, ..., 1, n]`, a row that is the same for all.
    """

    def __init__(self, tensor: tf.Tensor, shape: Shape, factor: tf.Tensor | None = None) -> None:
        self._unscaled = tensor
        self.factor = factor
        """A power of two that `unscaled` is still to be multiplied by, or None."""
        self.shape = shape

    @classmethod
    def of(cls, tensor: tf.Tensor) -> "Operand":
        """Wrap a tensor of known rank as it is."""
        return cls(tensor, tuple(tensor.shape.as_list()))

    @property
    def unscaled(self) -> tf.Tensor:
        """The stored tensor, without `factor`."""
        return self._unscaled

    @cached_property
    def tensor(self) -> tf.Tensor:
        """The stored tensor, multiplied by `factor`."""
        return self._unscaled if self.factor is None else tf.multiply(self.factor, self._unscaled)

    @cached_property
    def full(self) -> tf.Tensor:
        """The value in its own shape."""
        return reshape(self.tensor, self.shape)

    @cached_property
    def rows(self) -> tf.Tensor:
        """The value as a matrix: its last axis, and all others folded into the first."""
        return reshape(self.tensor, (None, self.shape[-1]))

    @property
    def is_row(self) -> bool:
        """Whether it is stored as one row, or as a single number, that is the same for all."""
        return self.unscaled.shape.rank < 2 and all(size == 1 for size in self.shape[:-1])

    @property
    def is_folded(self) -> bool:
        """Whether it is stored as a matrix of all its rows."""
        return self.unscaled.shape.rank == 2 and len(self.shape) > 2

    def cast(self, dtype: tf.DType) -> "Operand":
        """Cast as XLA does (https://openxla.org/stablehlo/spec#convert): floats to integers towards zero.

        What is out of the range becomes its end, and NaN 0.
        """
        x = self.tensor
        if not (x.dtype.is_floating and dtype.is_integer):
            return Operand(tf.cast(x, dtype), self.shape)
        wide = x if x.dtype in (tf.float32, tf.float64) else tf.cast(x, tf.float32)
        above = tf.constant(float(dtype.max) + 1, wide.dtype)  # a power of two, unlike the largest integer itself
        below = tf.constant(float(dtype.min), wide.dtype)
        inside = (wide < above) & (wide > below)  # not NaN
        kept = tf.cast(tf.where(inside, wide, tf.zeros_like(wide)), dtype)
        highest, lowest = (tf.constant(end, dtype) for end in (dtype.max, dtype.min))
        return Operand(tf.where(wide >= above, highest, tf.where(wide <= below, lowest, kept)), self.shape)


def reshape(tensor: tf.Tensor, shape: Shape) -> tf.Tensor:
    """Reshape a tensor to a shape with at most one unknown size; return it unchanged if it has that shape."""
    if tuple(tensor.shape.as_list()) == shape:
        return tensor
    return tf.reshape(tensor, [-1 if size is None else size for size in shape])
