"""Many handles in one process: each is finished or fails by itself, and the summary tells."""

import logging
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from convert.cli import show, stages
from convert.cli.frameworks import import_frameworks, imports_passed_over
from convert.cli.graphs import Kind, tracing_ahead
from convert.cli.outcomes import Outcome, judged
from convert.cli.workers import run_in_processes
from convert.room import Room
from export.destination import held, prepare_out, refuse_foreign, tidy
from models.catalog import Handle, own_handle
from models.errors import MixerError, UsageError
from models.paths import ModelPaths
from models.records import Manifest

if TYPE_CHECKING:
    from convert.cli.checking import Checker
    from validation.published import Published

LOG = logging.getLogger(__name__)

BYTES_PER_PARAMETER = 4
BYTES_OF_GRAPH = 8 << 20
"""Allowed for what a model's directory holds beside its variables."""
BYTES_OF_GAPS = 1 << 20
"""Allowed for what a checkpoint's file holds beside its arrays, or memory between them."""

WRITERS = 2
"""Models that are written and hashed at a time: neither is Python's own work."""

Task = Literal["convert", "validate", "convert-all"]


@dataclass(frozen=True)
class Batch:
    """What is to be done with which handles."""

    task: Task
    handles: tuple[Handle, ...]
    source: stages.Source
    out: Path
    version: int
    overwrite: bool = False
    own: stages.OwnFile | None = None
    inputs_set: Literal["gate", "full"] = "gate"
    explain: bool = False
    jobs: int = 1
    """How many processes may work at a time, each on a checkpoint."""
    published: "Published | None" = None
    """An earlier version to compare with, of the only handle."""

    def destination(self, handle: Handle) -> ModelPaths:
        """Return where a handle of this batch goes."""
        named = replace(handle, name=self.own.name).in_flavour(handle.flavour) if self.own else handle
        return ModelPaths.of(self.out, named.name, self.version)


def check_batch(batch: Batch) -> None:
    """Refuse, before any work, what cannot end well.

    Raises:
        UsageError: the output cannot be written, exists already, or would not fit on the disk.
    """
    if batch.task != "validate":
        prepare_out(batch.out)
    elif batch.out.exists() and not batch.out.is_dir():
        raise UsageError(f"--out {batch.out} is not a directory: expected the one that the models are in.")
    for handle in batch.handles:
        tidy(batch.destination(handle))
    if batch.task == "validate":
        return
    taken = []
    for handle in batch.handles:
        destination = batch.destination(handle)
        replaced = batch.overwrite or (batch.task == "convert-all" and destination.manifest.is_file())
        if replaced:
            refuse_foreign(destination)
        elif os.path.lexists(destination.directory):
            taken.append(str(destination.directory))
    if taken:
        raise UsageError(f"exists already: {', '.join(taken)}. Give another --version, or --overwrite to replace.")
    show.require_room(batch.out, _disk_need(batch), "free some space, name fewer handles, or give another --out.")


def _disk_need(batch: Batch) -> int:
    """Return the bytes of the new models, and of the largest that stand beside what they replace for a while."""
    new, replacing = [0], [0]
    for handle in batch.handles:
        size = BYTES_PER_PARAMETER * handle.parameters + BYTES_OF_GRAPH
        (replacing if batch.destination(handle).directory.is_dir() else new).append(size)
    at_a_time = batch.jobs * (WRITERS if batch.task == "convert" else 1)
    return sum(new) + sum(sorted(replacing)[-at_a_time:])


def made_handles(batch: Batch) -> list[Handle]:
    """Return the handles under the names that they are written: of one's own Mixer, its own."""
    if batch.own is None:
        return list(batch.handles)
    made = []
    for template in batch.handles:
        try:
            classes = Manifest.read(batch.destination(template).manifest).num_classes
        except MixerError:
            classes = None
        made.append(own_handle(template, batch.own.name, classes or template.checkpoint.num_classes))
    return made


def run_batch(batch: Batch) -> list[Outcome]:
    """Do the batch's task for each of its handles, checkpoint by checkpoint; a failure ends that handle only."""
    by_checkpoint: dict[str, list[Handle]] = {}
    for handle in batch.handles:
        by_checkpoint.setdefault(handle.checkpoint.name, []).append(handle)
    with show.steps(len(batch.handles)) as steps:

        def finish(outcome: Outcome) -> None:
            steps.finish(_line(outcome))

        if batch.jobs > 1 and len(by_checkpoint) > 1:
            found = run_in_processes(batch, [tuple(handles) for handles in by_checkpoint.values()], finish)
            return [outcome for name in by_checkpoint for outcome in found[name]]
        import_frameworks(any_platform=batch.task == "validate")
        from validation.memory import trim

        outcomes: list[Outcome] = []
        converts = batch.task == "convert"
        room = Room(_largest(batch.handles)) if converts else None  # what checks hold is let go bit by bit
        with imports_passed_over(), tracing_ahead(_new_kinds(batch, batch.handles) if converts else []):
            for handles in by_checkpoint.values():
                for outcome in run_checkpoint(batch, handles, steps, room):
                    outcomes.append(outcome)
                    finish(outcome)
                trim()
    return outcomes


