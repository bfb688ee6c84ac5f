"""Open a checkpoint of the catalog or a custom one: its params in memory, and its record."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np

from convert.checkpoints.buffer import ReusableBuffer
from convert.checkpoints.fetch import Source
from convert.checkpoints.npz import CheckpointError, opened, read_contents
from convert.checkpoints.reader import LoadedCheckpoint, load_checkpoint
from models.catalog import Checkpoint, Handle, Head
from models.digests import DigestTable
from models.errors import MixerError, UsageError, counted
from models.params import Params
from models.progress import Progress
from models.records.about import About
from models.records.manifest import CheckpointRecord
from models.records.report import ZERO_HEAD
from models.selection import custom_handle
from models.storage.files import read_small

_LOG = logging.getLogger(__name__)

_LONGEST_LABEL, _MOST_LABELS = 1000, 1 << 25  # bytes per line on average, and in all: ImageNet-21k has 30, 0.6 MB


class OpenCheckpoint:
    """A checkpoint and its record; its params are in memory, or read again when next used."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        path: Path,
        loaded: LoadedCheckpoint,
        record: CheckpointRecord,
        *,
        load: Callable[[], LoadedCheckpoint],
        prefix: str = "",
    ) -> None:
        self.checkpoint = checkpoint
        self.path = path
        self.record = record
        self.prefix = prefix
        """What the names in the file begin with, and those of the params do not."""
        self._load = load
        self._loaded: LoadedCheckpoint | None = loaded

    @classmethod
    def of_catalog(
        cls,
        checkpoint: Checkpoint,
        source: Source,
        *,
        fetching: Progress | None = None,
        reading: Progress | None = None,
        room: ReusableBuffer | None = None,
    ) -> Self:
        """Fetch and load a checkpoint of the catalog, into `room` if it is given.

        Raises:
            MixerError: it cannot be fetched, is not what it should be, or differs from its recorded original.
        """
        file = source.fetch(checkpoint, progress=fetching)
        load = partial(load_checkpoint, file.path, checkpoint.architecture, num_classes=checkpoint.num_classes)
        loaded = load(progress=reading, room=room)
        origin = source.digests.origin_of(checkpoint.object, loaded.sha256)
        entry = source.digests.find(checkpoint.object, "original")
        if origin == "unknown" and entry is not None:
            raise MixerError(
                f"{file.path} has sha256 {loaded.sha256}, expected that of the recorded original, {entry.sha256}: it "
                "was damaged or changed. Fetch it again; convert custom weights with --checkpoint and --name; record "
                "an updated original with `mixer-jax2tf fetch --record`."
            )
        record = CheckpointRecord(
            name=checkpoint.name,
            object=checkpoint.object,
            url=file.url,
            sha256=loaded.sha256,
            size=loaded.size,
            origin=origin,
        )
        return cls(checkpoint, file.path, loaded, record, load=load)

    @property
    def loaded(self) -> LoadedCheckpoint:
        """The loaded checkpoint; read again if it was released.

        Raises:
            MixerError: it was released, and the file has changed since.
        """
        if self._loaded is None:
            loaded = self._load()
            if loaded.sha256 != self.record.sha256:
                raise MixerError(
                    f"{self.path} changed while it was in use: sha256 {loaded.sha256}, expected "
                    f"{self.record.sha256}. Wait until it is written, then try again."
                )
            self._loaded = loaded
        return self._loaded

    @property
    def params(self) -> Params:
        """The params of the classifier."""
        return self.loaded.params

    def for_head(self, head: Head) -> Params:
        """Return the params of a handle with that head."""
        return self.loaded.for_head(head)

    def release(self) -> None:
        """Drop the params, so that their memory is free for other work unless something else references them."""
        self._loaded = None


@dataclass(frozen=True)
class CustomCheckpoint:
    """A custom checkpoint, the name of its model, and its class list."""

    path: Path
    name: str
    labels: Path | None = None
    strip_prefix: str = ""
    """What the names of its arrays begin with, such as `params/`; arrays of other names are ignored."""
    about: About | None = None
    """What its owner says about it, for cards; written beside its models."""

    def refuse_unreadable(self) -> None:
        """Refuse a file that is no archive, before JAX and TensorFlow are imported; contents are not read.

        Raises:
            UsageError: it cannot be read, or is something else; the message says what.
        """
        try:
            with opened(self.path) as file:
                try:
                    read_contents(file, os.fstat(file.fileno()).st_size)
                except CheckpointError as error:
                    raise CheckpointError(
                        f"{self.path}: {error}\nExpected an archive (.npz) written by np.savez."
                    ) from None
        except CheckpointError as error:
            raise UsageError(f"--checkpoint {error}") from error

    def open(
        self, template: Handle, digests: DigestTable, *, reading: Progress | None = None
    ) -> tuple[Handle, OpenCheckpoint]:
        """Load it with the architecture and head of `template`, and the classes of its own head.

        A feature extractor's file may lack the head.

        Raises:
            MixerError: the file is not such a Mixer, or the class list has another length.
        """
        load = partial(
            load_checkpoint,
            self.path,
            template.checkpoint.architecture,
            num_classes=None,
            needs_head=template.head == "classification",
            strip_prefix=self.strip_prefix,
        )
        loaded = load(progress=reading)
        if template.head == "classification" and not np.any(loaded.params["head"]["kernel"]):
            _LOG.warning("%s: %s: this head was never trained.", self.path, ZERO_HEAD)
        handle = custom_handle(template, self.name, loaded.num_classes)
        if self.labels is not None:
            _check_class_list(self.labels, loaded.num_classes, self.path)
        seeded = [entry for entry in digests.entries if entry.origin == "seeded"]
        record = CheckpointRecord(
            name=self.name,
            object=self.path.name,
            url=f"file:{self.path.name}",  # its directory stays private
            sha256=loaded.sha256,
            size=loaded.size,
            origin="seeded" if any(entry.sha256 == loaded.sha256 for entry in seeded) else "own",
        )
        return handle, OpenCheckpoint(handle.checkpoint, self.path, loaded, record, load=load, prefix=self.strip_prefix)


def _check_class_list(labels: Path, classes: int, checkpoint: Path) -> None:
    content = read_small(labels, min(_LONGEST_LABEL * classes, _MOST_LABELS))
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise MixerError(f"{labels} is not UTF-8 text ({error.reason}): expected one line per class.") from error
    lines = content.removesuffix(b"\n").count(b"\n") + 1 if content else 0
    if lines != classes:
        raise MixerError(
            f"{labels} has {counted(lines, 'line')}, expected one for each of the {classes} classes of {checkpoint}."
        )
