"""Fine-tune a feature extractor on labelled pictures, and convert and check what comes out."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from convert.checkpoints.open import CustomCheckpoint
from convert.finetune.pictures import Labelled
from convert.finetune.recipe import Recipe
from convert.finetune.state import State
from convert.pipeline.batch import BYTES_OF_GRAPH, BYTES_PER_PARAMETER, check_batch, refuse_brackets, run_batch
from convert.pipeline.cards import write_cards
from convert.pipeline.fine_tuning import FineTuning, prepared_folder
from convert.pipeline.job import Batch, Task
from convert.pipeline.made_models import made_below, nearest, similar
from convert.pipeline.outcome import Outcome
from convert.pipeline.processes import run_apart
from convert.pipeline.progress import Event, Watch
from convert.pipeline.selection import select_batch
from convert.pipeline.tfds_data import unpack_data
from convert.pipeline.training import Training
from export.cards.publisher import Publisher
from export.install import prepare_out
from models.catalog import ALL_HANDLES, BUCKET, DEFAULT_VERSION, GRAPH_SUFFIX, Handle
from models.errors import MixerError, UsageError
from models.formats import FORMATS
from models.records.about import About
from models.records.contents import refuse_changed
from models.records.layout import ModelPaths, fine_tuned_checkpoint
from models.records.manifest import Manifest
from models.selection import custom_handle, is_catalogued, template_of
from models.storage.files import require_room, write_atomically
from validation.accuracy.dataset import Dataset

_ROOM = "free some space, or give another --out."
_MOST_NAMED = 12


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
    refuse_brackets(tuning.out)
    about = None if tuning.about is None else About.from_toml(tuning.about)
    base, manifest, template = _find_base(tuning)
    prepare_out(tuning.out)
    custom_handle(template, tuning.name, 1)  # refuses an unusable name
    directory, order = unpack_data(tuning.data, tuning.cache, watch, to_train=True)
    classes, dataset = Dataset.find_classes(directory, order)
    pictures = Labelled(
        tuple(picture.path for picture in dataset.pictures), tuple(picture.labels[0] for picture in dataset.pictures)
    )
    trained, held = pictures.split(tuning.held_out, tuning.seed)
    if not len(held):
        raise UsageError(f"{tuning.data} has one picture of each class, which leaves none to hold out: give more.")
    recipe = Recipe.choose(tuning.recipe, len(trained), tuning.batch_size, steps=tuning.steps, rate=tuning.rate)
    settings = tuning.settings(manifest, classes, dataset)
    require_room(tuning.out, _disk_need(tuning, template, len(classes), len(trained) + len(held)), _ROOM)
    with prepared_folder(tuning, settings, watch):
        for remark in (*dataset.remarks, _what_is_trained(tuning)):
            if watch is not None:
                watch(Event("noted", remark))
        labels = tuning.labels
        write_atomically(labels, "".join(f"{name}\n" for name in classes).encode())
        architecture = template.checkpoint.architecture
        training = Training(tuning, base.directory, architecture, trained, held, len(classes), recipe)
        state = run_apart(training.run, watch)
        custom = CustomCheckpoint(tuning.result, tuning.name, labels, about=about)
        outcomes, cards = _convert(tuning, template, custom, publisher, watch)
    return FineTuningResult(tuning.result, recipe, len(trained), classes, state, tuple(outcomes), cards)


def _what_is_trained(tuning: FineTuning) -> str:
    if tuning.whole:
        return "all params are trained, on random crops."
    crops = "the central crop" if tuning.crops == 1 else f"{tuning.crops} crops"
    augmented = ", without augmentation" if tuning.crops == 1 else ""
    return f"only the head is trained, on the features of {crops} of each picture{augmented}."


def _disk_need(tuning: FineTuning, template: Handle, classes: int, pictures: int) -> int:
    """Return the bytes that the run and its models will need, beyond what an earlier attempt has written."""
    params = custom_handle(template, tuning.name, classes).parameters
    width = template.checkpoint.architecture.hidden_dim
    # Params and momentum, twice while the next state is written; features of each crop, if the head alone is trained.
    state = 4 * params if tuning.whole else 4 * width * classes + width * tuning.crops * pictures
    run = BYTES_PER_PARAMETER * (params + state)
    models = len(tuning.flavours) * (BYTES_PER_PARAMETER * params + BYTES_OF_GRAPH)
    folders = (tuning.folder, *(tuning.out / name for name in tuning.model_names))
    there = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
    return max(0, run + models - there)


def _convert(
    tuning: FineTuning, template: Handle, custom: CustomCheckpoint, publisher: Publisher | None, watch: Watch | None
) -> tuple[list[Outcome], tuple[Path, ...]]:
    """Convert and check the checkpoint; with a publisher, run the full set and write cards, and return their paths."""
    batch = _batch("convert-all", tuning, template, custom)
    check_batch(batch)
    outcomes = run_batch(batch, watch)
    if publisher is None or any(one.verdict == "failed" for one in outcomes):
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
        raise UsageError(_no_base(tuning))
    manifest = Manifest.read(paths.manifest)
    if manifest.head != "fe":
        raise UsageError(
            f"{tuning.base} is a classifier, and fine-tuning starts from a feature extractor: "
            f"{_instead(tuning, manifest)}."
        )
    refuse_changed(paths.directory, manifest.files, paths.manifest, "Convert the model again (--overwrite).")
    return paths, manifest, template_of(manifest.architecture, "classification")


def _extractors(tuning: FineTuning) -> list[str]:
    """Return the names of the feature extractors below `out` that can be fine-tuned."""
    made = made_below(tuning.out, tuning.version, "fe")
    exports = tuple(f"-{name}" for name in FORMATS)
    return [
        name
        for name in made
        if not name.endswith(exports) and ModelPaths.of(tuning.out, name, tuning.version).manifest.is_file()
    ]


def _instead(tuning: FineTuning, manifest: Manifest) -> str:
    """Return what to do instead of fine-tuning a custom classifier."""
    if made := _extractors(tuning):
        return f"give {' or '.join(nearest(tuning.base, made))}"
    name = tuning.base.removesuffix(GRAPH_SUFFIX)
    tuned = fine_tuned_checkpoint(tuning.out, name)
    checkpoint = shlex.quote(str(tuned)) if tuned.is_file() else "FILE"
    words = ("--name", f"{name}_fe", "--out", str(tuning.out), "--version", str(tuning.version))
    extractor = template_of(manifest.architecture, "fe").name
    return (
        f"run `mixer-jax2tf convert-all {extractor} --checkpoint {checkpoint} {shlex.join(words)}` first, and give "
        f"{name}_fe"
    )


def _no_base(tuning: FineTuning) -> str:
    """Return in words that there is no such feature extractor."""
    paths = ModelPaths.of(tuning.out, tuning.base, tuning.version)
    if is_catalogued(tuning.base):
        version = "" if tuning.version == DEFAULT_VERSION else f" --version {tuning.version}"
        command = f"mixer-jax2tf convert-all {tuning.base}{version}"
        return f"{paths.manifest} is missing: run `{command}` first, or give the --out and --version of the model."
    others = sorted(one.name.partition(".")[0] for one in paths.folder.glob("*.manifest.json"))
    if "/" not in tuning.base and others:
        return (
            f"{tuning.base} has version {', '.join(others)} below {tuning.out}, not {tuning.version}: --version is "
            "that of the new model and of the one to start from."
        )
    extractors = [name for name, handle in ALL_HANDLES.items() if handle.head == "fe" and is_catalogued(name)]
    made = _extractors(tuning)
    near = similar(tuning.base, made) or similar(tuning.base, extractors)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    there = f" Version {tuning.version} below {tuning.out}: {', '.join(made[:_MOST_NAMED])}." if made else ""
    return (
        f"no feature extractor {tuning.base!r} below {tuning.out}: expected its name, no path or pattern.{hint}{there}"
    )


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
