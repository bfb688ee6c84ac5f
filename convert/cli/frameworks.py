"""Import TensorFlow and JAX: slow, and talkative on standard error."""

import gc
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


def import_frameworks() -> None:
    """Import TensorFlow and JAX for work on the CPU, and keep their chatter from the user.

    The CPU is where parity is judged: an accelerator may multiply in less than float32. What was said on standard
    error is shown after all if the import fails.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")  # that of oneDNN keeps what was freed: gigabytes
    with quiet_stderr():
        import jax  # noqa: F401
        import tensorflow as tf
        from jax.experimental import jax2tf  # noqa: F401

        tf.config.set_visible_devices([], "GPU")
    logging.getLogger("absl").setLevel(logging.ERROR)


@contextmanager
def imports_passed_over() -> Iterator[None]:
    """Let Python's collector pass over what is there already, and stays: the imports take it a quarter of a second."""
    if gc.get_freeze_count():  # whoever called this has seen to it
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep from the user what is said on standard error while the block runs; shown after all if it fails."""
    # The C++ side writes to the file descriptor itself, before it reads its log level.
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        saved = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(saved, kept.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
