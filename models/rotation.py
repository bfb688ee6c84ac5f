"""The rotation of a dense layer's inputs before its kernel is rounded to int8.

One large weight makes the steps of all weights of its output coarse. A Hadamard matrix spreads it over its block of
inputs, so that the steps become finer (https://arxiv.org/abs/2404.00456); rotating the layer's input undoes it exactly.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

MOST_INPUTS = 128
"""Of a block. Twice as many make the error of B/32 no smaller, and the rotation twice as slow."""

ROTATED = "/rotated_"
"""In a file, between the name of a kernel and the size of the blocks that its inputs are rotated in."""


@dataclass(frozen=True)
class Rotation:
    """A symmetric matrix `[b, b]` that is its own inverse but for a power of two, for blocks of b inputs."""

    matrix: NDArray[np.float32]

    @classmethod
    def of(cls, inputs: int) -> Self:
        """Return the one for a layer: b is the largest power of two up to `MOST_INPUTS` that divides `inputs`.

        Its entries are powers of two, so that float32 holds the matrix and its inverse exactly.
        """
        size = min(inputs & -inputs, MOST_INPUTS)
        matrix = np.ones((1, 1), np.float32)
        while len(matrix) < size:
            matrix = np.block([[matrix, matrix], [matrix, -matrix]])
        return cls(matrix * np.float32(2.0 ** -((size.bit_length() - 1) // 2)))

    def rotate(self, kernel: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return a kernel `[outputs, inputs]` for inputs that are rotated, block by block."""
        return _multiply(kernel, self.matrix / (len(self.matrix) * self.matrix[0, 0] ** 2))

    def unrotate(self, kernel: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the kernel `[outputs, inputs]` that does to unrotated inputs what this one does to rotated ones."""
        return _multiply(kernel, self.matrix)


def _multiply(kernel: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    blocks = kernel.astype(np.float64).reshape(len(kernel), -1, len(matrix))
    found: NDArray[np.float64] = (blocks @ matrix.astype(np.float64)).reshape(kernel.shape)
    return found
