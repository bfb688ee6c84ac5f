"""Train a small Mixer on real pictures, convert, check, export and fine-tune it, and compare each model with JAX."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from convert.checkpoints.open import CustomCheckpoint
from convert.pipeline.batch import check_batch, run_batch
from convert.pipeline.classify import classify_pictures, softmax
from convert.pipeline.digits_files import EXTRACTOR, NAME, DigitsFiles
from convert.pipeline.export_formats import Exports
from convert.pipeline.finetune import run_finetune
from convert.pipeline.frameworks import import_frameworks
from convert.pipeline.job import Batch
from convert.pipeline.progress import Steps, Watch
from convert.pipeline.selection import select_batch
from convert.pipeline.usable_model import find_model
from models.catalog import BUCKET, DEFAULT_VERSION, GRAPH_SUFFIX, TESTING_HANDLES, Architecture, Flavour, Handle
from models.errors import MixerError, UsageError, counted
from models.formats import FORMATS, Format
from models.params import Params, save_params
from models.storage.files import write_atomically

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from validation.digits.pictures import Digits

NEAR_TIE = 1e-3
"""Two logits that are closer than this, in units of the standard deviation of a picture's logits, are a near tie."""


@dataclass(frozen=True)
class Disagreement:
    """A picture of which a model finds another class than JAX does with the same params."""

    picture: str
    label: int
    jax: int
    found: int
    gap: float
    """JAX's first logit less its second, in units of the standard deviation of the picture's logits."""

    @property
    def near_tie(self) -> bool:
        """Whether JAX's first two logits are so close that rounding may exchange them."""
        return self.gap < NEAR_TIE


@dataclass(frozen=True)
class Accuracy:
    """How one model does on the held-out pictures."""

    model: str
    right: int
    total: int
    disagreements: tuple[Disagreement, ...] = ()
    """Where its first class is not JAX's."""


@dataclass(frozen=True)
class DigitsResult:
    """Files and figures of a run."""

    checkpoint: Path
    pictures: Path
    """A folder of the held-out pictures, with a subfolder for each class."""
    models: Path
    """The directory of the models and exports."""
    drawing: Path
    seconds: float
    """Seconds that training took."""
    accuracies: tuple[Accuracy, ...]
    """Of JAX and of each model; then of JAX with the fine-tuned params, and of their model."""
    left_out: tuple[str, ...]
    """Formats whose libraries are not installed."""


def run_digits(out: Path, watch: Watch | None = None, *, overwrite: bool = False) -> DigitsResult:
    """Train a Mixer on digits, convert, check, export and fine-tune it, and classify held-out pictures with each model.

    Args:
        out: where everything is written: `digits.npz`, `labels.txt`, `pictures/`, `training/`, `models/`, `digits.png`.
            None of them is replaced unasked.
        watch: called with the progress.
        overwrite: replace what an earlier run wrote, and nothing else: anything of another name in `pictures/` or
            `training/` is refused, since it would be classified or trained on.

    Raises:
        UsageError: scikit-learn is missing, or something is in the way.
        MixerError: a model does not pass its checks.
    """
    from validation.digits.pictures import NAMES, Digits

    handles = {one.head: one for one in TESTING_HANDLES.values()}
    architecture = handles["classification"].checkpoint.architecture
    trained, held = Digits.load(architecture.image_size)
    files = DigitsFiles(out, overwrite)
    files.prepare(held.paths(files.pictures), trained.paths(files.training))
    import_frameworks()
    from validation.digits.train import predict

    params, seconds = _train(architecture, trained, files.custom.path, watch)
    write_atomically(files.labels, "".join(f"{name}\n" for name in NAMES).encode())
    held_out = _HeldOut(tuple(map(str, held.save(files.pictures))), files.models)
    trained.save(files.training)
    left_out = _convert(handles["classification"], files, watch)
    tuned, classes = _fine_tune(handles["fe"], files, watch)
    logits = predict(architecture, params, held.pictures)
    found = list(held_out.classify("JAX", logits, NAMES, _models(files.models, left_out), watch))
    found += held_out.classify(
        "JAX, fine-tuned", predict(architecture, tuned, held.pictures), classes, (files.tuning.name,), watch
    )
    best = logits.argmax(-1)
    probabilities = softmax(logits)[range(len(best)), best]
    held.draw(best.tolist(), probabilities.tolist(), files.drawing)
    missing = tuple(one.title for one in left_out)
    return DigitsResult(files.custom.path, files.pictures, files.models, files.drawing, seconds, tuple(found), missing)


