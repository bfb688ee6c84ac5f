"""Measure the accuracy of models on labelled pictures."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convert.pipeline.contenders import Contender
from convert.pipeline.for_each import Failure, attempt
from convert.pipeline.frameworks import import_frameworks
from convert.pipeline.progress import Watch, steps
from convert.pipeline.usable_model import UsableModel, read_classes
from models.errors import MixerError, UsageError
from models.labels import LABELS_1K
from validation.accuracy.counts import Answer
from validation.accuracy.dataset import Dataset, Picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from models.pictures import Protocol
    from validation.formats.runtimes import RunnableModel

TOP = 5

_BATCH = 32


@dataclass(frozen=True)
class Measured:
    """What one contender answered to each picture, in the order of the pictures that were decoded."""

    backend: str
    model: UsableModel
    answers: tuple[Answer, ...]
    within_subset: tuple[Answer, ...] | None
    """The answers among the classes that occur alone, where these are fewer than the model's."""
    seconds: float
    """That the model ran."""


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
        twice = len(self.sha256) - len(set(self.sha256))
        return self.dataset.remarks + ((f"{twice:,} pictures occur more than once",) if twice else ())


def is_imagenet(classes: Sequence[str] | None) -> bool:
    """Return whether these are the classes of ImageNet-1k in their usual order, by their names."""
    return classes is not None and tuple(classes) == read_classes(LABELS_1K.checked_path())


def measure_accuracy(
    contenders: Sequence[Contender], dataset: Dataset, watch: Watch | None = None, *, protocol: "Protocol" = "paper"
) -> AccuracyResult:
    """Run each contender on the same decoded pictures.

    Pictures are never turned by their EXIF orientation, as no published evaluation does. One that cannot be decoded
    is a problem, and counts for nobody.

    Raises:
        MixerError: a model cannot be used, or labels are beyond its classes.
    """
    import_frameworks()
    import numpy as np

    with steps(watch, 1) as on:
        opened = []
        for one in contenders:
            on.start(f"loading {one.model.name} ({one.backend})")
            opened.append(one.open())
        sizes = {model.takes[0][2][1] for model in opened}
        if len(sizes) != 1 or None in sizes:
            raise MixerError(f"the models take images of several sizes: {sizes}.")
        (size,) = sizes
        advance = on.start("classifying", "pictures")
        kept: list[tuple[Picture, str]] = []
        problems: list[str] = []
        tally = [_Tally(dataset) for _ in contenders]
        reading = 0.0
        for start in range(0, len(dataset.pictures), _BATCH):
            begin = time.perf_counter()
            ready, failed = _read_batch(dataset.pictures[start : start + _BATCH], protocol, size or 0)
            problems += failed
            kept += [(picture, sha256) for picture, sha256, _ in ready]
            reading += time.perf_counter() - begin
            if ready:
                images = np.stack([image for _, _, image in ready])
                for model, counted in zip(opened, tally, strict=True):
                    counted.run(model, images, [picture for picture, _, _ in ready])
            advance(min(start + _BATCH, len(dataset.pictures)), len(dataset.pictures))
        on.finish(f"classified {len(kept):,} pictures")
    return AccuracyResult(
        dataset,
        tuple(picture for picture, _ in kept),
        tuple(sha256 for _, sha256 in kept),
        tuple(problems),
        tuple(one.result(contender) for one, contender in zip(tally, contenders, strict=True)),
        reading,
    )


class _Tally:
    """The answers of one contender."""

    def __init__(self, dataset: Dataset) -> None:
        self._subset = dataset.subset
        self._answers: list[Answer] = []
        self._within: list[Answer] = []
        self._seconds = 0.0

    def run(self, model: "RunnableModel", images: "NDArray[np.float32]", pictures: Sequence[Picture]) -> None:
        import numpy as np

        begin = time.perf_counter()
        logits = np.asarray(model.run(images))
        self._seconds += time.perf_counter() - begin
        highest = max(label for picture in pictures for label in picture.labels)
        if highest >= logits.shape[1]:
            raise UsageError(f"pictures of class {highest}, and the model has classes 0 to {logits.shape[1] - 1}.")
        if not np.isfinite(logits).all():
            raise MixerError("the model gives outputs that are not finite.")
        self._answers += _answers(logits, pictures, None)
        if self._subset is not None:
            self._within += _answers(logits, pictures, self._subset)

    def result(self, contender: Contender) -> Measured:
        within = None if self._subset is None else tuple(self._within)
        return Measured(contender.backend, contender.model, tuple(self._answers), within, self._seconds)


def _answers(
    logits: "NDArray[np.float32]", pictures: Sequence[Picture], subset: Sequence[int] | None
) -> Iterator[Answer]:
    import numpy as np

    chosen = np.arange(logits.shape[1]) if subset is None else np.asarray(subset)
    best = np.argsort(-logits[:, chosen], axis=-1, kind="stable")[:, :TOP]
    for picture, top in zip(pictures, chosen[best].tolist(), strict=True):
        yield Answer(picture.labels, tuple(top))


def _read_batch(
    pictures: Sequence[Picture], protocol: "Protocol", size: int
) -> tuple[list[tuple[Picture, str, "NDArray[np.float32]"]], list[str]]:
    from models.pictures import decode, preprocess

    ready, problems = [], []

    def read(picture: Picture) -> "tuple[str, NDArray[np.float32]]":
        content = picture.path.read_bytes()
        return hashlib.sha256(content).hexdigest(), preprocess(decode(content, exif=False), protocol, size)

    for picture in pictures:
        found = attempt(lambda picture=picture: read(picture))  # type: ignore[misc]
        if isinstance(found, Failure):
            problems.append(f"{picture.path}: {found.reason}")
        else:
            ready.append((picture, *found))
    return ready, problems
