"""Import TensorFlow and JAX: slow, talkative on standard error, and open to settings from the environment."""

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
"""How the environment variables begin by which the libraries take settings."""

OTHERS = ("CHECK_VMA", "EAGER_CONSTANT_FOLDING", "MATPLOTLIBRC", "MOCK_NUM_GPU_PROCESSES", "MPLBACKEND")
"""Those that begin otherwise."""

KEPT = ("TF_CPP_", "XLA_PYTHON_CLIENT_")
"""Those of the families that decide only what is logged, and how much memory is taken."""

PLATFORMS = "JAX_PLATFORMS"
"""Where JAX computes: the only setting that may be chosen, where nothing is converted."""


def import_frameworks(*, any_platform: bool = False) -> None:
    """Import TensorFlow and JAX under fixed settings, and keep their chatter from the user.

    What the environment sets for them is dropped, for this process and those that it starts. TensorFlow works on the
    CPU, and so does JAX: an accelerator may multiply in less than float32. What was said on standard error is shown
    after all if the import fails.

    Args:
        any_platform: let JAX compute where `JAX_PLATFORMS` says, in full float32.

    Raises:
        UsageError: JAX cannot compute there, or Protocol Buffers are in use in another implementation.
    """
    chosen = os.environ.get(PLATFORMS) if any_platform else None
    _drop_settings()
    os.environ[PLATFORMS] = chosen or "cpu"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["TF_ONEDNN_USE_SYSTEM_ALLOCATOR"] = "1"  # that of oneDNN keeps what was freed: gigabytes
    with quiet_stderr():
        import jax  # noqa: F401
        import tensorflow as tf
        from jax.experimental import jax2tf  # noqa: F401

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
                LOG.debug("not heeded: %s=%s", name, value)


def _require_usual_protobuf() -> None:
    from google.protobuf.internal import api_implementation  # nothing public tells

    if api_implementation.Type() == "python":
        raise UsageError(
            "Protocol Buffers run in their pure Python implementation, which writes the same model in other bytes: "
            "expected upb, which comes with the wheel. Let nothing import google.protobuf before this program with "
            "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION set, or install protobuf again."
        )


def _compute_on(platforms: str) -> None:
    """Let JAX begin on these platforms, and multiply in full float32 there."""
    import jax

    with quiet_stderr():
        try:
            platform, reason = jax.default_backend(), ""
        except (AssertionError, RuntimeError) as error:  # the first, without a word, where a plugin is not installed
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
