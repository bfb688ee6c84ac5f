"""The paths of the files of one version of a model, in the folder where it is made or published."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from models.catalog import GRAPH_SUFFIX
from models.errors import MixerError, UsageError
from models.selection import RUNS, command_for

ARCHIVE_SUFFIX = ".tar.gz"
_MANIFEST = ".manifest.json"


def fine_tuned_checkpoint(out: Path, name: str) -> Path:
    """Return the path of the checkpoint that a fine-tuning below `out` writes, alone with the files of its run."""
    return out / RUNS / name / f"{name}.npz"


@dataclass(frozen=True)
class ModelPaths:
    """The paths of a model's directory `<folder>/<stem>` and of the files beside it."""

    folder: Path
    stem: str
    """The version, unless the files were renamed."""

    @classmethod
    def of(cls, out: Path, handle: str, version: int) -> Self:
        """Return the paths of a version of a handle (or of an export, by its own name) below `out`."""
        return cls(out / handle, str(version))

    @classmethod
    def around(cls, path: Path) -> Self:
        """Return the paths of a SavedModel, given as its directory or its archive.

        Raises:
            UsageError: the path is neither.
        """
        expected = f"expected the directory of a SavedModel (build/NAME/VERSION), or a *{ARCHIVE_SUFFIX} made of one"
        if path.is_dir():
            path = path.absolute()
            return cls(path.parent, path.name)
        if path.is_file() and path.name.endswith(ARCHIVE_SUFFIX):
            return cls(path.absolute().parent, path.name.removesuffix(ARCHIVE_SUFFIX))
        raise UsageError(f"{path} {'is neither' if path.exists() else 'does not exist'}: {expected}.")

    @classmethod
    def within(cls, folder: Path) -> list[Self]:
        """Return the paths of the models whose manifests are in a folder, or in the folders in it."""
        found = [*folder.glob(f"*{_MANIFEST}"), *folder.glob(f"*/*{_MANIFEST}")]
        return [cls(path.parent, path.name.removesuffix(_MANIFEST)) for path in sorted(found)]

    @property
    def out(self) -> Path:
        """The directory of all handles."""
        return self.folder.parent

    @property
    def validate_command(self) -> str:
        """The command that validates the model; FILE in it stands for a custom checkpoint of unknown place."""
        tuned = fine_tuned_checkpoint(self.out, self.handle.removesuffix(GRAPH_SUFFIX))
        return f"mixer-jax2tf validate {self.handle}" if tuned.is_file() else command_for("validate", self.handle)

    @property
    def handle(self) -> str:
        """The handle, by the name of its folder."""
        return self.folder.name

    @property
    def version(self) -> int:
        """The version; raises ValueError if the files were renamed."""
        return int(self.stem)

    @property
    def directory(self) -> Path:
        """The SavedModel, or the exported files."""
        return self._beside("")

    @property
    def archive(self) -> Path:
        """The packed SavedModel."""
        return self._beside(ARCHIVE_SUFFIX)

    @property
    def manifest(self) -> Path:
        """The manifest: what the model is."""
        return self._beside(_MANIFEST)

    @property
    def report(self) -> Path:
        """The report: whether the model is right."""
        return self._beside(".report.json")

    @property
    def accuracy(self) -> Path:
        """The accuracy that was measured, if it was."""
        return self._beside(".accuracy.json")

    @property
    def about(self) -> Path:
        """What the owner of a custom model says about it, if that was given."""
        return self._beside(".about.json")

    @property
    def outputs(self) -> Path:
        """The outputs that the report was made from, and the images."""
        return self._beside(".evidence.npz")

    @property
    def provenance(self) -> Path:
        """The provenance, which binds the archive and the files beside it."""
        return self._beside(".provenance.json")

    @property
    def signature(self) -> Path:
        """The signature of the provenance, if it is signed."""
        return self._beside(".provenance.json.sig")

    @property
    def card(self) -> Path:
        """The model card, if one was written."""
        return self._beside(".md")

    @property
    def sbom(self) -> Path:
        """The packages that it was made with, if the lock of the environment is known."""
        return self._beside(".cdx.json")

    @property
    def described(self) -> tuple[Path, ...]:
        """The files that say more about a model; bound by the provenance and published if they exist."""
        return (self.about, self.accuracy, self.card, self.sbom)

    @property
    def required(self) -> tuple[Path, ...]:
        """The files published with every model; the signature and those of `described` are published if they exist."""
        return (self.archive, self.manifest, self.report, self.provenance)

    def require_manifest(self) -> None:
        """Check that the model was converted.

        Raises:
            MixerError: it has no manifest.
        """
        if not self.manifest.is_file():
            raise MixerError(
                f"{self.manifest} is missing: there is no converted model. Run `{command_for('convert', self.handle)}` "
                "first, or give the --out and --version it was converted with."
            )

    def _beside(self, suffix: str) -> Path:
        return self.folder / f"{self.stem}{suffix}"
