"""End the process on signals at any moment, and leave nothing behind.

Signals raise no exception: raised wherever the program happens to be, it would be lost in callbacks and in code that
catches everything, and C++ code that calls back would abort. A thread handles them instead. It ends the processes that
were started, removes temporary files, and ends this process; the main thread waits meanwhile. Files that are put in
place in several steps are finished first (`models.storage.temporary.uninterrupted`), however many signals arrive.
"""

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from models.errors import printable
from models.storage import temporary

ENDING = (signal.SIGINT, signal.SIGTERM)
TEMPORARY = "mixer-jax2tf-"
"""Prefix of the folder of all temporary files of a process, and of those that it starts."""

_AGAIN = 0.5
"""Seconds after a signal; from then on another signal ends the process without tidying up."""
_PATIENCE = 5.0
"""Seconds that processes of the same program have to tidy up before they are killed."""

_CALMING = 0.5
"""Seconds that the calls of `before_ending` may take: the thread that stands still may hold a lock that they need."""

_arrived: list[tuple[int, float]] = []
_ending = threading.Lock()
_tidy: set[int] = set()
_before: list[Callable[[], None]] = []


def run_and_leave(run: Callable[[], None], *, interrupted: str = "", lifeline: int | None = None) -> NoReturn:
    """Run a command or a worker, and end the process with its exit status.

    Args:
        run: the command or the worker.
        interrupted: what to say when a signal ends it.
        lifeline: of a worker: a pipe, whose other end closes when the parent ends.
    """
    _end_on_signals(interrupted)
    if lifeline is not None:
        _end_with_parent(lifeline)
    with _own_temporary_folder():
        status = 0
        try:
            run()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    _leave(status)


def _end_on_signals(message: str) -> None:
    """From now on, end this process on SIGINT with status 130, and on SIGTERM with 143, after printing `message`."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    errors = os.dup(2)  # it may be redirected while libraries are kept quiet

    def wait() -> None:
        while (number := os.read(reader, 1)[0]) not in ENDING:
            pass
        _end(128 + number, errors, message)

    # The thread first: a handler stops the main thread, and the thread must then end the process.
    threading.Thread(target=wait, name="signals", daemon=True).start()
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:  # ignored by a shell's background commands
            signal.signal(number, _stand_still)


def _end_with_parent(lifeline: int) -> None:
    """From now on, end this process when the other end of a pipe closes, for instance when the parent is killed."""

    def wait() -> None:
        while os.read(lifeline, 1):
            pass
        _end(1, 2, "")

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def _leave(status: int) -> NoReturn:
    """End this process without the interpreter's shutdown, which loses signals and may abort C++ threads."""
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None if closed from the start
        try:
            stream.flush()
        except BrokenPipeError:  # its reader has gone
            status = status or 1
        except (OSError, ValueError) as error:
            if stream is sys.stdout and not status:
                said = (
                    f"mixer-jax2tf: standard output cannot be written ({getattr(error, 'strerror', None) or error}).\n"
                )
                with suppress(OSError):
                    os.write(2, said.encode())
            status = status or 1
    for number in ENDING:
        if signal.getsignal(number) is _stand_still:
            signal.signal(number, signal.SIG_DFL)  # pending signals are handled first
    if _arrived:
        _stop()
    os._exit(status)


def tidies_up(pid: int) -> None:
    """Remember that a child tidies up by itself when it is terminated."""
    _tidy.add(pid)


def before_ending(call: Callable[[], None]) -> None:
    """Have this called, in another thread, before the process says that it was interrupted."""
    _before.append(call)


def descendants() -> set[int]:
    """Return the running descendants of this process, where the system lists them (/proc)."""
    children: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = place.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(place.parent.name))
    found, new = set(), children.get(os.getpid(), [])
    while new:
        found.update(new)
        new = [child for pid in new for child in children.get(pid, [])]
    return found


@contextmanager
def _own_temporary_folder() -> Iterator[None]:
    """Put all temporary files of this process, and of those that it starts, into one folder; remove it at the end."""
    places = [os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")]
    failures = []
    with ExitStack() as stack:
        for place in dict.fromkeys(filter(None, (*places, "/tmp", "/var/tmp"))):  # noqa: S108 - as `tempfile` looks
            if "[" in place:
                failures.append(f"{place} (TensorFlow reads brackets in a path as a pattern)")
                continue
            try:
                folder = temporary.temporary_folder(Path(place).absolute(), TEMPORARY, mode=0o700)
                os.environ["TMPDIR"] = tempfile.tempdir = str(stack.enter_context(folder))
                break
            except OSError as error:
                failures.append(f"{place} ({error.strerror or error})")
        else:  # many commands need none
            said = f"no temporary directory can be made in {', '.join(failures)}"
            print(printable(f"mixer-jax2tf: {said}: set TMPDIR to a writable directory."), file=sys.stderr)  # noqa: T201
        yield


def _stand_still(number: int, _: FrameType | None) -> None:
    _arrived.append((number, time.monotonic()))
    temporary.when_interruptible(_obey)


def _obey() -> NoReturn:
    (number, first), (_, last) = _arrived[0], _arrived[-1]
    if last - first > _AGAIN:
        temporary.let_none_begin()  # another thread may be putting something in place
        os._exit(128 + number)
    _stop()


def _stop() -> NoReturn:
    while True:
        time.sleep(60)


def _end(status: int, errors: int, message: str) -> None:
    if not _ending.acquire(blocking=False):
        _stop()
    try:
        calming = threading.Thread(target=lambda: [call() for call in _before], daemon=True)
        calming.start()
        calming.join(_CALMING)
        with suppress(OSError):
            # Progress that was not ended has hidden the cursor of a terminal.
            os.write(errors, (("\r\x1b[2K\x1b[?25h" if os.isatty(errors) else "") + message).encode())
        _end_children()
        temporary.remove_all()
    finally:
        os._exit(status)


def _end_children() -> None:
    """End all descendants of this process; first those that tidy up, so that they do not see the others fail."""
    for pid in _tidy & descendants():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + _PATIENCE
    while _tidy & descendants() and time.monotonic() < until:
        time.sleep(0.01)
    for pid in descendants():
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