def _largest(handles: Iterable[Handle]) -> int:
    """Return the bytes that the largest checkpoint of these may take in memory, with gaps between its arrays."""
    return max(BYTES_PER_PARAMETER * handle.checkpoint.parameters for handle in handles) + BYTES_OF_GAPS


def _new_kinds(batch: Batch, handles: Iterable[Handle]) -> list[Kind]:
    """Return the kinds of graph that will be needed for sure: of handles of the catalog with nothing in their place."""
    new = [handle for handle in handles if not batch.destination(handle).manifest.is_file()]
    return [] if batch.own else list(dict.fromkeys(Kind.of(handle, _labels(batch, handle)) for handle in new))


def run_checkpoint(
    batch: Batch, handles: list[Handle], steps: show.Steps, room: Room | None = None
) -> Iterable[Outcome]:
    """Do the batch's task for handles of one checkpoint, which is read once; yield each outcome as it comes."""
    try:
        # Beside checks nothing can be traced: see `tracing_ahead`.
        with tracing_ahead(_new_kinds(batch, handles) if batch.task == "convert-all" else []):
            handles, material = _bring(batch, handles, steps, room)
    except Exception as error:  # the other checkpoints are still done; --debug shows where
        LOG.debug("failed", exc_info=True)
        for handle in handles:
            yield Outcome(batch.destination(handle).handle, problems=(_reason(error),))
        return
    if batch.task == "convert":

        def convert(handle: Handle) -> Outcome:
            return Outcome(handle.name, size=_convert(batch, handle, material, steps).size, verdict="converted")

        with ThreadPoolExecutor(WRITERS) as pool:
            try:
                yield from pool.map(lambda handle: _run_handle(batch, handle, material, convert), handles)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # those in hand are waited for
                raise
        return
    from convert.cli.checking import Checker

    checker = Checker(material, batch.inputs_set, explain=batch.explain, published=batch.published)

    def convert_and_check(handle: Handle) -> Outcome:
        with held(batch.destination(handle), to_make=batch.task == "convert-all"):
            return _convert_and_check(batch, handle, material, checker, steps)

    for handle in handles:
        yield _run_handle(batch, handle, material, convert_and_check)


def _bring(
    batch: Batch, handles: list[Handle], steps: show.Steps, room: Room | None
) -> tuple[list[Handle], stages.Material]:
    if batch.own is not None:
        reading = steps.start(f"reading {batch.own.path}")
        handle, material = stages.bring_own(batch.own, handles[0], batch.source.digests, reading=reading)
        return [handle.in_flavour(template.flavour) for template in handles], material
    checkpoint = handles[0].checkpoint
    advance = steps.start(f"fetching and reading {checkpoint.object}")
    return handles, stages.bring(checkpoint, batch.source, fetching=advance, reading=advance, room=room)


def _run_handle(batch: Batch, handle: Handle, material: stages.Material, work: Callable[[Handle], Outcome]) -> Outcome:
    begin = time.perf_counter()
    try:
        outcome = work(handle)
    except Exception as error:  # the other handles are still done; --debug shows where
        LOG.debug("failed", exc_info=True)
        outcome = Outcome(handle.name, problems=(_reason(error),))
    return replace(
        outcome,
        origin=material.record.origin,
        parameters=handle.parameters,
        seconds=time.perf_counter() - begin,
    )


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, MixerError) else f"unexpected {type(error).__name__}: {error}"


def _convert(batch: Batch, handle: Handle, material: stages.Material, steps: show.Steps) -> Manifest:
    destination = batch.destination(handle)
    steps.start(f"converting {handle.name}")
    overwrite = batch.overwrite or (batch.task == "convert-all" and _is_earlier(batch, destination, material))
    return stages.write(handle, material, destination, labels=_labels(batch, handle), overwrite=overwrite)


def _convert_and_check(
    batch: Batch, handle: Handle, material: stages.Material, checker: "Checker", steps: show.Steps
) -> Outcome:
    destination = batch.destination(handle)
    if batch.task == "convert-all" and _same_labels(destination, _labels(batch, handle)):
        steps.start(f"looking at {destination.directory}")
        report = stages.find_current(handle, material, destination)
        if report is not None:
            return judged(handle, destination, report, kept=True)
    if batch.task != "validate":
        _convert(batch, handle, material, steps)
    steps.start(f"checking {handle.name}")
    return judged(handle, destination, checker.check(handle, destination), kept=False)


def _labels(batch: Batch, handle: Handle) -> Path | None:
    if batch.own:
        return batch.own.labels
    return handle.labels.checked_path() if handle.labels else None


def _same_labels(destination: ModelPaths, labels: Path | None) -> bool:
    found = [path for path in (destination.directory / "assets").glob("*") if path.is_file()]
    return [path.read_bytes() for path in found] == ([] if labels is None else [labels.read_bytes()])


def _is_earlier(batch: Batch, destination: ModelPaths, material: stages.Material) -> bool:
    """Tell whether what stands there is an earlier make of this model: of the handle, or of one's own same file."""
    if not destination.manifest.is_file() or batch.own is None:
        return destination.manifest.is_file()
    return Manifest.read(destination.manifest).checkpoint.sha256 == material.record.sha256


def _line(outcome: Outcome) -> str:
    return f"{outcome.handle}: {outcome.verdict} in {outcome.seconds:.1f} s" + "".join(
        f"\n  {problem}" for problem in outcome.problems
    )
