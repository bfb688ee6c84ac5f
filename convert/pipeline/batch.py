"""Run a batch of handles: what cannot succeed is refused first, then each handle succeeds or fails on its own."""

import os
from collections.abc import Iterable
from pathlib import Path

from convert.checkpoints.buffer import ReusableBuffer
from convert.pipeline.convert_handle import Item
from convert.pipeline.frameworks import IMPORTING, import_frameworks, imports_passed_over
from convert.pipeline.job import WRITERS, Batch
from convert.pipeline.outcome import Outcome
from convert.pipeline.processes import run_in_processes
from convert.pipeline.progress import Event, Steps, Watch
from convert.pipeline.tracing import tracing_ahead
from export.install import prepare_out, refuse_to_replace, tidy
from models.errors import UsageError
from models.storage.files import require_room, require_temporary_room

BYTES_PER_PARAMETER = 4
BYTES_OF_GRAPH = 8 << 20
"""Allowance for a model's files other than its variables."""
BYTES_OF_GAPS = 1 << 20
"""Allowance for the contents of a checkpoint's file other than arrays, or for gaps between arrays in memory."""


def refuse_brackets(out: Path) -> None:
    """Refuse an output directory from which TensorFlow would load no model.

    Raises:
        UsageError: its path contains a bracket.
    """
    if "[" in str(out.absolute()):
        raise UsageError(
            f"--out {out} is in a path with brackets, which TensorFlow reads as a pattern, so that it loads no model "
            "from there: give another --out."
        )


def check_batch(batch: Batch, watch: Watch | None = None) -> None:
    """Refuse, before any work, what cannot succeed.

    Raises:
        UsageError: the output cannot be written or read by TensorFlow, exists already, or would not fit on the disk.
    """
    refuse_brackets(batch.out)
    if batch.task != "validate":
        prepare_out(batch.out)
    elif batch.out.exists() and not batch.out.is_dir():
        raise UsageError(f"--out {batch.out} is not a directory: expected the directory of the models.")
    items = batch.items
    for item in items:
        tidy(item.paths)
    if batch.task == "validate":
        require_temporary_room()
        return
    taken = []
    for item in items:
        replaced = batch.overwrite or (batch.task == "convert-all" and item.paths.manifest.is_file())
        if replaced:
            refuse_to_replace(item.paths, overwrite=True)
        elif os.path.lexists(item.paths.directory):
            taken.append(str(item.paths.directory))
    if taken:
        raise UsageError(f"exists already: {', '.join(taken)}. Give another --version, or --overwrite to replace.")
    said = require_room(
        batch.out, _disk_need(batch, items), "free some space, name fewer handles, or give another --out."
    )
    require_temporary_room()
    if watch is not None:
        watch(Event("noted", said))


def _disk_need(batch: Batch, items: Iterable[Item]) -> int:
    """Return the bytes of the new models, and of the largest that temporarily exist beside those they replace."""
    new, replacing = [0], [0]
    for item in items:
        size = BYTES_PER_PARAMETER * item.handle.parameters + BYTES_OF_GRAPH
        (replacing if item.paths.directory.is_dir() else new).append(size)
    at_a_time = batch.jobs * (WRITERS if batch.task == "convert" else 1)
    return sum(new) + sum(sorted(replacing)[-at_a_time:])


def run_batch(batch: Batch, watch: Watch | None = None) -> list[Outcome]:
    """Do the batch's task for each of its handles, checkpoint by checkpoint; a failure ends that handle only."""
    groups: dict[str, list[Item]] = {}
    items = batch.items
    for item in items:
        groups.setdefault(item.handle.checkpoint.name, []).append(item)
    with Steps(watch, len(items)) as on:

        def finish(outcome: Outcome, worker: int = 0) -> None:
            on.finish(_line(outcome), worker)

        if batch.jobs > 1 and len(groups) > 1:
            found = run_in_processes(batch, list(groups.values()), on, finish)
            return [outcome for name in groups for outcome in found[name]]
        on.start(IMPORTING)
        import_frameworks(any_platform=batch.task == "validate")
        from validation.memory import trim

        outcomes: list[Outcome] = []
        converts = batch.task == "convert"
        room = ReusableBuffer(_largest(items)) if converts else None  # checks release theirs bit by bit
        ahead = tracing_ahead(batch.graphs_needed(items) if converts else [], batch.kept)
        with imports_passed_over(), ahead as stop_tracing:
            for group in groups.values():
                for outcome in batch.run_checkpoint(group, on, room):
                    outcomes.append(outcome)
                    finish(outcome)
                trim()
            stop_tracing()  # what is untraced belongs to checkpoints that could not be opened
    return outcomes


def _largest(items: Iterable[Item]) -> int:
    """Return the bytes that the largest checkpoint of these may take in memory, with gaps between its arrays."""
    return max(BYTES_PER_PARAMETER * item.handle.checkpoint.parameters for item in items) + BYTES_OF_GAPS


def _line(outcome: Outcome) -> str:
    return f"{outcome.handle}: {outcome.verdict} in {outcome.seconds:.1f} s" + "".join(
        f"\n  {problem}" for problem in outcome.problems
    )
