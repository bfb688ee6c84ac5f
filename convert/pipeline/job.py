"""The work on the handles of one checkpoint, which is read once for all of them."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from convert.checkpoints.buffer import ReusableBuffer
from convert.checkpoints.fetch import Source
from convert.checkpoints.open import CustomCheckpoint, OpenCheckpoint
from convert.pipeline.convert_handle import Item
from convert.pipeline.for_each import Failure, attempt
from convert.pipeline.kept_graphs import KeptGraphs
from convert.pipeline.outcome import Outcome
from convert.pipeline.progress import Steps
from convert.pipeline.tracing import GraphKey, tracing_ahead
from export.install import held
from models.catalog import Handle
from models.errors import counted
from models.records.about import AboutRecord
from models.records.layout import ModelPaths
from models.records.manifest import Manifest
from models.records.report import InputsSet
from models.storage.files import sha256_of, write_atomically

if TYPE_CHECKING:
    import numpy as np

    from validation.gate import Gate
    from validation.previous.open import Published

WRITERS = 2
"""Models that are written and hashed at a time: both release the interpreter lock."""

Task = Literal["convert", "validate", "convert-all"]


@dataclass(frozen=True)
class Batch:
    """A task, and the handles to do it for."""

    task: Task
    handles: tuple[Handle, ...]
    source: Source
    out: Path
    version: int
    overwrite: bool = False
    custom: CustomCheckpoint | None = None
    """Used instead of the handles' own checkpoint; the handles give the architecture and the head."""
    inputs_set: InputsSet = "gate"
    explain: bool = False
    jobs: int = 1
    """How many processes may work at a time, each on a checkpoint."""
    memory: int | None = None
    """Bytes of memory that they may need together; None for the machine's."""
    published: "Published | None" = None
    """An earlier version of the only handle, to compare with."""
    kept: KeptGraphs | None = None
    """Graphs of earlier runs; None to trace each graph."""

    @property
    def items(self) -> tuple[Item, ...]:
        """The handles, each with its paths and its class list."""
        return tuple(map(self._item, self.handles))

    def _item(self, handle: Handle) -> Item:
        if self.custom is not None:
            named = replace(handle, name=self.custom.name).in_flavour(handle.flavour)
            return Item(handle, ModelPaths.of(self.out, named.name, self.version), self.custom.labels)
        labels = handle.labels.checked_path() if handle.labels else None
        return Item(handle, ModelPaths.of(self.out, handle.name, self.version), labels)

    def graphs_needed(self, items: Iterable[Item]) -> list[GraphKey]:
        """Return the graphs that are certainly needed: those of catalog handles without an existing model."""
        if self.custom is not None:
            return []
        return list(dict.fromkeys(item.graph_key for item in items if not item.paths.manifest.is_file()))

    def run_checkpoint(self, items: list[Item], steps: Steps, room: ReusableBuffer | None = None) -> Iterator[Outcome]:
        """Do the task for items of one checkpoint; yield each outcome as it comes."""
        # Nothing can be traced while checks run: see `tracing_ahead`.
        begin, needed = time.perf_counter(), self.graphs_needed(items) if self.task == "convert-all" else []
        with tracing_ahead(needed, self.kept) as stop_tracing:
            opened = attempt(lambda: _open(self, items, steps, room))
            if isinstance(opened, Failure):
                stop_tracing()
            elif needed:
                steps.start(f"tracing {counted(len(needed), 'graph')}")
        if isinstance(opened, Failure):
            for item in items:
                yield Outcome(item.paths.handle, problems=(opened.reason,), seconds=time.perf_counter() - begin)
            return
        items, checkpoint = opened
        if self.task == "convert":
            yield from _convert_all(self, items, checkpoint, steps)
            return
        from validation.gate import Gate

        labels = {item.handle: item.labels for item in items}
        gate = Gate(
            checkpoint,
            self.inputs_set,
            trace=lambda handle, found: GraphKey.of(handle, labels[handle] or found).graph().saved_model,
            write_steps=_write_steps,
            explain=self.explain,
            published=self.published,
        )

        def convert_and_check(item: Item) -> Outcome:
            with held(item.paths, to_make=self.task == "convert-all"):
                return _convert_and_check(self, item, checkpoint, gate, steps)

        for item in items:
            yield _run(item, checkpoint, convert_and_check)