def _train(architecture: Architecture, digits: "Digits", path: Path, watch: Watch | None) -> tuple[Params, float]:
    """Train on the digits and save the params; return them, and the seconds that training took."""
    from validation.digits.train import train

    begin = time.perf_counter()
    trained_on = counted(len(digits.labels), "picture")
    with Steps(watch, 1) as on:
        params = train(architecture, digits, progress=on.start(f"training on {trained_on}", "steps"))
        seconds = time.perf_counter() - begin
        on.finish(f"trained on {trained_on} in {seconds:.0f} s")
    save_params(params, path)
    return params, seconds


def _convert(handle: Handle, files: DigitsFiles, watch: Watch | None) -> list[Format]:
    """Convert, check and export the model; return the formats whose libraries are missing."""
    batch = _batch(handle, files.custom, files, ("native", "graph"), watch)
    found = [(one.handle, one.problems) for one in run_batch(batch, watch)]
    left_out = []
    for kind in FORMATS.values():
        try:
            kind.require()
        except UsageError:
            left_out.append(kind)
            continue
        work = Exports(
            kind,
            (handle,),
            batch.source,
            files.models,
            DEFAULT_VERSION,
            custom=files.custom,
            overwrite=files.overwrite,
        )
        work.check()
        found += [(one.name, one.problems) for one in work.run(watch)]
    _raise_problems(found)
    return left_out


def _batch(
    handle: Handle, custom: CustomCheckpoint, files: DigitsFiles, flavours: tuple[Flavour, ...], watch: Watch | None
) -> Batch:
    batch = select_batch(
        "convert-all",
        [handle.name],
        source=BUCKET,
        cache=None,
        out=files.models,
        version=DEFAULT_VERSION,
        flavours=flavours,
        custom=custom,
    )
    batch = replace(batch, overwrite=files.overwrite)
    check_batch(batch, watch)
    return batch


def _raise_problems(found: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Raise if anything has problems, given by name or path."""
    problems = [f"{name}: {'; '.join(said)}" for name, said in found if said]
    if problems:
        raise MixerError("\n".join(problems))


def _fine_tune(handle: Handle, files: DigitsFiles, watch: Watch | None) -> tuple[Params, tuple[str, ...]]:
    """Convert the feature extractor and fine-tune it on the same pictures; return the new params and their classes."""
    from convert.checkpoints.reader import load_checkpoint

    batch = _batch(handle, CustomCheckpoint(files.custom.path, EXTRACTOR), files, ("native",), watch)
    _raise_problems((one.handle, one.problems) for one in run_batch(batch, watch))
    result = run_finetune(files.tuning, watch)
    _raise_problems((one.handle, one.problems) for one in result.outcomes)
    architecture = handle.checkpoint.architecture
    loaded = load_checkpoint(result.checkpoint, architecture, num_classes=None)
    return loaded.for_head("classification"), result.classes


def _models(out: Path, left_out: Sequence[Format]) -> Iterator[str]:
    """Yield each model of the trained Mixer, as `classify` takes it."""
    yield from (NAME, NAME + GRAPH_SUFFIX)
    for kind in FORMATS.values():
        if kind not in left_out:
            yield from (str(out / kind.named(NAME) / str(DEFAULT_VERSION) / file) for file in kind.models)


@dataclass(frozen=True)
class _HeldOut:
    """The files of the held-out pictures, each in a folder of its class, and the folder of the models."""

    files: tuple[str, ...]
    out: Path

    def classify(
        self,
        title: str,
        logits: "NDArray[np.float32]",
        classes: Sequence[str],
        models: Iterable[str],
        watch: Watch | None,
    ) -> Iterator[Accuracy]:
        """Yield the accuracy of JAX, from its logits of these classes, and of each model, as `classify` finds it."""
        import numpy as np

        from validation.digits.pictures import NAMES

        digit = np.array([NAMES.index(name) for name in classes])
        labels = np.array([NAMES.index(Path(file).parent.name) for file in self.files])
        best = digit[logits.argmax(-1)]
        ordered = np.sort(logits.astype(np.float64), axis=-1)
        gaps = (ordered[:, -1] - ordered[:, -2]) / ordered.std(axis=-1)
        yield Accuracy(title, int((best == labels).sum()), len(best))
        for given in models:
            model = find_model(given, self.out, DEFAULT_VERSION)
            results = classify_pictures(model, dict.fromkeys(self.files), watch, top=1)
            _raise_problems((one.picture, (one.problem,)) for one in results if one.problem)
            found = digit[[one.scores[0].index for one in results]]
            disagreements = tuple(
                Disagreement(
                    self.files[index], int(labels[index]), int(best[index]), int(found[index]), float(gaps[index])
                )
                for index in np.flatnonzero(found != best)
            )
            name = f"{Path(given).parts[-3]}/{Path(given).name}" if "/" in given else given
            yield Accuracy(name, int((found == labels).sum()), len(found), disagreements)
