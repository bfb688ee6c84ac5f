"""The answers to all pictures as files: a table, a picture, and scalars for TensorBoard."""

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from convert.pipeline.accuracy import AccuracyResult
from models.errors import UsageError
from models.storage.files import written_whole
from models.storage.temporary import temporary_folder
from validation.accuracy.counts import Share

_MOST_SCALARS = 100
_COLUMNS = ("picture", "sha256", "labels", "backend", "right", "first", "second", "third", "fourth", "fifth")
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class AccuracyFiles:
    """What is to be written about a measurement; None of what was not asked for."""

    csv: Path | None
    """A line for each picture and backend: labels, and the first five classes."""
    confusion: Path | None
    """A picture of which classes the first model takes for which."""
    tensorboard: Path | None
    """A directory: top-1 and top-5 over growing parts of the pictures, a run for each backend."""

    def check(self, data: Path) -> None:
        """Refuse files that could not be written after the measurement, or would replace something else.

        `data` is where the pictures are.

        Raises:
            UsageError: some cannot be used; all are named.
        """
        given = {"--csv": self.csv, "--confusion": self.confusion, "--tensorboard": self.tensorboard}
        outputs = {option: path for option, path in given.items() if path is not None}
        problems = [problem for option, path in outputs.items() for problem in _problems_of(option, path, data)]
        if len({path.resolve() for path in outputs.values()}) < len(outputs):
            problems.append(f"{', '.join(outputs)} are to be written to the same place: give each its own.")
        if problems:
            raise UsageError("\n".join(problems))

    def write(self, result: AccuracyResult) -> list[Path]:
        """Write them, and return their paths.

        Raises:
            OSError: one cannot be written.
        """
        if self.csv is not None:
            _write_csv(result, self.csv)
        if self.confusion is not None:
            from validation.accuracy.plot import draw_confusion

            first = result.measured[0]
            draw_confusion(first.answers, first.model.classes, self.confusion)
        if self.tensorboard is not None:
            _write_scalars(result, self.tensorboard)
        return [path for path in (self.csv, self.confusion, self.tensorboard) if path is not None]


def _problems_of(option: str, path: Path, data: Path) -> Iterator[str]:
    """Yield why an output cannot be written."""
    if os.path.isdir(data) and path.resolve().is_relative_to(data.resolve()):  # noqa: PTH112
        yield f"{option} {path} is inside --data, where it would be taken for a part of the data: give another place."
    if option == "--tensorboard":
        found = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
    else:
        yield from _problems_of_file(option, path)
        found = path.parent
    if not found.is_dir():
        what = "is not a directory" if os.path.lexists(found) else "does not exist"
        yield f"{option} {path} cannot be written: the directory {found} {what}."
        return
    try:
        with temporary_folder(found, ".writable-"):
            pass
    except OSError as error:
        yield f"{option} {path} cannot be written: the directory {found} is not writable ({error.strerror})."


def _problems_of_file(option: str, path: Path) -> Iterator[str]:
    """Yield what must not be replaced, and a name that says another kind of file."""
    begins, what = {"--csv": (",".join(_COLUMNS).encode(), "a table"), "--confusion": (_PNG, "a PNG picture")}[option]
    if option == "--confusion" and path.suffix.lower() != ".png":
        yield f"{option} {path} would be {what}: give a name that ends in .png."
    if path.is_dir():
        yield f"{option} {path} is a directory: give the name of a file."
    elif os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        yield f"{option} {path} is not a regular file, and would be replaced by one: give another name."
    elif path.is_file() and not _begins_with(path, begins):
        yield f"{option} {path} exists, and is not {what} of this command: give another name, or delete it first."


def _begins_with(path: Path, begins: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(begins)) == begins


def _write_csv(result: AccuracyResult, path: Path) -> None:
    with written_whole(path) as file:
        text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for one in result.measured:
            for picture, sha256, answer in zip(result.pictures, result.sha256, one.answers, strict=True):
                labels = " ".join(map(str, picture.labels))
                writer.writerow((picture.path, sha256, labels, one.backend, int(answer.is_right(1)), *answer.top))
        text.detach()


def _write_scalars(result: AccuracyResult, directory: Path) -> None:
    from models.scalars import ScalarLog

    total = len(result.pictures)
    every = max(1, total // _MOST_SCALARS)
    for one in result.measured:
        log = ScalarLog(directory / one.backend)
        for done in sorted({*range(every, total, every), total}):
            part = one.answers[:done]
            log.write({"top-1": Share.of(part, 1).value, "top-5": Share.of(part, 5).value}, done)
