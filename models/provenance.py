"""Which sources and which libraries something was made with."""

import hashlib
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
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
def sources_sha256(*packages: str) -> str:
    """Return one digest over the Python and text files of these packages, names included, in sorted order."""
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted((ROOT / package).rglob("*")):
            if path.suffix in {".py", ".txt"}:
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(f"{path.relative_to(ROOT).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


@cache
def git_state() -> tuple[str | None, bool | None]:
    """Return the checkout's commit and whether it differs from it; (None, None) outside a git checkout."""
    commit = _git("rev-parse", "HEAD")
    return (None, None) if commit is None else (commit, bool(_git("status", "--porcelain")))


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
