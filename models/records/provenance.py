"""The sources and libraries that a model or a report was made with."""

import hashlib
import logging
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]

_LOG = logging.getLogger(__name__)

_MODEL = (
    "models/catalog.py",
    "models/citations.py",
    "models/flavours.py",
    "models/labels.py",
    "models/labels_1k.txt",
    "models/labels_21k.txt",
    "models/mixer.py",
    "models/params.py",
    "models/preprocessing.py",
    "models/resize.py",
    "models/selection.py",
    "models/signatures.py",
    "convert/checkpoints/buffer.py",
    "convert/checkpoints/npz.py",
    "convert/checkpoints/open.py",
    "convert/checkpoints/reader.py",
    "convert/pipeline/frameworks.py",
)
"""Sources that decide the model, its params, and the settings under which JAX and TensorFlow compute."""

PIPELINE_SOURCES = (
    *_MODEL,
    "convert/flavours",
    "convert/pipeline/convert_handle.py",
    "convert/pipeline/kept_graphs.py",
    "convert/pipeline/tracing.py",
    "export/saved_model",
)
"""Sources that decide the bytes of a SavedModel."""

EXPORT_SOURCES = (*PIPELINE_SOURCES, "export/formats", "models/formats.py", "models/rotation.py")
"""Sources that decide the bytes of an exported file."""

VALIDATOR_SOURCES = (
    *_MODEL,
    "models/records/check.py",
    "models/records/contents.py",
    "models/records/report.py",
    "models/records/tolerances.py",
    "validation/compatibility/run_consumer.py",
    "validation/compatibility/same_graph.py",
    "validation/consumer.py",
    "validation/gate.py",
    "validation/memory.py",
    "validation/parity",
    "validation/previous",
)
"""Sources that decide the verdict on a SavedModel."""

EXPORT_VALIDATOR_SOURCES = (
    *VALIDATOR_SOURCES,
    "models/formats.py",
    "models/records/formats.py",
    "models/rotation.py",
    "validation/formats",
)
"""Sources that decide the verdict on an exported file."""

_SUFFIXES = frozenset({".py", ".txt", ".png", ".jpg"})

LIBRARIES = ("jax", "jaxlib", "flax", "tensorflow", "numpy")


@cache
def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide what is computed."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES}


@cache
def pipeline_version() -> str:
    """Return this project's version."""
    return metadata.version("mixer-jax2tf")


@cache
def sources_sha256(*sources: str) -> str:
    """Return one digest over these files, and over the sources and photographs in these folders, names included.

    It is of what they were at the first call in this process; `sources_sha256.__wrapped__` reads them again.
    """
    digest = hashlib.sha256()
    for path in _source_files(*sources):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def _source_files(*sources: str) -> list[Path]:
    """Return these files and the source files in these folders, sorted by path."""
    found = set()
    for path in (ROOT / source for source in sources):
        found |= {path} if path.is_file() else {one for one in path.rglob("*") if one.suffix in _SUFFIXES}
    return sorted(found)


@cache
def git_state() -> tuple[str | None, bool | None]:
    """Return the checkout's commit and whether files differ from it; (None, None) outside a git checkout."""
    commit = _git("rev-parse", "HEAD")
    return (None, None) if commit is None else (commit, bool(_git("status", "--porcelain")))


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)  # noqa: S607
    except subprocess.CalledProcessError:
        return None
    except OSError as error:
        if (ROOT / ".git").exists():
            _LOG.warning("git cannot be started (%s), so records name no git commit: is it on PATH?", error.strerror)
        return None
    return result.stdout.strip()
