"""What a primitive works on: a tensor whose leading axes may be folded into one, and whose scaling may be put off.

Both are for TensorFlow's optimiser and for the converters, which know a dense layer as a product of two matrices, a
bias and an activation right after each other, and look past no reshape between them: so values stay matrices from the
product on, as long as they are only worked on element by element.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import tensorflow as tf

from models.errors import MixerError

Params = Mapping[str, Any]
"""Those of a primitive."""

Shape = tuple[int | None, ...]
"""Sizes of the axes; None for the batch."""


class GraphError(MixerError):
    """A function that cannot be written as plain TensorFlow operations."""


class Operand:
    """A value of shape `shape`, held in `tensor` in that shape or folded.

    Folded is `[rows, n]` for `[..., n]`, and `[n]` for `[1, ..., 1, n]`, a row that is the same for all.
    """

    def __init__(self, tensor: tf.Tensor, shape: Shape, factor: tf.Tensor | None = None) -> None:
        self._unscaled = tensor
        self.factor = factor
        """A power of two that `tensor` has still to be multiplied with, or None."""
        self.shape = shape

    @classmethod
    def of(cls, tensor: tf.Tensor) -> "Operand":
        """Return a tensor as it is, of known rank."""
        return cls(tensor, tuple(tensor.shape.as_list()))

    @property
    def unscaled(self) -> tf.Tensor:
        """The value without `factor`, as it is held."""
        return self._unscaled

    @cached_property
    def tensor(self) -> tf.Tensor:
        """The value as it is held."""
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
        """Whether it is held as one row, or as a single number, that is the same for all."""
        return self.unscaled.shape.rank < 2 and all(size == 1 for size in self.shape[:-1])

    @property
    def is_folded(self) -> bool:
        """Whether it is held as a matrix of all its rows."""
        return self.unscaled.shape.rank == 2 and len(self.shape) > 2


def reshape(tensor: tf.Tensor, shape: Shape) -> tf.Tensor:
    """Return a tensor in a shape with at most one size that is not known, as it is if it has that shape already."""
    if tuple(tensor.shape.as_list()) == shape:
        return tensor
    return tf.reshape(tensor, [-1 if size is None else size for size in shape])
