"""Open an earlier published version of a handle for comparison, and summarise the result."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.errors import MixerError, UsageError
from models.records.report import PublishedComparison
from models.storage.archives import extract_archive
from models.storage.files import sha256_of

SAVED_MODEL = "saved_model.pb"


@dataclass(frozen=True)
class Published:
    """A published SavedModel, on disk and open.

    Attributes:
        name: of the directory or archive, without the user's path to it.
        kind: which of the two it was.
        sha256: of the archive, or of the directory's `saved_model.pb`.
        directory: the SavedModel, absolute.
    """

    name: str
    kind: Literal["directory", "archive"]
    sha256: str
    directory: Path

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator["Published"]:
        """Open a directory with `saved_model.pb`, or a `.tar.gz` with it at its root, for the duration of the block.

        An archive is unpacked into a temporary directory.

        Raises:
            UsageError: it is neither, or cannot be read.
        """
        with ExitStack() as stack:
            try:
                published = _open(path.resolve(), stack)
            except OSError as error:
                raise UsageError(f"--reference {path} cannot be read ({error.strerror or error}).") from error
            yield published


def _open(path: Path, stack: ExitStack) -> Published:
    if path.is_dir():
        _require_saved_model(path, path)
        return Published(path.name, "directory", sha256_of(path / SAVED_MODEL), path)
    if not path.exists():
        raise UsageError(f"--reference {path} does not exist: expected a SavedModel's directory, or its .tar.gz.")
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reference-"))).resolve()
    try:
        extract_archive(path, directory)
    except MixerError as error:
        raise UsageError(f"--reference {error}") from error
    _require_saved_model(directory, path)
    return Published(path.name, "archive", sha256_of(path), directory)


def _require_saved_model(directory: Path, path: Path) -> None:
    if not (directory / SAVED_MODEL).is_file():
        found = ", ".join(sorted(entry.name for entry in directory.iterdir())[:5]) or "nothing"
        raise UsageError(
            f"--reference {path} has no {SAVED_MODEL} (it contains {found}): expected a SavedModel with that file at "
            "its root, not in a subdirectory."
        )


def summarise(found: PublishedComparison) -> tuple[tuple[str, str], ...]:
    """Return pairs of what was compared and the result."""
    variables, unknown = found.variables, "not compared"
    named = (check for check in found.outputs or () if check.name == "max_relative" and check.measured is not None)
    outputs = next((f"differ by {check.measured:.3g} of their scale, {check.on}" for check in named), unknown)
    return (
        ("outputs", outputs),
        ("signatures", unknown if found.signatures is None else "differ" if found.signatures else "the same"),
        (
            "variables",
            f"{variables.equal} of {variables.count} equal one of its {variables.published}, bit for bit "
            f"({variables.same_name} were compared by name)"
            if variables
            else unknown,
        ),
    )
