"""The answers of an accuracy run that was interrupted, so that the same run resumes where it stopped.

The file contains a line for each finished batch of pictures: a checksum and JSON. A batch is used only if the checksum
is right, if its pictures still have the same size and modification time, and if all batches before it are used.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from convert.checkpoints.cache import Slot
from convert.pipeline.contenders import Contender
from models.records.provenance import library_versions, sources_sha256
from models.storage.files import write_atomically
from validation.accuracy.dataset import Dataset, Picture

_SOURCES = (
    "convert/pipeline/accuracy.py",
    "convert/pipeline/contenders.py",
    "convert/pipeline/picture_work.py",
    "convert/pipeline/usable_model.py",
    "models/mixer.py",
    "models/pictures.py",
    "models/preprocessing.py",
    "models/resize.py",
    "validation/formats/runtimes.py",
)
"""Sources that decide the answers."""


class BatchAnswers(NamedTuple):
    """What was found in a batch of pictures; lists of decoded pictures leave out those with a problem."""

    sha256: list[str | None]
    """Of each picture's file; None if it could not be decoded."""
    problems: list[str | None]
    """Why a picture could not be decoded."""
    reading_seconds: float
    seconds: list[float]
    """Seconds that each model ran."""
    top: list[list[list[int]]]
    """For each model and decoded picture, the likeliest classes."""
    within: list[list[list[int]]]
    """The same among the classes that occur; empty if all do."""


@dataclass(frozen=True)
class Unfinished:
    """The file of one run: of these models on these pictures."""

    path: Path

    @classmethod
    def of(cls, cache: Path | None, contenders: Sequence[Contender], dataset: Dataset, protocol: str) -> Self:
        """Return the file of a run, by what decides its answers."""
        models = [
            [
                one.backend,
                str(one.model.path.absolute()),
                one.model.classes,
                str(one.source_path),
                one.original and [one.original.sha256, *map(repr, one.original.source.digests.entries)],
                list(_files(one.source_path)),
            ]
            for one in contenders
        ]
        run = [models, str(dataset.directory.absolute()), dataset.layout, dataset.subset, protocol]
        made = [library_versions(), sources_sha256(*_SOURCES)]
        key = hashlib.sha256(json.dumps([run, made]).encode()).hexdigest()
        return cls(Slot.of(f".accuracy/{key}.jsonl", cache).file)

    def read(self, batches: Sequence[Sequence[Picture]]) -> list[BatchAnswers]:
        """Return the answers to the first batches, as many as can be used, and drop all others from the file."""
        found: list[BatchAnswers] = []
        good: list[str] = []
        with suppress(OSError, ValueError, TypeError, KeyError):  # the last line of a killed process may be cut off
            for line, batch in zip(self.path.read_text(encoding="utf-8").splitlines(), batches, strict=False):
                checksum, _, content = line.partition(" ")
                entry = json.loads(content)
                if checksum != _checksum(content) or entry["pictures"] != state_of(batch):
                    break
                found.append(BatchAnswers(**entry["answers"]))
                good.append(f"{line}\n")
        with suppress(OSError):
            if self.path.exists():
                write_atomically(self.path, "".join(good).encode())
        return found

    def add(self, state: list[Any], answers: BatchAnswers) -> None:
        """Add the answers to the next batch, which was in this state before it was read.

        A full disk only means that the run cannot be resumed.
        """
        line = json.dumps({"pictures": state, "answers": answers._asdict()})
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{_checksum(line)} {line}\n")

    def remove(self) -> None:
        """Remove the file, as the run is finished."""
        with suppress(OSError):
            self.path.unlink()


def state_of(batch: Sequence[Picture]) -> list[Any]:
    """Return path, labels, size and modification time of pictures, in the form that JSON gives back."""
    state = []
    for picture in batch:
        found = None
        with suppress(OSError):
            stat = picture.path.stat()
            found = [stat.st_size, stat.st_mtime_ns]
        state.append([str(picture.path), list(picture.labels), found])
    return state


def _checksum(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()


def _files(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield name, size and modification time of a file, or of the files in a directory."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        with suppress(OSError):
            stat = file.stat()
            yield os.fspath(file.absolute()), stat.st_size, stat.st_mtime_ns
