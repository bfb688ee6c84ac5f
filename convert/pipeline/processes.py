"""Run work in other processes: the checkpoints of a batch in parallel, or one call isolated from the caller."""

import logging
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import count
from multiprocessing.connection import Connection, wait
from typing import IO, TypeVar, cast

from convert.checkpoints.buffer import ReusableBuffer
from convert.pipeline import process
from convert.pipeline.convert_handle import Item
from convert.pipeline.frameworks import IMPORTING, import_frameworks, imports_passed_over
from convert.pipeline.job import Batch
from convert.pipeline.outcome import Outcome
from convert.pipeline.progress import Event, Steps, Watch
from models.errors import MixerError, printable
from models.storage.lifeline import lifeline

Group = list[Item]
"""Items of one checkpoint, which is read once for all of them."""

_GIB = 1 << 30
_NEEDS = {"convert": (_GIB, 1.3), "gate": (_GIB, 2.2), "full": (1.3 * _GIB, 4.0)}
"""Bytes of memory that a process takes for its libraries, and for each byte of its checkpoint, to convert it or to
check it with a set of inputs (with the consumer of the full set); measured on whole-size checkpoints, two at a time."""

_PROGRAM = "import sys; sys.path[:] = {path!r}; from convert.pipeline.processes import work; work({descriptor})"
_MOST_LAST_WORDS = 2000  # bytes of the output of a process that ended early

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Answer:
    """The return value of a call."""

    value: object


@dataclass
class _Busy:
    """What a process works on, its number from 1 among those at work, since when, and the outcomes that it has sent."""

    group: Group
    worker: int
    since: float = field(default_factory=time.monotonic)
    outcomes: list[Outcome] = field(default_factory=list)


def run_in_processes(
    batch: Batch, groups: Sequence[Group], on: Steps, finish: Callable[[Outcome, int], None]
) -> dict[str, list[Outcome]]:
    """Do the batch's task for each group, several at a time, and return the outcomes, keyed by the checkpoint's name.

    The files are byte for byte those that one process writes. If a process is killed, the rest of its current group
    fails. The largest group is begun first; one that does not fit into memory beside the others waits.

    Args:
        batch: the work; its `jobs` is the most processes to use, and its `memory` the most that they may need.
        groups: the items.
        on: takes the steps of all processes, and messages for the user.
        finish: called with each outcome as it comes, and the number of its process.
    """
    left = sorted(groups, key=partial(_need, batch), reverse=True)
    found = dict[str, list[Outcome]]()
    busy, idle = dict[Connection, _Busy](), list[Connection]()
    memory = _memory(batch)
    short = _is_short(batch, groups, memory, on.note)
    with ExitStack() as workers:
        while left or busy:
            room = memory - sum(_need(batch, work.group) for work in busy.values())
            while len(busy) < batch.jobs and (group := _first_fitting(batch, left, room if busy else None)):
                left.remove(group)
                room -= _need(batch, group)
                connection = idle.pop() if idle else workers.enter_context(_worker())
                busy[connection] = _Busy(group, _first_free(busy.values()))
                with suppress(OSError):  # it has ended, which is noticed when its answer is awaited
                    connection.send(partial(_run_group, replace(batch, jobs=1), group))
            connection = cast(Connection, wait(list(busy))[0])
            work, message = busy[connection], _next_message(connection)
            if isinstance(message, Event):
                on.forward(message, work.worker)
                continue
            if isinstance(message, Outcome):
                work.outcomes.append(message)
                work.since = time.monotonic()
                finish(message, work.worker)
                continue
            del busy[connection]
            if message is None:
                work.outcomes += (rest := _ended_early(work.group[len(work.outcomes) :], work.since))
                for outcome in rest:
                    finish(outcome, work.worker)
            elif batch.inputs_set == "gate" and not short:
                idle.append(connection)
            else:
                connection.close()  # ends the process, which keeps memory of each checkpoint that it worked on
            found[work.group[0].handle.checkpoint.name] = work.outcomes
    return found


def _first_free(busy: Iterable[_Busy]) -> int:
    """Return the lowest number, from 1, that no process at work has."""
    taken = {work.worker for work in busy}
    return next(number for number in count(1) if number not in taken)


def _first_fitting(batch: Batch, left: Sequence[Group], room: int | None) -> Group | None:
    """Return the first group that fits into that many bytes; any if None."""
    return next((group for group in left if room is None or _need(batch, group) <= room), None)


def _need(batch: Batch, group: Group) -> int:
    """Return the bytes of memory that a process may need for a group."""
    libraries, per_byte = _NEEDS["convert" if batch.task == "convert" else batch.inputs_set]
    return round(libraries + per_byte * 4 * group[0].handle.checkpoint.parameters)


def _memory(batch: Batch) -> int:
    """Return the bytes that all processes may need: no more than the machine has."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return machine if batch.memory is None else min(machine, batch.memory)


def _is_short(batch: Batch, groups: Sequence[Group], memory: int, note: Callable[[str], None]) -> bool:
    """Return whether the largest groups may not fit into memory together, and tell the user if so."""
    largest = sorted(_need(batch, group) for group in groups)[-batch.jobs :]
    if sum(largest) <= memory:
        return False
    alone = f", and the largest alone {largest[-1] / _GIB:.1f} GiB" if largest[-1] > memory else ""
    note(
        f"{len(largest)} processes may need {sum(largest) / _GIB:.1f} GiB together{alone}, more than "
        f"{memory / _GIB:.1f} GiB: where they do not fit, fewer work at a time, at least one."
    )
    return True


def run_apart(
    call: Callable[[Watch], Result],
    watch: Watch | None,
    ended: str = "the worker process ended unexpectedly, perhaps out of memory",
) -> Result:
    """Run a call in a new process, so that imports, settings and signals of this one are unchanged.

    Args:
        call: picklable; called with a function that takes its events.
        watch: called with these events in this process.
        ended: what to say if the process ends early.

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
            raise MixerError(ended + (f"; its last output:\n{last}" if last else "."))
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
    while isinstance(message := _next_message(connection), Event):
        if watch is not None:
            watch(message)
    return cast("_Answer | None", message)


def _next_message(connection: Connection) -> _Answer | Event | Outcome | None:
    """Return the next message of a process; None if it has ended. An exception in the process is raised here."""
    try:
        message: _Answer | Event | Outcome | Exception = connection.recv()
    except (EOFError, OSError):
        return None
    if isinstance(message, Exception):
        raise message
    return message


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


def _ended_early(group: Group, since: float) -> list[Outcome]:
    reason = "a worker process ended unexpectedly, perhaps out of memory: try again with a lower --jobs."
    seconds = time.monotonic() - since
    return [Outcome(item.paths.handle, problems=(reason,), seconds=seconds) for item in group]


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
            call: Callable[[Callable[[object], None]], object] = connection.recv()
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


def _run_group(batch: Batch, group: Group, send: Callable[[Outcome | Event], None]) -> None:
    """Do the batch's task for a group, and send its steps and each outcome."""
    on = Steps(send, len(group))
    if "tensorflow" not in sys.modules:
        on.start(IMPORTING)
    import_frameworks(any_platform=batch.task == "validate")
    room = _room() if batch.task == "convert" else None
    with imports_passed_over():
        for outcome in batch.run_checkpoint(group, on, room):
            send(outcome)


@cache
def _room() -> ReusableBuffer:
    """Return the buffer that this process reads its checkpoints into, one after the other."""
    return ReusableBuffer()
