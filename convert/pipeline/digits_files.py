"""Where the command digits writes, and what it must not replace there."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from convert.checkpoints.open import CustomCheckpoint
from convert.pipeline.batch import refuse_brackets
from convert.pipeline.fine_tuning import FineTuning
from export.install import prepare_out, refuse_to_replace
from models.catalog import DEFAULT_VERSION, GRAPH_SUFFIX
from models.errors import UsageError, each, shown
from models.formats import FORMATS
from models.records.formats import ExportManifest
from models.records.layout import ModelPaths
from models.records.manifest import Manifest

NAME = "digits"
"""Name of the model."""

EXTRACTOR = "digits_fe"
"""Name of its feature extractor."""

_FINE_TUNED = "digits_tuned"
"""Name of the fine-tuned model: the same features, another head."""


@dataclass(frozen=True)
class DigitsFiles:
    """The files and folders of a run."""

    out: Path
    overwrite: bool
    """Whether to replace those that an earlier run wrote."""

    @property
    def custom(self) -> CustomCheckpoint:
        """The checkpoint that training writes, and its class list."""
        return CustomCheckpoint(self.out / f"{NAME}.npz", NAME, self.labels)

    @property
    def labels(self) -> Path:
        """The class list."""
        return self.out / "labels.txt"

    @property
    def pictures(self) -> Path:
        """The held-out pictures, in a folder for each class."""
        return self.out / "pictures"

    @property
    def training(self) -> Path:
        """The pictures to fine-tune on, in a folder for each class."""
        return self.out / "training"

    @property
    def drawing(self) -> Path:
        """Pictures with their predictions."""
        return self.out / "digits.png"

    @property
    def models(self) -> Path:
        """The models and exports."""
        return self.out / "models"

    @property
    def tuning(self) -> FineTuning:
        """What is fine-tuned."""
        return FineTuning(
            base=EXTRACTOR,
            name=_FINE_TUNED,
            data=self.training,
            out=self.models,
            recipe="bit",
            overwrite=self.overwrite,
        )

    def prepare(self, held: Sequence[Path], trained: Sequence[Path]) -> None:
        """Make the output directory, and refuse what must not be replaced in it.

        Args:
            held: the files to write below `pictures`.
            trained: the files to write below `training`.

        Raises:
            UsageError: what is to be written exists already; or, with `overwrite`, it is not what an earlier run wrote.
        """
        refuse_brackets(self.out)
        if self.overwrite:
            strange = [*self._strange(), *_others(self.pictures, held), *_others(self.training, trained)]
            if strange:
                named = ", ".join(shown(one, 300) for one in strange[:5])
                more = f", ... ({len(strange):,} in all)" if len(strange) > 5 else ""
                raise UsageError(
                    f"not written by an earlier run, so not replaced: {named}{more}. Move this away, or give another "
                    "--out."
                )
            each([partial(refuse_to_replace, *one, overwrite=True) for one in self._models()])
        elif taken := [str(path) for path in self._written() if _is_taken(path)]:
            raise UsageError(
                f"exists already: {', '.join(taken)}. Give another --out, or --overwrite to replace what an earlier "
                "run wrote."
            )
        prepare_out(self.out)
        prepare_out(self.models)

    def _models(self) -> Iterator[tuple[ModelPaths, type[Manifest]]]:
        for name in (NAME, NAME + GRAPH_SUFFIX, EXTRACTOR, _FINE_TUNED):
            yield ModelPaths.of(self.models, name, DEFAULT_VERSION), Manifest
        for kind in FORMATS.values():
            yield ModelPaths.of(self.models, kind.named(NAME), DEFAULT_VERSION), ExportManifest

    def _written(self) -> Iterator[Path]:
        """Yield whatever a run writes."""
        yield from (*self._single, self.pictures, self.training, self.tuning.folder)
        for paths, _ in self._models():
            yield paths.directory

    @property
    def _single(self) -> tuple[Path, ...]:
        return (self.custom.path, self.labels, self.drawing)

    def _strange(self) -> Iterator[Path]:
        """Yield what stands where a run writes, and is of another kind."""
        yield from (path for path in self._single if path.is_dir())
        runs = (self.tuning.folder.parent, self.tuning.folder)
        folders = (self.models, self.pictures, self.training, *runs, *(paths.folder for paths, _ in self._models()))
        yield from (path for path in folders if os.path.lexists(path) and not path.is_dir())
        if not self.tuning.record.is_file() and self.tuning.folder.is_dir():
            yield from sorted(self.tuning.folder.iterdir())


def _is_taken(path: Path) -> bool:
    """Return whether something exists, other than an empty folder."""
    return any(path.iterdir()) if path.is_dir() and not path.is_symlink() else os.path.lexists(path)


def _others(folder: Path, expected: Sequence[Path]) -> Iterator[Path]:
    """Yield what a folder contains besides these files and their folders; what is hidden is not read, and left out."""
    known = {*expected, *(path.parent for path in expected)}
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and (path not in known or path.is_symlink() or path.is_dir() == (path in expected)):
            yield path
