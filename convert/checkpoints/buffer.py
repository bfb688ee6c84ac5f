"""A buffer that one checkpoint after the other is read into: getting new memory costs more than filling it."""

import sys

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64
"""Bytes that arrays are aligned to, for the vector instructions of TensorFlow and JAX, which copies all others."""

_UNUSED = 2
"""References to an unused block: its owner's, and that of the call that counts them."""


class ReusableBuffer:
    """A block of memory that is handed out as arrays, and reused once none of them is referenced.

    Bytes take memory only once written, so a block may have the size of the largest checkpoint from the start.
    """

    def __init__(self, size: int = 0) -> None:
        self._block = np.empty(size, np.uint8)
        self._given = 0

    def reserve(self, size: int) -> None:
        """Prepare for arrays of `size` bytes in all: in the same block, unless it is too small or still in use."""
        # Its arrays, and whatever shares their memory, hold references to the block.
        if self._block.size < size or sys.getrefcount(self._block) > _UNUSED:
            self._block = np.empty(0, np.uint8)  # freed before the next one is allocated
            self._block = np.empty(size, np.uint8)
        self._given = -self._block.ctypes.data % ALIGNMENT

    def array(self, count: int) -> NDArray[np.float32]:
        """Return an uninitialized array of `count` values; outside the block if that is full."""
        size = 4 * count
        if self._given + size > self._block.size:
            block = np.empty(size + ALIGNMENT, np.uint8)
            begin = -block.ctypes.data % ALIGNMENT
            return block[begin : begin + size].view(np.float32)
        found = self._block[self._given : self._given + size].view(np.float32)
        self._given += size + -size % ALIGNMENT
        return found
