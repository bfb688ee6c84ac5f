"""Fine-tune a feature extractor on labelled pictures, and convert and check what comes out."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from convert.checkpoints.open import CustomCheckpoint
from convert.finetune.pictures import Labelled
from convert.finetune.recipe import BATCH_SIZE, Recipe, RecipeName, choose_recipe
from convert.finetune.state import State
from convert.pipeline.batch import check_batch, run_batch
from convert.pipeline.cards import write_cards
from convert.pipeline.job import Batch, Task
from convert.pipeline.outcome import Outcome
from convert.pipeline.processes import run_apart
from convert.pipeline.progress import Event, Watch
from convert.pipeline.selection import select_batch
from convert.pipeline.tfds_data import unpack_data
from convert.pipeline.training import Training, train
from export.cards.publisher import Publisher
from export.install import prepare_out
from models.catalog import ALL_HANDLES, BUCKET, DEFAULT_VERSION, GRAPH_SUFFIX, Flavour, Handle
from models.errors import MixerError, UsageError
from models.records.about import parse_about
from models.records.layout import ModelPaths
from models.records.manifest import Manifest
from models.records.provenance import library_versions
from models.selection import custom_handle, is_catalogued, template_of
from models.storage.files import read_small, write_atomically
from validation.accuracy.dataset import Dataset, find_classes

_SETTINGS = "settings.json"
_MOST_BYTES = 1 << 20


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


@dataclass(frozen=True)
class FineTuningResult:
    """What came out."""

    checkpoint: Path
    """The `.npz` that training gave: the params with the best score."""
    recipe: Recipe
    trained_on: int
    """Number of pictures."""
    classes: tuple[str, ...]
    state: State
    outcomes: tuple[Outcome, ...]
    """Of the conversion and the check of each flavour."""
    cards: tuple[Path, ...]


def run_finetune(
    tuning: FineTuning, watch: Watch | None = None, *, publisher: Publisher | None = None
) -> FineTuningResult:
    """Train, write the `.npz`, convert and check it; with a publisher, run the full set of checks and write its card.

    The same call after an interruption goes on where it stopped, and gives the same bytes on the same machine.

    Raises:
        UsageError: something cannot be used as given, or the output exists.
        MixerError: pictures cannot be read, or training fails.
    """
    tuning.check()
    prepare_out(tuning.out)
    about = None if tuning.about is None else parse_about(tuning.about)
    base, manifest, template = _find_base(tuning)
    custom_handle(template, tuning.name, 1)  # refuses an unusable name
    directory, order = unpack_data(tuning.data, tuning.cache, watch, to_train=True)
    classes, dataset = find_classes(directory, order)
    pictures = Labelled(
        tuple(picture.path for picture in dataset.pictures), tuple(picture.labels[0] for picture in dataset.pictures)
    )
    trained, held = pictures.split(tuning.held_out, tuning.seed)
    if not len(held):
        raise UsageError(f"{tuning.data} has one picture of each class, which leaves none to hold out: give more.")
    recipe = choose_recipe(tuning.recipe, len(trained), tuning.batch_size, steps=tuning.steps, rate=tuning.rate)
    _prepare(tuning, _settings(tuning, manifest, classes, dataset))
    labels = tuning.folder / "labels.txt"
    write_atomically(labels, "".join(f"{name}\n" for name in classes).encode())
    custom = CustomCheckpoint(tuning.folder / f"{tuning.name}.npz", tuning.name, labels, about=about)
    training = _training(tuning, base.directory, template, trained, held, len(classes), recipe)
    for remark in dataset.remarks if watch else ():
        watch(Event("noted", remark))  # type: ignore[misc]
    state = run_apart(partial(train, training), watch)
    outcomes, cards = _convert(tuning, template, custom, publisher, watch)
    return FineTuningResult(
        training.result,
        recipe,
        len(trained),
        classes,
        state,
        tuple(outcomes),
        cards,
    )


def _training(
    tuning: FineTuning,
    extractor: Path,
    template: Handle,
    trained: Labelled,
    held: Labelled,
    classes: int,
    recipe: Recipe,
) -> Training:
    return Training(
        extractor,
        template.checkpoint.architecture,
        trained,
        held,
        classes,
        recipe,
        tuning.folder,
        tuning.name,
        whole=tuning.whole,
        crops=tuning.crops,
        batch_size=tuning.batch_size,
        patience=tuning.patience,
        save_every=tuning.save_every,
        seed=tuning.seed,
    )


def _convert(
    tuning: FineTuning, template: Handle, custom: CustomCheckpoint, publisher: Publisher | None, watch: Watch | None
) -> tuple[list[Outcome], tuple[Path, ...]]:
    """Convert and check the checkpoint; with a publisher, run the full set and write cards, and return their paths."""
    batch = _batch("convert-all", tuning, template, custom)
    check_batch(batch)
    outcomes = run_batch(batch, watch)
    if publisher is None:
        return outcomes, ()
    # A card says whether the model can be fine-tuned, which only the full set tries.
    outcomes = run_batch(replace(_batch("validate", tuning, template, custom), inputs_set="full"), watch)
    names = [one.handle for one in outcomes if one.verdict != "failed"]
    cards, problems = write_cards(names, tuning.out, tuning.version, publisher, watch)
    if problems:
        raise MixerError("\n".join(("not all cards could be written:", *map(str, problems))))
    return outcomes, tuple(path for one in cards for path in one.files)


def _find_base(tuning: FineTuning) -> tuple[ModelPaths, Manifest, Handle]:
    """Return the feature extractor to start from, its manifest, and the classifier of the catalog like it."""
    paths = ModelPaths.of(tuning.out, tuning.base, tuning.version)
    known = ALL_HANDLES.get(tuning.base.removesuffix(GRAPH_SUFFIX))
    if known is not None and known.head != "fe":
        raise UsageError(
            f"{tuning.base} is a classifier, and fine-tuning starts from a feature extractor: give "
            f"{tuning.base.replace('classification', 'fe')}."
        )
    if "/" in tuning.base or not paths.manifest.is_file():
        command = (
            f"mixer-jax2tf convert-all {tuning.base}" if is_catalogued(tuning.base) else "mixer-jax2tf convert-all"
        )
        raise UsageError(
            f"{paths.manifest} is missing: expected the name of a feature extractor below --out. Run `{command}` "
            "first, or give its --out and --version."
        )
    manifest = Manifest.read(paths.manifest)
    if manifest.head != "fe":
        raise UsageError(
            f"{tuning.base} is a classifier, and fine-tuning starts from a feature extractor: convert its checkpoint "
            "with the handle of one."
        )
    return paths, manifest, template_of(manifest.architecture, "classification")


def _settings(tuning: FineTuning, manifest: Manifest, classes: Sequence[str], dataset: Dataset) -> dict[str, object]:
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
    }


def _prepare(tuning: FineTuning, settings: dict[str, object]) -> None:
    """Make the folder of the run, or find the same run there.

    Raises:
        UsageError: another run is there, or something else; or a model of this name.
    """
    folder, record = tuning.folder, tuning.folder / _SETTINGS
    if record.is_file():
        earlier = json.loads(read_small(record, _MOST_BYTES))
        other = sorted(name for name in settings.keys() | earlier.keys() if settings.get(name) != earlier.get(name))
        if other and not tuning.overwrite:
            raise UsageError(
                f"{folder} contains a run with other settings ({', '.join(other)}): give another --name, or "
                "--overwrite to replace it."
            )
        if tuning.overwrite:
            shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} contains something else than a run of `finetune`: give another --name.")
    elif ModelPaths.of(tuning.out, tuning.name, tuning.version).manifest.is_file() and not tuning.overwrite:
        raise UsageError(
            f"{tuning.out / tuning.name} contains a model already: give another --name, or --overwrite to replace it."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(record, (json.dumps(settings, indent=1) + "\n").encode())


def _batch(task: Task, tuning: FineTuning, template: Handle, custom: CustomCheckpoint) -> Batch:
    batch = select_batch(
        task,
        [template.name],
        source=BUCKET,
        cache=None,
        out=tuning.out,
        version=tuning.version,
        flavours=tuning.flavours,
        custom=custom,
    )
    return replace(batch, overwrite=tuning.overwrite)
