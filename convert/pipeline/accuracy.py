"""Measure the accuracy of models on labelled pictures."""

import hashlib
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convert.pipeline.contenders import Contender
from convert.pipeline.for_each import Failure, attempt
from convert.pipeline.frameworks import import_frameworks
from convert.pipeline.picture_work import Run, run_here
from convert.pipeline.progress import Steps, Watch
from convert.pipeline.tfds_data import unpack_data
from convert.pipeline.unfinished import BatchAnswers, Unfinished, state_of
from convert.pipeline.usable_model import UsableModel, read_classes
from models.errors import MixerError, counted
from models.labels import LABELS_1K
from models.picture_files import read_picture
from models.preprocessing import Protocol
from models.records.layout import ModelPaths
from validation.accuracy.counts import Answer
from validation.accuracy.dataset import Dataset, Picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from validation.formats.runtimes import RunnableModel

TOP = 5

_MOST_NAMED = 5

BATCH = 32
"""Pictures that are run at a time; an interrupted run resumes with whole batches, so that each is run as before."""


@dataclass(frozen=True)
class Measured:
    """What one contender answered to each picture, in the order of the pictures that were decoded."""

    backend: str
    model: UsableModel
    answers: tuple[Answer, ...]
    within_subset: tuple[Answer, ...] | None
    """The answers among the classes that occur alone, where these are fewer than the model's."""
    seconds: float
    """Seconds that the model ran."""
    speed: float
    """Pictures per second of the median batch, as the first of a size may be compiled for."""
    paths: ModelPaths | None = None
    """Its paths, if it is a SavedModel with a manifest."""


