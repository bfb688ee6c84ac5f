"""Temporary virtual environments with one TensorFlow release each."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from models.errors import MixerError, UsageError


class EnvironmentMissingError(MixerError):
    """A virtual environment could not be made."""


@dataclass(frozen=True)
class Release:
    """A TensorFlow release, the Python versions that it supports, and bounds for packages that it does not bound."""

    name: str
    pythons: tuple[str, ...]
    beside: tuple[str, ...] = ()
    candidate: bool = False
    """Whether it is a release candidate, which the package index need not have."""

    @property
    def requirements(self) -> tuple[str, ...]:
        """Requirements to install: the build without CUDA, a third of the size, is the same on the CPU."""
        return (f"tensorflow-cpu=={self.name}{'' if self.candidate else '.*'}", *self.beside)

    def find_python(self) -> Path | None:
        """Return the first Python found of `pythons`: this one, one on the PATH, or one of pyenv's."""
        root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
        for version in self.pythons:
            on_path = shutil.which(f"python{version}")
            candidates = [Path(sys.executable), *([Path(on_path)] if on_path else []), *_of_pyenv(root, version)]
            for candidate in candidates:
                if _version_of(candidate) == version:
                    return candidate
        return None

    @contextmanager
    def installed(self, python: Path) -> Iterator[Path]:
        """Install it in a virtual environment, yield its Python, and remove it when the block ends, even on error.

        Raises:
            EnvironmentMissingError: uv is missing, or cannot install the release.
        """
        with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
            made = Path(folder, "environment", "bin", "python")
            _uv(folder, "venv", "--no-python-downloads", "--python", str(python), "environment")
            _install(folder, made, *self.requirements)
            yield made

    def add_converters(self, python: Path) -> None:
        """Install tf2onnx and ONNX Runtime in the environment of a Python that `installed` yields.

        Raises:
            EnvironmentMissingError: uv cannot install them beside this release.
        """
        _install(str(python.parent), python, *self.requirements, *_CONVERTERS)


_CONVERTERS = ("tf2onnx", "onnx!=1.19.0", "onnxruntime")
"""onnx 1.19.0 needs a later ml_dtypes than it says, and than TensorFlow 2.14 and 2.15 take."""

_OLD = ("3.9", "3.8", "3.10")
_NEW = ("3.11", "3.12")
_ROWS = (
    # TensorFlow 2.6 and 2.8 set no upper bounds, but do not work with later Keras, NumPy and protobuf.
    Release("2.6", _OLD[:2], ("keras==2.6.*", "tensorflow-estimator==2.6.*", "numpy<1.20", "protobuf<3.20")),
    Release("2.8", _OLD, ("numpy<2", "protobuf<3.20")),
    Release("2.10", _OLD, ("numpy<2",)),
    Release("2.12", ("3.11", *_OLD)),
    Release("2.13", ("3.11", *_OLD)),
    Release("2.14", ("3.11", "3.10", "3.9")),
    Release("2.15", ("3.11", "3.10", "3.9")),
    *(Release(f"2.{minor}", _NEW) for minor in (16, 17, 18, 19)),
    *(Release(f"2.{minor}", (*_NEW, "3.13")) for minor in (20, 21)),
    Release("2.22.0rc0", (*_NEW, "3.13"), candidate=True),
)
RELEASES: dict[str, Release] = {row.name: row for row in _ROWS}
"""The releases of the matrix, oldest first."""


def select_releases(names: Sequence[str] = ()) -> list[Release]:
    """Return the releases of these names, in the table's order; no name means all.

    Raises:
        UsageError: a name is not in the table.
    """
    unknown = [name for name in names if name not in RELEASES]
    if unknown:
        raise UsageError(
            f"the matrix has no TensorFlow release {', '.join(unknown)}: expected some of {', '.join(RELEASES)}."
        )
    return [release for name, release in RELEASES.items() if not names or name in names]


def _of_pyenv(root: Path, version: str) -> list[Path]:
    return sorted(root.glob(f"{version}.*/bin/python{version}"))


def _version_of(python: Path) -> str | None:
    """Return a Python's version as `3.9`; None if it does not start, as pyenv's shims for versions not selected."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _install(folder: str, python: Path, *requirements: str) -> None:
    _uv(folder, "pip", "install", "--no-cache", "--python", str(python), *requirements)


def _uv(folder: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "uv", "--quiet", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentMissingError(
            f"`uv {' '.join(arguments)}` failed: {' '.join(done.stderr.split())[-400:]}. uv comes with the extra `dev` "
            "and needs a package index."
        )
