"""Memory that one checkpoint after the other is read into: what the system gives again costs more than filling it."""

import sys

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64
"""Bytes: what the vector instructions of TensorFlow and of JAX take arrays by."""

_UNUSED = 2
"""References to a block that nobody uses: its owner's, and that of the call which counts them."""


class ReusableBuffer:
    """A block of memory, given out in arrays, and given out again once nobody holds any of them.

    What is not written to takes no memory: so a block may be as large as the largest checkpoint from the beginning.
    """

    def __init__(self, size: int = 0) -> None:
        self._block = np.empty(size, np.uint8)
        self._given = 0

    def reserve(self, size: int) -> None:
        """Make ready for arrays of `size` bytes in all: in the same block, unless it is too small or still in use."""
        # An array that is a part of it holds it, and so does whatever shares that array's memory.
        if self._block.size < size or sys.getrefcount(self._block) > _UNUSED:
            self._block = np.empty(0, np.uint8)  # gone before the next one comes
            self._block = np.empty(size, np.uint8)
        self._given = -self._block.ctypes.data % ALIGNMENT

    def array(self, count: int) -> NDArray[np.float32]:
        """Return an array of `count` values, which hold whatever was there before; elsewhere if the block is full."""
        size = 4 * count
        if self._given + size > self._block.size:
            return np.empty(count, np.float32)
        found = self._block[self._given : self._given + size].view(np.float32)
        self._given += size + -size % ALIGNMENT
        return found
