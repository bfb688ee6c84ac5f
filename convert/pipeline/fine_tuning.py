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
from models.errors import MixerError, UsageError, shown
from models.records.layout import ModelPaths, fine_tuned_checkpoint
from models.records.manifest import Manifest
from models.records.provenance import library_versions, sources_sha256
from models.storage.files import read_small, sha256_of, write_atomically
from models.storage.temporary import locked
from validation.accuracy.dataset import Dataset

_SETTINGS, _LABELS = "settings.json", "labels.txt"
_COMPUTED = ("state.npz", "features.bin", "features.sha256")
"""Files of a run that took time; a run without any of them has not begun, and its settings may change."""

_MOST_AT_A_TIME = 4096
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
    """What to fine-tune, on what, and how: the options of the command `finetune`.

    Args:
        base: name of a feature extractor below `out`.
        name: of the new model.
        data: a directory with one folder of pictures per class, or `tfds:NAME` or `tfds:NAME:SPLIT` (its split `train`
            by default).
        out: directory of the models.
        version: of `base` and of the new model.
        flavours: of the new model; exports to other formats are made from `graph`.
        recipe: see `Recipe.choose`.
        whole: train all params; else only the head, on features that are computed once.
        crops: crops of each picture whose features are computed, if only the head is trained: the central one, then
            random ones.
        steps: training steps, instead of the recipe's.
        rate: highest learning rate, instead of the recipe's.
        batch_size: pictures in a step.
        held_out: share of each class that is not trained on.
        patience: evaluations without a better score after which training ends; None to take all steps.
        save_every: steps between two saved states; there is one after each evaluation too.
        seed: of the split, the order, the crops and the first head.
        about: a file that says what the cards of the new model are to say, in TOML.
        cache: where a data set is unpacked; the user's cache directory by default.
        overwrite: start from the first step again, replacing the earlier run and its model.
    """

    base: str
    name: str
    data: Path
    out: Path = Path("build")
    version: int = DEFAULT_VERSION
    flavours: tuple[Flavour, ...] = ("native",)
    recipe: RecipeName = "collection"
    whole: bool = False
    crops: int = 1
    steps: int | None = None
    rate: float | None = None
    batch_size: int = BATCH_SIZE
    held_out: float = 0.1
    patience: int | None = None
    save_every: int = 100
    seed: int = 0
    about: Path | None = None
    cache: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Take text for paths too, as the functions of the Python interface do.

        Raises:
            UsageError: a path, which would be the working directory, or `flavours` is empty; all such are named.
        """
        given = {name: getattr(self, name) for name in ("data", "out", "about", "cache", "flavours")}
        empty = [f"\n  {name}={value!r}: should not be empty" for name, value in given.items() if value in ("", (), [])]
        if empty:
            raise UsageError(f"arguments of FineTuning that cannot be used:{''.join(empty)}")
        for name, value in given.items():
            if isinstance(value, str) and name != "flavours":
                object.__setattr__(self, name, Path(value))

    @property
    def folder(self) -> Path:
        """Where the run is kept: settings, state, features, logs, and its result, `<name>.npz`."""
        return self.result.parent

    @property
    def result(self) -> Path:
        """The checkpoint that the run writes."""
        return fine_tuned_checkpoint(self.out, self.name)

    @property
    def record(self) -> Path:
        """The settings of the run, by which its folder is recognised."""
        return self.folder / _SETTINGS

    @property
    def model_names(self) -> list[str]:
        """The name of the new model in each flavour."""
        return [self.name + (GRAPH_SUFFIX if flavour == "graph" else "") for flavour in self.flavours]

    @property
    def labels(self) -> Path:
        """The class list that the run writes."""
        return self.folder / _LABELS

    def check(self) -> None:
        """Check the numbers, and that the output is neither the base nor among the pictures.

        Raises:
            UsageError: some cannot be used; all are named.
        """
        most = (1 << 31) - 1
        limits = [
            ("--crops", self.crops, 1 <= self.crops <= 1000, "1 to 1,000"),
            ("--steps", self.steps, self.steps is None or 1 <= self.steps <= most, f"1 to {most:,}"),
            ("--rate", self.rate, self.rate is None or 0 < self.rate < float("inf"), "a positive number"),
            ("--batch-size", self.batch_size, 1 <= self.batch_size <= _MOST_AT_A_TIME, f"1 to {_MOST_AT_A_TIME:,}"),
            ("--held-out", self.held_out, 0 < self.held_out < 1, "a share between 0 and 1"),
            ("--patience", self.patience, self.patience is None or self.patience >= 1, "1 or more"),
            ("--save-every", self.save_every, self.save_every >= 1, "1 or more"),
            ("--seed", self.seed, 0 <= self.seed <= most, f"0 to {most:,}"),
        ]
        wrong = [f"{option} {value}: expected {expected}." for option, value, right, expected in limits if not right]
        if self.whole and self.crops != 1:
            wrong.append("--crops is for training the head alone: with --whole each step takes new random crops.")
        if self.name == self.base.removesuffix(GRAPH_SUFFIX):
            wrong.append(f"--name {self.name} is the model to start from: give the new one another name.")
        if os.path.isdir(self.data) and self.out.resolve().is_relative_to(self.data.resolve()):  # noqa: PTH112
            wrong.append(f"--out {self.out} is inside --data {self.data}: expected pictures alone there.")
        if wrong:
            raise UsageError("\n".join(wrong))

    def settings(self, manifest: Manifest, classes: Sequence[str], dataset: Dataset) -> dict[str, object]:
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
            **{name: value for name, value in asdict(self).items() if name not in left_out},
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
    folder, record = tuning.folder, tuning.record
    for place, option in ((folder.parent, "--out"), (folder, "--name")):
        if os.path.lexists(place) and not place.is_dir():
            raise UsageError(
                f"{place} is not a directory, and the run is kept there: move it, or give another {option}."
            )
    folder.parent.mkdir(parents=True, exist_ok=True)

    def wait() -> None:
        if watch is not None:
            watch(Event("noted", f"waiting for another process to finish with {folder}"))

    with locked(folder.with_name(f".{folder.name}.lock"), wait, needed=False):
        if record.is_file():
            if tuning.overwrite:
                _remove_run(tuning)
            elif any((folder / name).exists() for name in (*_COMPUTED, tuning.result.name)):
                _refuse_other_settings(tuning, settings, record)
        elif folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder} contains something other than a run of `finetune`: give another --name.")
        _refuse_other_models(tuning)
        folder.mkdir(exist_ok=True)
        write_atomically(record, (json.dumps(settings, indent=1) + "\n").encode())
        yield


def _refuse_other_settings(tuning: FineTuning, settings: dict[str, object], record: Path) -> None:
    try:
        earlier = json.loads(read_small(record, _MOST_BYTES))
        other = [
            _other(name, settings.get(name), earlier.get(name))
            for name in {**settings, **earlier}
            if settings.get(name) != earlier.get(name)
        ]
    except (OSError, ValueError, AttributeError, MixerError) as error:
        raise UsageError(f"{record} cannot be read ({error}): give another --name, or remove the folder.") from error
    if other:
        raise UsageError(
            f"{tuning.folder} contains a run with other settings ({'; '.join(dict.fromkeys(other))}): give another "
            "--name, or --overwrite to replace it."
        )


def _other(name: str, now: object, earlier: object) -> str:
    """Return in words that a setting differs."""
    known = {
        "base": "HANDLE", "base_checkpoint": "HANDLE's checkpoint", "base_files": "HANDLE's files",
        "classes": "names of the classes", "pictures": "number of pictures",
        "pictures_sha256": "names, sizes or times of pictures",
        "libraries": "versions of libraries", "sources": "version of this program",
    }  # fmt: skip
    said = known.get(name, f"--{name.replace('_', '-')}")
    simple = isinstance(now, str | int | float | None) and name not in ("pictures_sha256", "sources")
    before, after = ("not given" if value is None else shown(value) for value in (earlier, now))
    return f"{said}: {before}, now {after}" if simple else said


def _remove_run(tuning: FineTuning) -> None:
    """Remove what a run has written, and nothing else that may be in its folder."""
    for name in (*_COMPUTED, _LABELS, tuning.result.name, _SETTINGS):
        (tuning.folder / name).unlink(missing_ok=True)
    shutil.rmtree(tuning.folder / "tensorboard", ignore_errors=True)


def _refuse_other_models(tuning: FineTuning) -> None:
    """Refuse, before training, to replace models that were not made from this run's checkpoint.

    Raises:
        UsageError: there are some, and `overwrite` is not set.
    """
    ours = sha256_of(tuning.result) if tuning.result.is_file() else None
    taken = []
    for paths in (ModelPaths.of(tuning.out, name, tuning.version) for name in tuning.model_names):
        if os.path.lexists(paths.folder) and not paths.folder.is_dir():
            raise UsageError(f"{paths.folder} is not a directory, and the model is to be in it: give another --name.")
        if paths.manifest.is_file():
            if Manifest.read(paths.manifest).checkpoint.sha256 != ours:
                taken.append(str(paths.directory))
        elif os.path.lexists(paths.directory):
            taken.append(str(paths.directory))
    if taken and not tuning.overwrite:
        raise UsageError(f"exists already: {', '.join(taken)}. Give another --name, or --overwrite to replace it.")
