"""Open a checkpoint of the catalog or a custom one: its params in memory, and its record."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from convert.checkpoints.buffer import ReusableBuffer
from convert.checkpoints.fetch import Outage, fetch, file_url
from convert.checkpoints.reader import LoadedCheckpoint, load_checkpoint
from models.catalog import Checkpoint, Handle, Head
from models.digests import DigestTable
from models.errors import MixerError, counted
from models.params import Params
from models.progress import Progress
from models.records.about import About
from models.records.manifest import CheckpointRecord
from models.records.report import ZERO_HEAD
from models.selection import custom_handle
from models.storage.files import read_small

_LOG = logging.getLogger(__name__)

_LONGEST_LABEL, _MOST_LABELS = 1000, 1 << 25  # bytes per line on average, and in all: ImageNet-21k has 30, 0.6 MB


@dataclass(frozen=True)
class Source:
    """Where checkpoints come from, and their recorded digests."""

    source: str
    cache: Path | None
    digests: DigestTable
    outage: Outage = field(default_factory=Outage, compare=False, repr=False)


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


def open_catalog(
    checkpoint: Checkpoint,
    source: Source,
    *,
    fetching: Progress | None = None,
    reading: Progress | None = None,
    room: ReusableBuffer | None = None,
) -> OpenCheckpoint:
    """Fetch and load a checkpoint of the catalog, into `room` if it is given.

    Raises:
        MixerError: it cannot be fetched, is not what it should be, or differs from its recorded original.
    """
    file = fetch(
        checkpoint,
        source=source.source,
        cache=source.cache,
        digests=source.digests,
        outage=source.outage,
        progress=fetching,
    )
    load = partial(load_checkpoint, file.path, checkpoint.architecture, num_classes=checkpoint.num_classes)
    loaded = load(progress=reading, room=room)
    origin = source.digests.origin_of(checkpoint.object, loaded.sha256)
    entry = source.digests.find(checkpoint.object, "original")
    if origin == "unknown" and entry is not None:
        raise MixerError(
            f"{file.path} has sha256 {loaded.sha256}, expected that of the recorded original, {entry.sha256}: it was "
            "damaged or changed. Fetch it again; convert custom weights with --checkpoint and --name; record an "
            "updated original with `mixer-jax2tf fetch --record`."
        )
    record = CheckpointRecord(
        name=checkpoint.name,
        object=checkpoint.object,
        url=file.url,
        sha256=loaded.sha256,
        size=loaded.size,
        origin=origin,
    )
    return OpenCheckpoint(checkpoint, file.path, loaded, record, load=load)


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


def open_custom(
    custom: CustomCheckpoint, template: Handle, digests: DigestTable, *, reading: Progress | None = None
) -> tuple[Handle, OpenCheckpoint]:
    """Load a custom checkpoint with the architecture and head of `template`, and the classes of its own head.

    A feature extractor's file may lack the head.

    Raises:
        MixerError: the file is not such a Mixer, or the class list has another length.
    """
    load = partial(
        load_checkpoint,
        custom.path,
        template.checkpoint.architecture,
        num_classes=None,
        needs_head=template.head == "classification",
        strip_prefix=custom.strip_prefix,
    )
    loaded = load(progress=reading)
    if template.head == "classification" and not np.any(loaded.params["head"]["kernel"]):
        _LOG.warning("%s: %s: this head was never trained.", custom.path, ZERO_HEAD)
    handle = custom_handle(template, custom.name, loaded.num_classes)
    if custom.labels is not None:
        _check_class_list(custom.labels, loaded.num_classes, custom.path)
    seeded = [entry for entry in digests.entries if entry.origin == "seeded"]
    record = CheckpointRecord(
        name=custom.name,
        object=custom.path.name,
        url=file_url(custom.path.name),
        sha256=loaded.sha256,
        size=loaded.size,
        origin="seeded" if any(entry.sha256 == loaded.sha256 for entry in seeded) else "own",
    )
    opened = OpenCheckpoint(handle.checkpoint, custom.path, loaded, record, load=load, prefix=custom.strip_prefix)
    return handle, opened


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
