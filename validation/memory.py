"""Release memory: a full-size model takes a gigabyte, which TensorFlow and the C library would keep after use."""

import contextlib
import ctypes
import gc
from collections.abc import Iterable
from typing import Any

LARGE = 8 << 20
"""Bytes from which glibc returns a freed block to the system at once; by default it keeps up to 32 MiB per thread."""

_M_MMAP_THRESHOLD = -3
"""Parameter of `mallopt`, from glibc's malloc.h."""


def release(model: Any) -> None:  # noqa: ANN401 (a restored user object)
    """Free the memory of a restored model's variables; the model cannot be used afterwards.

    TensorFlow's gradient registry would keep them until the process ends.
    """
    free(getattr(model, "variables", ()))


def free(variables: Iterable[Any]) -> None:
    """Free the memory of variables of any type, even if something still refers to them."""
    import tensorflow as tf

    for variable in variables:
        tf.raw_ops.AssignVariableOp(resource=variable.handle, value=tf.zeros([0], variable.dtype))
    trim()


def keep_large_blocks_apart() -> None:
    """Make glibc request each block of `LARGE` bytes or more from the system, and return it as soon as it is freed.

    By default glibc raises that threshold to 32 MiB, and smaller freed blocks stay with the process in pieces.
    """
    with contextlib.suppress(Exception):  # the C library may not be glibc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE)


def trim() -> None:
    """Return freed memory to the system: glibc keeps it for later, a part for each thread."""
    gc.collect()
    with contextlib.suppress(Exception):  # as above
        ctypes.CDLL(None).malloc_trim(0)