def _write_steps(handle: Handle, arrays: Mapping[str, "np.ndarray"], directory: Path) -> None:
    """Write a SavedModel of the handle's graph that returns the activations after each step."""
    replace(GraphKey.of(handle, None), steps=True).graph().write(arrays, directory)


def _open(
    batch: Batch, items: list[Item], steps: Steps, room: ReusableBuffer | None
) -> tuple[list[Item], OpenCheckpoint]:
    """Open the checkpoint; items of a custom one get the number of classes of its head."""
    if batch.custom is not None:
        reading = steps.start(f"reading {batch.custom.path}")
        handle, checkpoint = batch.custom.open(items[0].handle, batch.source.digests, reading=reading)
        return [replace(item, handle=handle.in_flavour(item.handle.flavour)) for item in items], checkpoint
    row = items[0].handle.checkpoint
    advance = steps.start(f"loading {row.object}")
    return items, OpenCheckpoint.of_catalog(row, batch.source, fetching=advance, reading=advance, room=room)


def _run(item: Item, checkpoint: OpenCheckpoint, work: Callable[[Item], Outcome]) -> Outcome:
    begin = time.perf_counter()
    found = attempt(lambda: work(item))
    outcome = Outcome(item.handle.name, problems=(found.reason,)) if isinstance(found, Failure) else found
    return replace(
        outcome,
        origin=checkpoint.record.origin,
        parameters=item.handle.parameters,
        seconds=time.perf_counter() - begin,
    )


def _convert_all(batch: Batch, items: list[Item], checkpoint: OpenCheckpoint, steps: Steps) -> Iterator[Outcome]:
    def convert(item: Item) -> Outcome:
        return Outcome(item.handle.name, size=_convert(batch, item, checkpoint, steps).size, verdict="converted")

    with ThreadPoolExecutor(WRITERS) as pool:
        try:
            yield from pool.map(lambda item: _run(item, checkpoint, convert), items)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # running ones are waited for
            raise


def _convert(batch: Batch, item: Item, checkpoint: OpenCheckpoint, steps: Steps) -> Manifest:
    steps.start(f"converting {item.paths.handle}")
    overwrite = batch.overwrite or (batch.task == "convert-all" and _is_earlier(batch, item.paths, checkpoint))
    with held(item.paths, to_make=batch.custom is not None):  # with what is said about it
        manifest = item.write(checkpoint, overwrite=overwrite, kept=batch.kept)
        _write_about(batch, item)
    return manifest


def _write_about(batch: Batch, item: Item) -> None:
    """Write what is said about a custom model, which may be said of an existing model too."""
    if batch.custom is not None and batch.custom.about is not None:
        digest = sha256_of(item.paths.manifest)
        record = AboutRecord(
            handle=item.paths.handle, version=item.paths.version, manifest_sha256=digest, about=batch.custom.about
        )
        write_atomically(item.paths.about, record.to_bytes())


def _convert_and_check(batch: Batch, item: Item, checkpoint: OpenCheckpoint, gate: "Gate", steps: Steps) -> Outcome:
    if batch.task == "convert-all":
        if item.paths.manifest.is_file():
            steps.start(f"comparing {item.paths.handle} with its records")
        report = item.find_current(checkpoint)
        if report is not None:
            _write_about(batch, item)
            return Outcome.of(item.paths, report, kept=True)
    if batch.task != "validate":
        _convert(batch, item, checkpoint, steps)
    steps.start(f"checking {item.paths.handle}")
    return Outcome.of(item.paths, gate.check(item.handle, item.paths), kept=False)


def _is_earlier(batch: Batch, paths: ModelPaths, checkpoint: OpenCheckpoint) -> bool:
    """Return whether the existing model was made earlier from this handle, or from this very custom checkpoint."""
    if not paths.manifest.is_file() or batch.custom is None:
        return paths.manifest.is_file()
    return Manifest.read(paths.manifest).checkpoint.sha256 == checkpoint.record.sha256
