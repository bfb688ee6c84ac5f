"""The files that belong to one version of a model, in one folder: where it is made, and where it is published."""

from dataclasses import dataclass
from pathlib import Path

from export.destination import Destination
from models.errors import UsageError

ARCHIVE_SUFFIX = ".tar.gz"


@dataclass(frozen=True)
class Siblings:
    """The paths of what stands beside, or in place of, a SavedModel's directory `<folder>/<stem>`."""

    folder: Path
    stem: str
    """The version, unless somebody renamed the files."""

    @classmethod
    def of(cls, destination: Destination) -> "Siblings":
        """Return those of a model that is made here."""
        return cls(destination.directory.parent, destination.directory.name)

    @classmethod
    def around(cls, path: Path) -> "Siblings":
        """Return those of a SavedModel, given as its directory or its archive.

        Raises:
            UsageError: the path is neither.
        """
        expected = f"expected the directory of a SavedModel, or a *{ARCHIVE_SUFFIX} made of one"
        if path.is_dir():
            path = path.absolute()
            return cls(path.parent, path.name)
        if path.is_file() and path.name.endswith(ARCHIVE_SUFFIX):
            return cls(path.absolute().parent, path.name.removesuffix(ARCHIVE_SUFFIX))
        raise UsageError(f"{path} {'is neither' if path.exists() else 'does not exist'}: {expected}.")

    @property
    def directory(self) -> Path:
        """The SavedModel."""
        return self._named("")

    @property
    def archive(self) -> Path:
        """The SavedModel, packed."""
        return self._named(ARCHIVE_SUFFIX)

    @property
    def manifest(self) -> Path:
        """What it is."""
        return self._named(".manifest.json")

    @property
    def report(self) -> Path:
        """Whether it is right."""
        return self._named(".report.json")

    @property
    def provenance(self) -> Path:
        """What binds archive, manifest and report."""
        return self._named(".provenance.json")

    @property
    def signature(self) -> Path:
        """Who says so, where somebody does."""
        return self._named(".provenance.json.sig")

    @property
    def card(self) -> Path:
        """What people read of it, where it was written."""
        return self._named(".md")

    def _named(self, suffix: str) -> Path:
        return self.folder / f"{self.stem}{suffix}"
