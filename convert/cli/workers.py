"""Several processes for one batch: each takes the handles of one checkpoint after the other."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from types import FrameType
from typing import TYPE_CHECKING

from convert.cli import show
from convert.cli.frameworks import import_frameworks
from convert.cli.outcomes import Outcome
from convert.room import Room
from models.catalog import Handle

if TYPE_CHECKING:
    from convert.cli.batch import Batch

Group = tuple[Handle, ...]
"""Handles of one checkpoint, which is read once for all of them."""

IMPORTS = 1 << 30
"""Bytes that a process takes for its libraries."""

ENDING = (signal.SIGINT, signal.SIGTERM)

PER_BYTE = {"convert": 1.3, "convert-all": 4.5}
"""Bytes of memory that a process takes for each byte of its checkpoint; measured on whole-size checkpoints."""


def run_in_processes(
    batch: "Batch", groups: Sequence[Group], finish: Callable[[Outcome], None]
) -> dict[str, list[Outcome]]:
    """Do the batch's task for each group, several at a time, and return the outcomes by the name of the checkpoint.

    What is written is byte for byte what one process writes. A process that is killed fails what is not done yet.

    Args:
        batch: what is to be done; its `jobs` says how many processes there may be.
        groups: the handles.
        finish: called with each outcome as it comes.
    """
    count = processes(batch, groups)
    found: dict[str, list[Outcome]] = {}
    context = multiprocessing.get_context("spawn")  # TensorFlow and JAX cannot be forked
    with ProcessPoolExecutor(count, mp_context=context, initializer=_begin) as pool:
        try:
            with _signals_held():  # a process that is half started would complain
                waiting = {pool.submit(_run_group, replace(batch, jobs=1), group): group for group in groups}
            for future in as_completed(waiting):
                group = waiting[future]
                found[group[0].checkpoint.name] = _outcomes(future, batch, group)
                for outcome in found[group[0].checkpoint.name]:
                    finish(outcome)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return found


def processes(batch: "Batch", groups: Sequence[Group]) -> int:
    """Return how many processes to use: no more than asked for, than there are groups, and than memory allows."""
    wanted = min(batch.jobs, len(groups))
    largest = max(4 * group[0].checkpoint.parameters for group in groups)
    need = IMPORTS + round(PER_BYTE[batch.task] * largest)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fitting = max(1, memory // need)
    if fitting < wanted:
        show.tell(
            f"{wanted} processes may take {show.megabytes(need)} each, this machine has {show.megabytes(memory)} of "
            f"memory: {fitting} are used."
        )
    return min(wanted, fitting)


def _outcomes(future: "Future[list[Outcome]]", batch: "Batch", group: Group) -> list[Outcome]:
    try:
        return future.result()
    except BrokenProcessPool:
        reason = "a process ended before its time, perhaps for want of memory: try again with a lower --jobs."
        return [Outcome(batch.destination(handle).handle, problems=(reason,)) for handle in group]


@contextmanager
def _signals_held() -> Iterator[None]:
    """Let signals wait until the end of the block; what is started in it begins with them blocked."""
    arrived: list[int] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    # Other threads, of NumPy's, do not block them, and Python would run their handlers here all the same.
    handlers = {number: signal.signal(number, lambda number, _: arrived.append(number)) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for late in arrived:
        signal.raise_signal(late)


def _begin() -> None:
    """Prepare a process: it ends in good order where it is told to, and leaves Ctrl-C to the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    import_frameworks()
    signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _run_group(batch: "Batch", group: Group) -> list[Outcome]:
    from convert.cli.batch import run_checkpoint

    with show.no_steps() as steps:
        return list(run_checkpoint(batch, list(group), steps, _room() if batch.task == "convert" else None))


@cache
def _room() -> Room:
    """Return the memory that this process reads its checkpoints into, one after the other."""
    return Room()
