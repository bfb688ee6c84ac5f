"""The stages that a handle goes through, each giving plain values to the next."""

from dataclasses import dataclass
from pathlib import Path

from convert.checkpoint import LoadedCheckpoint, load_checkpoint
from convert.cli.graphs import Kind, graph_of
from convert.fetch import fetch, file_url
from convert.room import Room
from export.destination import install, refuse_existing, staged
from models.catalog import Checkpoint, Handle, own_handle
from models.digests import DigestTable
from models.errors import MixerError
from models.files import read_small
from models.params import flatten
from models.paths import ModelPaths
from models.progress import Progress
from models.records import CheckpointRecord, Manifest
from models.report import Report
from models.tolerances import TOLERANCES

_LONGEST_LABEL, _MOST_LABELS = 1000, 1 << 25  # bytes of a line, on average, and of all: ImageNet-21k's have 30, 0.6 MB


@dataclass(frozen=True)
class Source:
    """Where checkpoints come from, and what is known of them."""

    source: str
    cache: Path | None
    digests: DigestTable


class Material:
    """A checkpoint and the record of what it is; its parameters are in memory, or read again when next asked for."""

    def __init__(self, checkpoint: Checkpoint, path: Path, loaded: LoadedCheckpoint, record: CheckpointRecord) -> None:
        self.checkpoint = checkpoint
        self.path = path
        self.record = record
        self._loaded: LoadedCheckpoint | None = loaded

    @property
    def loaded(self) -> LoadedCheckpoint:
        """The parameters.

        Raises:
            MixerError: they were let go, and the file is not what it was any more.
        """
        if self._loaded is None:
            loaded = load_checkpoint(self.path, self.checkpoint.architecture, num_classes=self.checkpoint.num_classes)
            if loaded.sha256 != self.record.sha256:
                raise MixerError(
                    f"{self.path} changed while it was worked with: sha256 {loaded.sha256}, expected "
                    f"{self.record.sha256}. Wait until it is written, then try again."
                )
            self._loaded = loaded
        return self._loaded

    def let_go(self) -> None:
        """Free the memory of the parameters, for work that needs it more, where nobody else holds them."""
        self._loaded = None


def bring(
    checkpoint: Checkpoint, source: Source, *, fetching: Progress, reading: Progress, room: Room | None = None
) -> Material:
    """Fetch and load a checkpoint of the catalog; into `room`, where that is given.

    Raises:
        MixerError: it cannot be had, is not what it should be, or differs from its recorded original.
    """
    file = fetch(checkpoint, source=source.source, cache=source.cache, digests=source.digests, progress=fetching)
    classes = checkpoint.num_classes
    loaded = load_checkpoint(file.path, checkpoint.architecture, num_classes=classes, progress=reading, room=room)
    origin = source.digests.origin_of(checkpoint.object, loaded.sha256)
    entry = source.digests.find(checkpoint.object, "original")
    if origin == "unknown" and entry is not None:
        raise MixerError(
            f"{file.path} has sha256 {loaded.sha256}, expected that of the recorded original, {entry.sha256}: it was "
            "damaged or changed. Fetch it anew; convert weights of your own with --checkpoint and --name; accept an "
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
    return Material(checkpoint, file.path, loaded, record)


@dataclass(frozen=True)
class OwnFile:
    """One's own checkpoint, the name its model gets, and its class list."""

    path: Path
    name: str
    labels: Path | None


def bring_own(own: OwnFile, template: Handle, digests: DigestTable, *, reading: Progress) -> tuple[Handle, Material]:
    """Load one's own Mixer: the architecture and head of `template`, the classes of the file's head.

    Raises:
        MixerError: the file is not such a Mixer, or the class list has another length.
    """
    loaded = load_checkpoint(own.path, template.checkpoint.architecture, num_classes=None, progress=reading)
    handle = own_handle(template, own.name, loaded.num_classes)
    if own.labels is not None:
        _check_class_list(own.labels, loaded.num_classes, own.path)
    seeded = [entry for entry in digests.entries if entry.origin == "seeded"]
    record = CheckpointRecord(
        name=own.name,
        object=own.path.name,
        url=file_url(own.path.name),
        sha256=loaded.sha256,
        size=loaded.size,
        origin="seeded" if any(entry.sha256 == loaded.sha256 for entry in seeded) else "own",
    )
    return handle, Material(handle.checkpoint, own.path, loaded, record)


def _check_class_list(labels: Path, classes: int, checkpoint: Path) -> None:
    content = read_small(labels, min(_LONGEST_LABEL * classes, _MOST_LABELS))
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise MixerError(f"{labels} is not UTF-8 text ({error.reason}): expected one line a class.") from error
    lines = content.removesuffix(b"\n").count(b"\n") + 1 if content else 0
    if lines != classes:
        raise MixerError(f"{labels} has {lines} lines, expected one for each of the {classes} classes of {checkpoint}.")


def describe(handle: Handle, material: Material, version: int, directory: Path | None) -> Manifest:
    """Return the manifest of the handle made here and now from this material."""
    from convert.native import PLATFORMS
    from export import manifest

    return manifest.describe(handle, material.record, version=version, platforms=PLATFORMS, directory=directory)


def write(
    handle: Handle,
    material: Material,
    destination: ModelPaths,
    *,
    labels: Path | None,
    overwrite: bool,
) -> Manifest:
    """Convert a handle and put its SavedModel and manifest in place."""
    from export.extras import write_extras

    with staged(destination) as stage:
        if not overwrite:
            refuse_existing(destination)
        graph = graph_of(Kind.of(handle, labels))
        graph.write(flatten(material.loaded.for_head(handle.head)), stage, labels=labels)
        write_extras(stage, handle, destination.version, material.record, labels=labels)
        manifest = describe(handle, material, destination.version, stage)
        install(stage, destination, manifest, overwrite=overwrite)
    return manifest


def find_current(handle: Handle, material: Material, destination: ModelPaths) -> Report | None:
    """Return the passing report of what stands at the destination, if all of it is what would be made now."""
    from export.manifest import is_current
    from validation import report as reports

    expected = describe(handle, material, destination.version, None)
    try:
        report = Report.read(destination.report)
    except MixerError:
        return None
    if not is_current(destination, expected):
        return None
    current = reports.is_current(report, destination.manifest.read_bytes())
    proven = report.verdict == "passed" and not any(report.contradictions(TOLERANCES))
    return report if current and proven else None
