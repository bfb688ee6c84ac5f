"""The answers to all pictures as files: a table, and scalars for TensorBoard."""

import csv
import io
from pathlib import Path

from convert.pipeline.accuracy import AccuracyResult
from models.storage.files import placed_whole
from validation.accuracy.counts import count

_MOST_SCALARS = 100


def write_scalars(result: AccuracyResult, directory: Path) -> None:
    """Write top-1 and top-5 over growing parts of the pictures, a run for each backend."""
    from models.scalars import ScalarLog

    total = len(result.pictures)
    every = max(1, total // _MOST_SCALARS)
    for one in result.measured:
        log = ScalarLog(directory / one.backend)
        for done in sorted({*range(every, total, every), total}):
            part = one.answers[:done]
            log.write({"top-1": count(part, 1).value, "top-5": count(part, 5).value}, done)


def write_csv(result: AccuracyResult, path: Path) -> None:
    """Write a line for each picture and backend: labels, and the first five classes.

    Raises:
        OSError: the file cannot be written.
    """
    with placed_whole(path) as (_, file):
        text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(
            ("picture", "sha256", "labels", "backend", "right", "first", "second", "third", "fourth", "fifth")
        )
        for one in result.measured:
            for picture, sha256, answer in zip(result.pictures, result.sha256, one.answers, strict=True):
                labels = " ".join(map(str, picture.labels))
                writer.writerow((picture.path, sha256, labels, one.backend, int(answer.is_right(1)), *answer.top))
        text.detach()
