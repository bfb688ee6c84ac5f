"""Memory given back: a whole-size model is a gigabyte, and TensorFlow and the C library keep what nobody needs."""

import contextlib
import ctypes
import gc
from collections.abc import Iterable
from typing import Any

LARGE = 8 << 20
"""Bytes of a block that glibc gives back as soon as it is freed; by itself it keeps up to 32 MiB, in each thread."""

_M_MMAP_THRESHOLD = -3
"""Of `mallopt`, in glibc's malloc.h."""


def release(model: Any) -> None:  # noqa: ANN401 (a restored user object)
    """Free the memory of a restored model's variables: the model is of no use after.

    TensorFlow's registry of gradients would keep them as long as the process.
    """
    free(getattr(model, "variables", ()))


def free(variables: Iterable[Any]) -> None:
    """Free the memory of variables, of any type, whoever still holds them."""
    import tensorflow as tf

    for variable in variables:
        tf.raw_ops.AssignVariableOp(resource=variable.handle, value=tf.zeros([0], variable.dtype))
    trim()


def keep_large_blocks_apart() -> None:
    """Let glibc take each block from `LARGE` on from the system, and give it back as soon as it is freed.

    By itself it raises that limit to 32 MiB, and what is freed below it stays with the process in pieces.
    """
    with contextlib.suppress(Exception):  # as below
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE)


def trim() -> None:
    """Give back to the system what has been freed: glibc keeps it for later, a part for each thread."""
    gc.collect()
    with contextlib.suppress(Exception):  # where the C library is another
        ctypes.CDLL(None).malloc_trim(0)
