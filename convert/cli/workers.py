"""Several processes for one batch: each takes the handles of one checkpoint after the other."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cache
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, cast

from convert.cli import process, show
from convert.cli.frameworks import import_frameworks
from convert.cli.outcomes import Outcome
from convert.lifeline import lifeline
from convert.room import Room
from models.catalog import Handle

if TYPE_CHECKING:
    from convert.cli.batch import Batch

Group = tuple[Handle, ...]
"""Handles of one checkpoint, which is read once for all of them."""

IMPORTS = 1 << 30
"""Bytes that a process takes for its libraries."""

PER_BYTE = {"convert": 1.3, "convert-all": 4.5}
"""Bytes of memory that a process takes for each byte of its checkpoint; measured on whole-size checkpoints."""

_PROGRAM = "import sys; sys.path[:] = {path!r}; from convert.cli.workers import work; work({descriptor})"


def run_in_processes(
    batch: "Batch", groups: Sequence[Group], finish: Callable[[Outcome], None]
) -> dict[str, list[Outcome]]:
    """Do the batch's task for each group, several at a time, and return the outcomes by the name of the checkpoint.

    What is written is byte for byte what one process writes. A process that is killed fails the group that it was at.

    Args:
        batch: what is to be done; its `jobs` says how many processes there may be.
        groups: the handles.
        finish: called with each outcome as it comes.
    """
    left, found = list(groups), dict[str, list[Outcome]]()
    busy = dict[Connection, Group]()
    with ExitStack() as workers:

        def begin(connection: Connection) -> None:
            busy[connection] = left.pop(0)
            with suppress(OSError):  # it has ended, as is found where its answer is awaited
                connection.send((replace(batch, jobs=1), busy[connection]))

        for _ in range(processes(batch, groups)):
            begin(workers.enter_context(_worker()))
        while busy:
            connection = cast(Connection, wait(list(busy))[0])
            group = busy.pop(connection)
            outcomes = _receive(connection)
            found[group[0].checkpoint.name] = outcomes or _ended_early(batch, group)
            for outcome in found[group[0].checkpoint.name]:
                finish(outcome)
            if left:
                begin(connection if outcomes else workers.enter_context(_worker()))
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


@contextmanager
def _worker() -> Iterator[Connection]:
    """Give the connection to a new process that runs `work`; it ends with the block, and with this process."""
    ours, theirs = socket.socketpair()
    with lifeline() as line:
        program = _PROGRAM.format(path=sys.path, descriptor=theirs.fileno())
        child = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=line,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C is for the one that started it, who then ends it
        )
        theirs.close()
        process.tidies_up(child.pid)
        with Connection(ours.detach()) as connection:
            try:
                yield connection
            finally:
                child.terminate()
                child.wait()


def _receive(connection: Connection) -> list[Outcome]:
    """Return what a process answers; nothing if it has ended."""
    try:
        answer: list[Outcome] | Exception = connection.recv()
    except (EOFError, OSError):
        return []
    if isinstance(answer, Exception):
        raise answer
    return answer


def _ended_early(batch: "Batch", group: Group) -> list[Outcome]:
    reason = "a process ended before its time, perhaps for want of memory: try again with a lower --jobs."
    return [Outcome(batch.destination(handle).handle, problems=(reason,)) for handle in group]


def work(descriptor: int) -> None:
    """Do what comes over a connection until it is closed: all that a process of a batch does."""
    process.end_on_signals()
    process.end_with_parent(0)
    import_frameworks()
    with Connection(descriptor) as connection, suppress(EOFError):
        while True:
            batch, group = connection.recv()
            try:
                connection.send(_run_group(batch, group))
            except Exception as error:  # for the one that asked
                connection.send(error)
    process.leave(0)


def _run_group(batch: "Batch", group: Group) -> list[Outcome]:
    from convert.cli.batch import run_checkpoint

    with show.no_steps() as steps:
        return list(run_checkpoint(batch, list(group), steps, _room() if batch.task == "convert" else None))


@cache
def _room() -> Room:
    """Return the memory that this process reads its checkpoints into, one after the other."""
    return Room()
