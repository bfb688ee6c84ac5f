"""What to fine-tune and how, and the folder that its run is kept in."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from convert.finetune.recipe import BATCH_SIZE, RecipeName
from convert.pipeline.progress import Event, Watch
from models.catalog import DEFAULT_VERSION, GRAPH_SUFFIX, Flavour
from models.errors import MixerError, UsageError
from models.records.layout import ModelPaths
from models.records.manifest import Manifest
from models.records.provenance import library_versions, sources_sha256
from models.storage.files import read_small, sha256_of, write_atomically
from models.storage.temporary import locked
from validation.accuracy.dataset import Dataset

_SETTINGS = "settings.json"
_MOST_BYTES = 1 << 20
_SOURCES = (
    "convert/finetune",
    "convert/pipeline/training.py",
    "models/params.py",
    "models/picture_files.py",
    "models/pictures.py",
    "models/preprocessing.py",
    "models/resize.py",
)
"""What decides the result of a run, besides its settings."""


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """What to fine-tune, on what, and how; see `choose_recipe` for the recipes."""

    base: str
    """Name of a feature extractor below `out`."""
    name: str
    """Of the new model."""
    data: Path
    """One folder of pictures per class, or `tfds:NAME` or `tfds:NAME:SPLIT` (its split `train` by default)."""
    out: Path
    version: int = DEFAULT_VERSION
    flavours: tuple[Flavour, ...] = ("native",)
    recipe: RecipeName = "collection"
    whole: bool = False
    """Train all params; else only the head, on features that are computed once."""
    crops: int = 1
    """Crops of each picture whose features are computed, if only the head is trained: the central one, then others."""
    steps: int | None = None
    """Instead of the recipe's, as `rate`."""
    rate: float | None = None
    batch_size: int = BATCH_SIZE
    held_out: float = 0.1
    """Share of each class that is not trained on."""
    patience: int | None = None
    """Evaluations without a better score after which training ends; None to take all steps."""
    save_every: int = 100
    """Steps between two saved states; there is one after each evaluation too."""
    seed: int = 0
    """Of the split, the order, the crops and the first head."""
    about: Path | None = None
    """What the cards of the new model are to say, in TOML."""
    cache: Path | None = None
    """Where a data set is unpacked; the user's cache directory by default."""
    overwrite: bool = False

    @property
    def folder(self) -> Path:
        """Where the run is kept: settings, state, features, logs, and its result, `<name>.npz`."""
        return self.out / "finetune" / self.name

    def check(self) -> None:
        """Check the numbers.

        Raises:
            UsageError: some cannot be used; all are named.
        """
        limits = {
            "--crops": 1 <= self.crops <= 1000,
            "--steps": self.steps is None or self.steps >= 1,
            "--rate": self.rate is None or 0 < self.rate < float("inf"),
            "--batch-size": self.batch_size >= 1,
            "--held-out": 0 < self.held_out < 1,
            "--patience": self.patience is None or self.patience >= 1,
            "--save-every": self.save_every >= 1,
            "--seed": 0 <= self.seed < 1 << 31,
        }
        wrong = [option for option, right in limits.items() if not right]
        if wrong:
            raise UsageError(
                f"{', '.join(wrong)} cannot be used: expected positive numbers (--crops up to 1000, --seed also "
                "0), and a share between 0 and 1 for --held-out."
            )
        if self.whole and self.crops != 1:
            raise UsageError("--crops is for training the head alone: with --whole each step takes new random crops.")


def settings_of(tuning: FineTuning, manifest: Manifest, classes: Sequence[str], dataset: Dataset) -> dict[str, object]:
    """Return all that decides the result; a run is resumed only with equal settings."""
    listing = hashlib.sha256()
    for picture in dataset.pictures:
        stat = picture.path.stat()
        name = os.fspath(picture.path.relative_to(dataset.directory))
        listing.update(
            f"{name}\0{picture.labels[0]}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape")
        )
    left_out = ("out", "overwrite", "save_every", "data", "flavours", "cache", "about")
    return {
        **{name: value for name, value in asdict(tuning).items() if name not in left_out},
        "base_checkpoint": manifest.checkpoint.model_dump(),
        "base_files": {name: digest.sha256 for name, digest in manifest.files.items()},
        "classes": list(classes),
        "pictures": len(dataset.pictures),
        "pictures_sha256": listing.hexdigest(),
        "libraries": library_versions(),
        "sources": sources_sha256(*_SOURCES),
    }


@contextmanager
def prepared_folder(tuning: FineTuning, settings: dict[str, object], watch: Watch | None) -> Iterator[None]:
    """Make the folder of the run, or find the same run there; hold its lock for the block.

    Raises:
        UsageError: another run is there, or something else; or a model of this name that is not this run's.
    """
    folder, record = tuning.folder, tuning.folder / _SETTINGS
    folder.parent.mkdir(parents=True, exist_ok=True)

    def wait() -> None:
        if watch is not None:
            watch(Event("noted", f"waiting for another process to finish with {folder}"))

    with locked(folder.with_name(f".{folder.name}.lock"), wait, needed=False):
        if record.is_file():
            _refuse_other_settings(tuning, settings, record)
            if tuning.overwrite:
                _remove_run(tuning)
        elif folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder} contains something other than a run of `finetune`: give another --name.")
        _refuse_other_models(tuning)
        folder.mkdir(exist_ok=True)
        write_atomically(record, (json.dumps(settings, indent=1) + "\n").encode())
        yield


def _refuse_other_settings(tuning: FineTuning, settings: dict[str, object], record: Path) -> None:
    try:
        earlier = json.loads(read_small(record, _MOST_BYTES))
        other = sorted(name for name in settings.keys() | earlier.keys() if settings.get(name) != earlier.get(name))
    except (OSError, ValueError, AttributeError, MixerError) as error:
        raise UsageError(f"{record} cannot be read ({error}): give another --name, or remove the folder.") from error
    if other and not tuning.overwrite:
        raise UsageError(
            f"{tuning.folder} contains a run with other settings ({', '.join(other)}): give another --name, or "
            "--overwrite to replace it."
        )


def _remove_run(tuning: FineTuning) -> None:
    """Remove what a run has written, and nothing else that may be in its folder."""
    for name in ("state.npz", "features.bin", "features.sha256", "labels.txt", f"{tuning.name}.npz", _SETTINGS):
        (tuning.folder / name).unlink(missing_ok=True)
    shutil.rmtree(tuning.folder / "tensorboard", ignore_errors=True)


def _refuse_other_models(tuning: FineTuning) -> None:
    """Refuse, before training, to replace models that were not made from this run's checkpoint.

    Raises:
        UsageError: there are some, and `overwrite` is not set.
    """
    result = tuning.folder / f"{tuning.name}.npz"
    ours = sha256_of(result) if result.is_file() else None
    names = [tuning.name + (GRAPH_SUFFIX if flavour == "graph" else "") for flavour in tuning.flavours]
    taken = []
    for paths in (ModelPaths.of(tuning.out, name, tuning.version) for name in names):
        if paths.manifest.is_file():
            if Manifest.read(paths.manifest).checkpoint.sha256 != ours:
                taken.append(str(paths.directory))
        elif os.path.lexists(paths.directory):
            taken.append(str(paths.directory))
    if taken and not tuning.overwrite:
        raise UsageError(f"exists already: {', '.join(taken)}. Give another --name, or --overwrite to replace it.")
