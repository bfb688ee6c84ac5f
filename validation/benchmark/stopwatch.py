"""Whole-process figures: what commands cost from their start to their end, with all the processes that they start."""

import contextlib
import os
import resource
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field

from models.errors import MixerError
from models.records.manifest import Record

SAMPLED_EVERY = 0.25
"""Seconds between two looks at the memory; what a single process held at most, the system knows by itself."""


class CommandError(MixerError):
    """A command that did not end well: nothing is said about its speed."""


class Run(Record):
    """What one run of one or several commands, one after the other, took."""

    wall: float
    """Seconds from the first one's start to the last one's end."""
    user: float
    system: float
    """Processor seconds of all processes."""
    peak: int
    """Bytes of memory that the processes held at most at one time."""
    finished: dict[str, float] = Field(default_factory=dict)
    """Seconds after the start at which these files had been written, by file."""

    @property
    def processor(self) -> float:
        """Processor seconds, user and system."""
        return self.user + self.system


def time_commands(commands: Sequence[Sequence[str]], *, cwd: Path, timeout: float = 3600.0) -> Run:
    """Run commands one after the other and return what they took together; they see nothing of the terminal.

    Args:
        commands: program and arguments of each.
        cwd: the directory that they run in.
        timeout: seconds that each may take.

    Raises:
        CommandError: one ended with another status than 0, or took too long; says the end of what it printed.
    """
    begin = time.perf_counter()
    runs = [_time_command(command, cwd, timeout) for command in commands]
    return Run(
        wall=time.perf_counter() - begin,
        user=sum(run.user for run in runs),
        system=sum(run.system for run in runs),
        peak=max(run.peak for run in runs),
    )


def _time_command(command: Sequence[str], cwd: Path, timeout: float) -> Run:
    with tempfile.TemporaryFile() as output:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        overdue = threading.Timer(timeout, _end, [process.pid])
        with _ended(process), _sampled(process.pid) as seen:
            overdue.start()
            try:
                # Not `process.wait`: this tells what the process and those that it waited for have used.
                _, status, used = os.wait4(process.pid, 0)
            finally:
                overdue.cancel()
            process.returncode = os.waitstatus_to_exitcode(status)
            wall = time.perf_counter() - begin
        if process.returncode:
            output.seek(max(0, output.tell() - 2000))
            why = f"took more than {timeout:g} s" if wall >= timeout else f"ended with status {process.returncode}"
            tail = output.read().decode(errors="replace").strip()
            raise CommandError(f"`{' '.join(command)}` {why}: {tail[-600:] or 'it printed nothing'}")
    # What the system says begins with what this process held when it started the other: nothing to go by below that.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    known = used.ru_maxrss * 1024 if used.ru_maxrss > own else 0
    return Run(wall=wall, user=used.ru_utime, system=used.ru_stime, peak=max(known, *seen))


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End the process, and what it started, where the block is left before it has ended."""
    try:
        yield
    finally:
        if process.returncode is None:
            _end(process.pid)
            process.wait()


def _end(pid: int) -> None:
    import psutil

    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.Error):
                one.kill()


@contextlib.contextmanager
def _sampled(pid: int) -> Iterator[list[int]]:
    """Give a list that fills, while the block runs, with the memory of a process and of all that it started."""
    seen, stop = [0], threading.Event()

    def sample() -> None:
        while True:
            seen.append(_tree_memory(pid))
            if stop.wait(SAMPLED_EVERY):
                return

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def _tree_memory(pid: int) -> int:
    """Return the bytes that a process and its descendants hold now; what several share counts once (PSS); 0 if gone."""
    import psutil

    try:
        process = psutil.Process(pid)
        tree = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for one in tree:
        with contextlib.suppress(psutil.Error):  # ended meanwhile
            # For one process alone the resident set is exact, and much cheaper to ask for.
            total += one.memory_info().rss if len(tree) == 1 else one.memory_full_info().pss
    return total