@dataclass(frozen=True)
class AccuracyResult:
    """The answers of all contenders to the same decoded pictures."""

    dataset: Dataset
    pictures: tuple[Picture, ...]
    """Those that were decoded."""
    sha256: tuple[str, ...]
    """Of the file of each."""
    problems: tuple[str, ...]
    """Path and reason of each picture that was not."""
    measured: tuple[Measured, ...]
    reading_seconds: float

    @property
    def data_sha256(self) -> str:
        """One digest of the pictures and their labels."""
        lines = sorted(f"{one} {picture.labels}\n" for one, picture in zip(self.sha256, self.pictures, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of the figures must know."""
        same = (f"occurs more than once: {_names(pictures)}" for pictures in self._several)
        return (*self.dataset.remarks, *_shortened(same), *_shortened(iter(self.contradictions)))

    @property
    def contradictions(self) -> tuple[str, ...]:
        """The pictures that occur with different labels."""
        wrong = (pictures for pictures in self._several if len({picture.labels for picture in pictures}) > 1)
        return tuple(f"occurs with different labels: {_names(pictures)}" for pictures in wrong)

    @property
    def _several(self) -> list[list[Picture]]:
        """The pictures whose files are equal."""
        found: dict[str, list[Picture]] = {}
        for sha256, picture in zip(self.sha256, self.pictures, strict=True):
            found.setdefault(sha256, []).append(picture)
        return [pictures for pictures in found.values() if len(pictures) > 1]


def _names(pictures: Sequence[Picture]) -> str:
    named = ", ".join(f"{picture.path.parent.name}/{picture.path.name}" for picture in pictures[:_MOST_NAMED])
    return named + (f" and {len(pictures) - _MOST_NAMED:,} more" if len(pictures) > _MOST_NAMED else "")


def _shortened(remarks: Iterator[str]) -> Iterator[str]:
    """Yield the first remarks and the number of the others."""
    every = list(remarks)
    yield from (f"a picture {remark}" for remark in every[:_MOST_NAMED])
    if len(every) > _MOST_NAMED:
        yield f"{len(every) - _MOST_NAMED:,} more pictures {every[0].partition(':')[0].replace('occurs', 'occur')}"


def _is_imagenet(classes: Sequence[str] | None) -> bool:
    """Return whether these are the classes of ImageNet-1k in their usual order, by their names."""
    return classes is not None and tuple(classes) == read_classes(LABELS_1K.checked_path())


def find_pictures_of(
    contenders: Sequence[Contender],
    data: Path,
    watch: Watch | None = None,
    *,
    cache: Path | None = None,
    real: Path | None = None,
    devkit: Path | None = None,
) -> Dataset:
    """Find labelled pictures, a directory or `tfds:NAME:SPLIT`, and their labels among the classes of the contenders.

    Raises:
        UsageError: the layout is not known, or a label would be a guess.
    """
    classes = contenders[0].model.classes
    directory, _ = unpack_data(data, cache, watch)
    return Dataset.find(directory, classes, is_imagenet=_is_imagenet(classes), real=real, devkit=devkit)


def measure_accuracy(
    contenders: Sequence[Contender],
    dataset: Dataset,
    watch: Watch | None = None,
    *,
    protocol: Protocol = "paper",
    cache: Path | None = None,
    run: Run = run_here,
) -> AccuracyResult:
    """Run each contender on the same decoded pictures.

    Pictures are never turned by their EXIF orientation, as no published evaluation does. One that cannot be decoded
    is a problem, and is not counted. The answers of an interrupted run are kept in `cache`; the same run resumes
    there, in the same batches. `run` says where they are computed.

    Raises:
        MixerError: a model cannot be used, or no picture can be read.
    """
    import_frameworks()
    resumed = Unfinished.of(cache, contenders, dataset, protocol)
    with Steps(watch, 1) as on:
        batches = [dataset.pictures[start : start + BATCH] for start in range(0, len(dataset.pictures), BATCH)]
        found = resumed.read(batches)
        if found:
            on.note(f"resuming after {counted(sum(map(len, batches[: len(found)])), 'picture')} of an interrupted run")
        left = batches[len(found) :]
        if left:
            work = _Measuring(tuple(contenders), dataset.subset, protocol)
            models = work.open(on)
            advance = on.start("classifying", "pictures")
            states = list(map(state_of, left))  # before any is read
            for state, answers in zip(states, run(work, models, left), strict=True):
                found.append(answers)
                resumed.add(state, answers)
                advance(len(found) * BATCH, len(dataset.pictures))
        on.finish(f"classified {counted(sum(bool(one) for batch in found for one in batch.sha256), 'picture')}")
    resumed.remove()
    return _collect(contenders, dataset, found)


@dataclass(frozen=True)
class _ReadBatch:
    """The pictures of a batch that could be decoded, and why the others could not."""

    sha256: list[str | None]
    problems: list[str | None]
    images: "list[NDArray[np.float32]]"
    seconds: float


@dataclass(frozen=True)
class _Measuring:
    """The work on each batch of pictures."""

    contenders: tuple[Contender, ...]
    subset: tuple[int, ...] | None
    protocol: Protocol

    def open(self, on: Steps | None = None) -> "list[RunnableModel]":
        """Load the models of all contenders."""
        models = []
        for one in self.contenders:
            if on is not None:
                on.start(f"loading {one.model.name} ({one.backend})")
            models.append(one.open())
        return models

    def read(self, batch: Sequence[Picture], size: int) -> _ReadBatch:
        """Read and preprocess those pictures that can be decoded."""
        begin = time.perf_counter()
        read = [self._read(picture, size) for picture in batch]
        return _ReadBatch(
            [None if isinstance(one, Failure) else one[0] for one in read],
            [one.reason if isinstance(one, Failure) else None for one in read],
            [one[1] for one in read if not isinstance(one, Failure)],
            time.perf_counter() - begin,
        )

    def answer(self, models: "Sequence[RunnableModel]", read: _ReadBatch) -> BatchAnswers:
        """Run each model on the pictures."""
        import numpy as np

        result = BatchAnswers(read.sha256, read.problems, read.seconds, seconds=[], top=[], within=[])
        if not read.images:
            return result._replace(seconds=[0.0] * len(models), top=[[] for _ in models])
        images = np.stack(read.images)
        for model in models:
            begin = time.perf_counter()
            logits = np.asarray(model.run(images))
            result.seconds.append(time.perf_counter() - begin)
            if not np.isfinite(logits).all():
                raise MixerError("the model gives outputs that are not finite.")
            result.top.append(_best(logits, None))
            if self.subset is not None:
                result.within.append(_best(logits, self.subset))
        return result

    def _read(self, picture: Picture, size: int) -> "tuple[str, NDArray[np.float32]] | Failure":
        from models.pictures import decode, preprocess

        def read() -> "tuple[str, NDArray[np.float32]]":
            content = read_picture(picture.path)
            pixels = decode(content, exif=False)
            return hashlib.sha256(content).hexdigest(), preprocess(pixels, self.protocol, size)

        return attempt(read)


def _best(logits: "NDArray[np.float32]", subset: Sequence[int] | None) -> list[list[int]]:
    """Return the likeliest classes of each picture, of all or of a subset."""
    import numpy as np

    chosen = np.arange(logits.shape[1]) if subset is None else np.asarray(subset)
    best: list[list[int]] = chosen[np.argsort(-logits[:, chosen], axis=-1, kind="stable")[:, :TOP]].tolist()
    return best


def _collect(contenders: Sequence[Contender], dataset: Dataset, found: Sequence[BatchAnswers]) -> AccuracyResult:
    digests = [sha256 for batch in found for sha256 in batch.sha256]
    if not any(digests):
        raise MixerError(f"none of the {len(digests):,} pictures could be read; the first: {found[0].problems[0]}.")
    reasons = [reason for batch in found for reason in batch.problems]
    decoded = tuple(picture for picture, sha256 in zip(dataset.pictures, digests, strict=True) if sha256)

    def answers(rows: Iterator[list[int]]) -> tuple[Answer, ...]:
        return tuple(Answer(picture.labels, tuple(row)) for picture, row in zip(decoded, rows, strict=True))

    measured = []
    for index, contender in enumerate(contenders):
        every = answers(row for batch in found for row in batch.top[index])
        within = None
        if dataset.subset is not None:
            within = answers(row for batch in found if batch.within for row in batch.within[index])
        seconds = sum(batch.seconds[index] for batch in found)
        speed = statistics.median(len(batch.top[index]) / batch.seconds[index] for batch in found if batch.top[index])
        measured.append(Measured(contender.backend, contender.model, every, within, seconds, speed, contender.paths))
    return AccuracyResult(
        dataset,
        decoded,
        tuple(sha256 for sha256 in digests if sha256),
        tuple(f"{one.path}: {reason}" for one, reason in zip(dataset.pictures, reasons, strict=True) if reason),
        tuple(measured),
        sum(batch.reading_seconds for batch in found),
    )
