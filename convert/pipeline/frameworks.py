"""Import TensorFlow and JAX quietly, and under fixed settings instead of those in the environment."""

import gc
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from models.errors import UsageError

LOG = logging.getLogger(__name__)

FAMILIES = ("AUTOGRAPH_", "FLAX_", "JAX2TF_", "JAX_", "KERAS_", "PJRT_", "PROTOCOL_BUFFERS_", "TF2_", "TF_", "XLA_")
"""Prefixes of the environment variables that configure the libraries."""

OTHERS = ("CHECK_VMA", "EAGER_CONSTANT_FOLDING", "MATPLOTLIBRC", "MOCK_NUM_GPU_PROCESSES", "MPLBACKEND")
"""Such variables with other names."""

KEPT = ("TF_CPP_", "XLA_PYTHON_CLIENT_")
"""Prefixes of those that are kept: they decide only what is logged, and how much memory is used."""

IMPORTING = "importing JAX and TensorFlow"
"""The step that takes the first seconds of a process."""

PLATFORMS = "JAX_PLATFORMS"
"""The variable that says where JAX computes: the only setting that users may choose, where nothing is converted."""


def import_frameworks(*, any_platform: bool = False, any_device: bool = False) -> None:
    """Import TensorFlow and JAX under fixed settings, and suppress their messages.

    Their environment variables are removed, for this process and those that it starts. TensorFlow and JAX compute on
    the CPU: an accelerator may multiply in less than float32. Standard error is shown only if the import fails.

    Args:
        any_platform: let JAX compute where `JAX_PLATFORMS` says, in full float32.
        any_device: let TensorFlow compute on a GPU, if there is one.

    Raises:
        UsageError: JAX cannot compute there, or Protocol Buffers use their pure Python implementation.
    """
    chosen = os.environ.get(PLATFORMS) if any_platform else None
    _drop_settings()
    os.environ[PLATFORMS] = chosen or "cpu"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["TF_ONEDNN_USE_SYSTEM_ALLOCATOR"] = "1"  # oneDNN's own keeps gigabytes of freed memory
    with quiet_stderr():
        import jax  # noqa: F401
        import tensorflow as tf
        from jax.experimental import jax2tf  # noqa: F401

        if not any_device:
            tf.config.set_visible_devices([], "GPU")
    logging.getLogger("absl").setLevel(logging.ERROR)
    _require_usual_protobuf()
    if chosen:
        _compute_on(chosen)


def _drop_settings() -> None:
    for name in sorted(os.environ):
        if (name.startswith(FAMILIES) or name in OTHERS) and not name.startswith(KEPT):
            value = os.environ.pop(name)
            if name != PLATFORMS:
                LOG.debug("ignored: %s=%s", name, value)


def _require_usual_protobuf() -> None:
    from google.protobuf.internal import api_implementation  # there is no public API

    if api_implementation.Type() == "python":
        raise UsageError(
            "Protocol Buffers use their pure Python implementation, which serializes the same model to other bytes: "
            "expected upb, which is in the wheel. Import google.protobuf before this program only without "
            "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION, or reinstall protobuf."
        )


def _compute_on(platforms: str) -> None:
    """Start JAX on these platforms, and multiply in full float32 there."""
    import jax

    with quiet_stderr():
        try:
            platform, reason = jax.default_backend(), ""
        except (AssertionError, RuntimeError) as error:  # AssertionError, without text, if a plugin is not installed
            platform, reason = None, str(error)
    if platform is None:
        raise UsageError(
            f"JAX cannot compute on JAX_PLATFORMS={platforms}{f' ({reason})' if reason else ''}: expected a platform "
            "that this machine has and JAX is installed for. Unset it to compute on the CPU."
        )
    if platform != "cpu":
        jax.config.update("jax_default_matmul_precision", "highest")  # type: ignore[no-untyped-call]


@contextmanager
def imports_passed_over() -> Iterator[None]:
    """Exclude existing objects from garbage collection: traversing the imports takes a quarter of a second."""
    if gc.get_freeze_count():  # a caller has already done so
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Suppress standard error during the block; show it if the block fails."""
    # C++ code writes to the file descriptor directly, before it reads its log level.
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
