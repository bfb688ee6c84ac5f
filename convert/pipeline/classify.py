"""Classify pictures with a model of any format."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from convert.pipeline.for_each import Failure, attempt
from convert.pipeline.frameworks import import_frameworks
from convert.pipeline.picture_work import Run, run_here
from convert.pipeline.progress import Event, Steps, Watch
from convert.pipeline.usable_model import UsableModel
from models.errors import UsageError, shown
from models.picture_files import MOST_BYTES, SUFFIXES, Listing, read_picture
from models.preprocessing import Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from validation.formats.runtimes import RunnableModel

STDIN = "-"
"""The name that stands for a picture on standard input."""

_BATCH = 16
_ENDINGS = ", ".join(SUFFIXES)


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


def find_pictures(given: Sequence[str], watch: Watch | None = None) -> dict[str, str | None]:
    """Return the files that are given and those in the given folders (recursively), each once, with what is wrong.

    A folder gives the files whose names end as those of pictures do; others are left out, which is noted. Hidden files
    and links to folders are left out too.

    Args:
        given: paths of files and folders; `-` is standard input.
        watch: called with notes for the user.

    Returns:
        By path, None or why there is no picture: it does not exist, or is a folder that contains none or cannot be
        read.

    Raises:
        UsageError: there is no picture at all; all paths are named.
    """
    found: dict[str, str | None] = {}
    others: list[Path] = []
    for one in given:
        path = Path(one)
        if one == STDIN:
            found[one] = None
        elif os.path.isdir(path):  # noqa: PTH112 (unlike Path.is_dir it does not raise in an unreadable folder)
            found |= _find_below(path, others) or {one: "contains no picture"}
        else:
            found[one] = None if os.path.isfile(path) else _why_not(path)  # noqa: PTH113
    if all(found.values()):
        problems = [f"{name} {why}." for name, why in found.items()]
        raise UsageError("\n".join((*problems, f"Expected pictures, or folders of files that end in {_ENDINGS}.")))
    if others and watch is not None:
        watch(Event("noted", _left_out(others)))
    return found


def _left_out(files: Sequence[Path]) -> str:
    first = shown(files[0], 300)
    if len(files) == 1:
        return f"{first} was left out, as it does not look like a picture: if it is one, give its own path."
    return (
        f"{len(files):,} files were left out, as they do not look like pictures, the first of them {first}: if one of "
        "them is a picture, give its own path."
    )


def _why_not(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        return f"is a link to {shown(path.readlink(), 300)}, which does not exist"
    return "is not a file" if os.path.lexists(path) else "does not exist"


def _find_below(folder: Path, others: list[Path]) -> dict[str, str | None]:
    """Return the pictures in a folder and in those below it, and why folders among them cannot be read.

    Files that are no pictures are added to `others`.
    """
    found: dict[str, str | None] = {}
    folders = [folder]
    while folders:
        here = folders.pop(0)
        try:
            listing = Listing.of(here)
        except UsageError as error:
            found[str(here)] = str(error).removeprefix(f"{here} ").removesuffix(".")
            continue
        found |= dict.fromkeys(map(str, listing.pictures))
        others += listing.others
        folders[:0] = [below for below in listing.folders if not below.is_symlink()]  # a link may lead back here
    return found


def classify_pictures(
    model: UsableModel,
    found: Mapping[str, str | None],
    watch: Watch | None = None,
    *,
    top: int = 5,
    protocol: Protocol = "paper",
    exif: bool = True,
    stdin: BinaryIO | None = None,
    run: Run = run_here,
) -> list[Classified]:
    """Classify the pictures that were found; what cannot be read gets a problem, and the others go on.

    Args:
        model: the classifier.
        found: what `find_pictures` found; `-` is read from `stdin`.
        watch: called with the progress.
        top: the most classes to return for a picture.
        protocol: how pictures are resized.
        exif: turn pictures upright by their EXIF orientation.
        stdin: where the picture `-` comes from; it stays in this process.
        run: where the batches are computed.

    Raises:
        MixerError: the model cannot be used.
    """
    import_frameworks()
    pictures = [name for name, why in found.items() if why is None]
    results: dict[str, Classified] = {}
    work = _Classifying(model, top, protocol, exif, stdin)
    with Steps(watch, len(pictures)) as on:
        on.start(f"loading {model.path}")
        models = work.open()
        advance = on.start(f"classifying with {model.name}", "pictures")
        advance(0, len(pictures))
        batches = [pictures[start : start + _BATCH] for start in range(0, len(pictures), _BATCH)]
        for answers in run(work, models, batches):
            for one in answers:
                results[one.picture] = one
                on.finish(f"{one.picture}: {one.problem}" if one.problem else "")
            advance(len(results), len(pictures))
    return [results[name] if why is None else Classified(name, problem=why) for name, why in found.items()]


@dataclass(frozen=True)
class _Classifying:
    """The work on each batch of pictures."""

    model: UsableModel
    top: int
    protocol: Protocol
    exif: bool
    stdin: BinaryIO | None

    def open(self) -> "list[RunnableModel]":
        """Load the model."""
        return [self.model.open()]

    def read(self, batch: Sequence[str], size: int) -> "dict[str, NDArray[np.float32] | Failure]":
        """Read and preprocess the pictures."""
        return {name: attempt(partial(self._read, name, size)) for name in batch}

    def answer(
        self, models: "Sequence[RunnableModel]", read: "dict[str, NDArray[np.float32] | Failure]"
    ) -> list[Classified]:
        """Run the model on those pictures that could be read."""
        import numpy as np

        ready = {name: image for name, image in read.items() if not isinstance(image, Failure)}
        logits = np.asarray(models[0].run(np.stack(list(ready.values())))) if ready else ()
        results = {
            name: _result(name, of_picture, self.model, self.top)
            for name, of_picture in zip(ready, logits, strict=True)
        }
        return [
            Classified(name, problem=image.reason) if isinstance(image, Failure) else results[name]
            for name, image in read.items()
        ]

    def _read(self, name: str, size: int) -> "NDArray[np.float32]":
        from models.pictures import decode, preprocess

        stdin = self.stdin if name == STDIN else None
        content = read_picture(Path(name)) if stdin is None else stdin.read(MOST_BYTES)
        return preprocess(decode(content, exif=self.exif), self.protocol, size)


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
