"""Run work in other processes: the checkpoints of a batch in parallel, or one call isolated from the caller."""

import logging
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from multiprocessing.connection import Connection, wait
from typing import IO, TypeVar, cast

from convert.checkpoints.buffer import ReusableBuffer
from convert.pipeline import process
from convert.pipeline.convert_handle import Item
from convert.pipeline.frameworks import import_frameworks
from convert.pipeline.job import Batch, run_checkpoint
from convert.pipeline.outcome import Outcome
from convert.pipeline.progress import Event, Steps, Watch
from models.errors import MixerError, printable
from models.storage.files import megabytes
from models.storage.lifeline import lifeline

Group = list[Item]
"""Items of one checkpoint, which is read once for all of them."""

IMPORTS = 1 << 30
"""Bytes that a process takes for its libraries."""

PER_BYTE = {"convert": 1.3, "convert-all": 4.5}
"""Bytes of memory that a process takes for each byte of its checkpoint; measured on whole-size checkpoints."""

_PROGRAM = "import sys; sys.path[:] = {path!r}; from convert.pipeline.processes import work; work({descriptor})"
_MOST_LAST_WORDS = 2000  # bytes of the output of a process that ended early

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Answer:
    """The return value of a call."""

    value: object


def run_in_processes(
    batch: Batch, groups: Sequence[Group], finish: Callable[[Outcome], None], note: Callable[[str], None]
) -> dict[str, list[Outcome]]:
    """Do the batch's task for each group, several at a time, and return the outcomes, keyed by the checkpoint's name.

    The files are byte for byte those that one process writes. If a process is killed, its current group fails.

    Args:
        batch: the work; its `jobs` is the most processes to use.
        groups: the items.
        finish: called with each outcome as it comes.
        note: called with messages for the user.
    """
    left, found = list(groups), dict[str, list[Outcome]]()
    busy = dict[Connection, Group]()
    with ExitStack() as workers:

        def begin(connection: Connection) -> None:
            busy[connection] = left.pop(0)
            with suppress(OSError):  # it has ended, which is noticed when its answer is awaited
                connection.send(partial(_run_group, replace(batch, jobs=1), busy[connection]))

        for _ in range(_count(batch, groups, note)):
            begin(workers.enter_context(_worker()))
        while busy:
            connection = cast(Connection, wait(list(busy))[0])
            group = busy.pop(connection)
            outcomes = _receive(connection)
            name = group[0].handle.checkpoint.name
            found[name] = cast(list[Outcome], outcomes.value) if outcomes else _ended_early(group)
            for outcome in found[name]:
                finish(outcome)
            if left:
                begin(connection if outcomes else workers.enter_context(_worker()))
    return found


def _count(batch: Batch, groups: Sequence[Group], note: Callable[[str], None]) -> int:
    """Return how many processes to use: no more than `jobs`, the number of groups, and what memory allows."""
    wanted = min(batch.jobs, len(groups))
    largest = max(4 * group[0].handle.checkpoint.parameters for group in groups)
    need = IMPORTS + round(PER_BYTE[batch.task] * largest)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fitting = max(1, memory // need)
    if fitting < wanted:
        note(
            f"{wanted} processes may need {megabytes(need)} each, but this machine has {megabytes(memory)} of memory: "
            f"{fitting} are used."
        )
    return min(wanted, fitting)


def run_apart(call: Callable[[Watch], Result], watch: Watch | None) -> Result:
    """Run a call in a new process, so that imports, settings and signals of this one are unchanged.

    Args:
        call: picklable; called with a function that takes its events.
        watch: called with these events in this process.

    Raises:
        MixerError: the call raised it, or the process ended early.
    """
    with tempfile.TemporaryFile() as said, _worker(said) as connection:
        with suppress(OSError):  # it has ended, which is noticed when its answer is awaited
            connection.send(partial(_logging, call))
        answer = _receive(connection, watch)
        if answer is None:
            said.seek(-min(_MOST_LAST_WORDS, said.seek(0, os.SEEK_END)), os.SEEK_END)
            last = printable(said.read().decode(errors="replace")).strip()
            raise MixerError(
                "the worker process ended unexpectedly, perhaps out of memory"
                + (f"; its last output:\n{last}" if last else ".")
            )
        return cast(Result, answer.value)


@contextmanager
def _worker(errors: IO[bytes] | None = None) -> Iterator[Connection]:
    """Yield a connection to a new process that runs `work`; it ends with the block, and with this process.

    With `errors`, its standard error goes there, and its standard output is discarded.
    """
    ours, theirs = socket.socketpair()
    with lifeline() as line:
        program = _PROGRAM.format(path=sys.path, descriptor=theirs.fileno())
        child = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=line,
            stdout=None if errors is None else subprocess.DEVNULL,
            stderr=errors,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C reaches only the parent, which then ends it
        )
        theirs.close()
        process.tidies_up(child.pid)
        with Connection(ours.detach()) as connection:
            try:
                yield connection
            finally:
                child.terminate()
                child.wait()


def _receive(connection: Connection, watch: Watch | None = None) -> _Answer | None:
    """Return the answer of a process, after passing on its events; None if it has ended."""
    while True:
        try:
            message: _Answer | Event | Exception = connection.recv()
        except (EOFError, OSError):
            return None
        if isinstance(message, Exception):
            raise message
        if isinstance(message, _Answer):
            return message
        if watch is not None:
            watch(message)


class _Notes(logging.Handler):
    """Reports log messages as events."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(logging.WARNING)
        self._watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        self._watch(Event("noted", record.getMessage()))


def _logging(call: Callable[[Watch], Result], watch: Watch) -> Result:
    """Run a call with its warnings reported as events."""
    logging.getLogger().addHandler(_Notes(watch))
    return call(watch)


def _ended_early(group: Group) -> list[Outcome]:
    reason = "a worker process ended unexpectedly, perhaps out of memory: try again with a lower --jobs."
    return [Outcome(item.paths.handle, problems=(reason,)) for item in group]


def work(descriptor: int) -> None:
    """Run the calls that come over a connection until it closes: the main function of a worker process."""
    process.run_and_leave(lambda: _answer_calls(descriptor), lifeline=0)


def _answer_calls(descriptor: int) -> None:
    sending = threading.Lock()  # events may come from several threads, and a connection is not thread-safe
    with Connection(descriptor) as connection, suppress(EOFError):

        def send(message: object) -> None:
            with sending:
                connection.send(message)

        while True:
            call: Callable[[Watch], object] = connection.recv()
            try:
                answer: object = _Answer(call(send))
            except Exception as error:  # for the caller
                answer = error if _can_be_sent(error) else MixerError(f"unexpected {type(error).__name__}: {error}")
            send(answer)


def _can_be_sent(error: Exception) -> bool:
    try:
        return isinstance(pickle.loads(pickle.dumps(error)), type(error))  # noqa: S301 (made here)
    except Exception:  # pickling may raise anything
        return False


def _run_group(batch: Batch, group: Group, _: Watch) -> list[Outcome]:
    """Do the batch's task for a group; its steps are not reported, as several processes work at once."""
    import_frameworks()
    return list(run_checkpoint(batch, group, Steps(None, len(group)), _room() if batch.task == "convert" else None))


@cache
def _room() -> ReusableBuffer:
    """Return the buffer that this process reads its checkpoints into, one after the other."""
    return ReusableBuffer()
