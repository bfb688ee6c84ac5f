"""Classify pictures with a model of any format."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from convert.pipeline.for_each import Failure, attempt
from convert.pipeline.frameworks import import_frameworks
from convert.pipeline.progress import Watch, steps
from convert.pipeline.usable_model import UsableModel
from models.errors import MixerError, UsageError
from models.picture_files import MOST_BYTES, SUFFIXES, Listing, read_picture
from models.preprocessing import Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from validation.formats.runtimes import RunnableModel

STDIN = "-"
"""The name that stands for a picture on standard input."""

_BATCH = 16


@dataclass(frozen=True)
class Score:
    """A class that a model finds in a picture."""

    index: int
    name: str | None
    probability: float
    """By softmax, or by sigmoid for a model that was trained with several labels per image; for display only."""
    logit: float


@dataclass(frozen=True)
class Classified:
    """The result for one picture: the likeliest classes first, or why there are none."""

    picture: str
    scores: tuple[Score, ...] = ()
    problem: str | None = None


def find_pictures(given: Sequence[str]) -> list[str]:
    """Return the files that are given and those in the given folders (recursively), each once.

    A folder gives the files whose names end as those of pictures do; hidden files and links to folders are left out.

    Raises:
        UsageError: a path does not exist, or a folder contains no picture; all such paths are named.
    """
    found: list[str] = []
    problems = []
    for one in given:
        path = Path(one)
        if one == STDIN:
            found.append(one)
        elif os.path.isdir(path):  # noqa: PTH112 (unlike Path.is_dir it does not raise in an unreadable folder)
            below = [str(file) for file in _pictures_in(path)]
            found += below
            if not below:
                problems.append(f"{path} contains no picture: expected files that end in {', '.join(SUFFIXES)}.")
        elif os.path.isfile(path):  # noqa: PTH113
            found.append(one)
        else:
            there = os.path.lexists(path)
            problems.append(f"{path} {'is not a file' if there else 'does not exist'}: expected a picture.")
    if problems:
        raise UsageError("\n".join(problems))
    return list(dict.fromkeys(found))


def _pictures_in(folder: Path) -> Iterator[Path]:
    listing = Listing.of(folder)
    yield from listing.pictures
    for below in listing.folders:
        if not below.is_symlink():  # it may lead back here
            yield from _pictures_in(below)


def classify_pictures(
    model: UsableModel,
    pictures: Sequence[str],
    watch: Watch | None = None,
    *,
    top: int = 5,
    protocol: Protocol = "paper",
    exif: bool = True,
    stdin: BinaryIO | None = None,
) -> list[Classified]:
    """Classify pictures; one that cannot be read gets a problem, and the others go on.

    Args:
        model: the classifier.
        pictures: paths of files; `-` is read from `stdin`.
        watch: called with the progress.
        top: the most classes to return for a picture.
        protocol: how pictures are resized.
        exif: turn pictures upright by their EXIF orientation.
        stdin: where the picture `-` comes from.

    Raises:
        MixerError: the model cannot be used.
    """
    import_frameworks()
    import numpy as np

    results: dict[str, Classified] = {}
    with steps(watch, len(pictures)) as on:
        on.start(f"loading {model.path}")
        opened = model.open()
        advance = on.start(f"classifying with {model.name}", "pictures")
        for start in range(0, len(pictures), _BATCH):
            batch = pictures[start : start + _BATCH]
            advance(start, len(pictures))
            ready: dict[str, NDArray[np.float32]] = {}
            for name in batch:
                image = attempt(lambda name=name: _read(name, opened, protocol, exif, stdin))  # type: ignore[misc]
                if isinstance(image, Failure):
                    results[name] = Classified(name, problem=image.reason)
                else:
                    ready[name] = image
            if ready:
                logits = np.asarray(opened.run(np.stack(list(ready.values()))))
                for name, of_picture in zip(ready, logits, strict=True):
                    results[name] = _result(name, of_picture, model, top)
            for name in batch:
                problem = results[name].problem
                on.finish(f"{name}: {problem}" if problem else "")
    return [results[name] for name in pictures]


def _read(
    name: str, model: "RunnableModel", protocol: Protocol, exif: bool, stdin: BinaryIO | None
) -> "NDArray[np.float32]":
    from models.pictures import decode, preprocess

    size = model.takes[0][2][1]
    content = stdin.read(MOST_BYTES) if name == STDIN and stdin is not None else read_picture(Path(name))
    return preprocess(decode(content, exif=exif), protocol, size or 0)


def _result(name: str, logits: "NDArray[np.float32]", model: UsableModel, top: int) -> Classified:
    import numpy as np

    if not np.isfinite(logits).all():
        return Classified(name, problem="the model gives outputs that are not finite")
    wide = logits.astype(np.float64)
    probabilities = 0.5 * (1 + np.tanh(wide / 2)) if model.many_labels else softmax(wide)
    best = np.argsort(-wide, kind="stable")[:top]
    names = model.classes
    return Classified(
        name,
        tuple(
            Score(int(index), names[index] if names else None, float(probabilities[index]), float(wide[index]))
            for index in best
        ),
    )


def softmax(logits: "NDArray[Any]") -> "NDArray[np.float64]":
    """Return the probabilities `[..., classes]` of logits of the same shape, computed in float64."""
    import numpy as np

    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    probabilities: NDArray[np.float64] = powers / powers.sum(-1, keepdims=True)
    return probabilities


def raise_unreadable(results: Sequence[Classified]) -> None:
    """Raise an error that names the pictures that could not be classified, if there are any.

    Raises:
        MixerError: some could not.
    """
    problems = [f"{one.picture}: {one.problem}" for one in results if one.problem]
    if problems:
        raise MixerError("\n".join((f"{len(problems)} of {len(results)} pictures were not classified.", *problems)))
