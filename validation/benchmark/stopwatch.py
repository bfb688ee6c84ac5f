"""Measure the time and memory of whole commands, including all processes that they start."""

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
"""Seconds between two samples of the memory; for a single process the system records the peak itself."""

_SHARE = 0.05
"""Most of the time that sampling takes: the system walks all pages of each process, 15 ms for a gigabyte."""


class CommandError(MixerError):
    """A command failed or took too long, so there is no figure for it."""


class Run(Record):
    """The cost of one run of one or more commands, one after the other."""

    wall: float
    """Seconds from the first one's start to the last one's end."""
    user: float
    system: float
    """Processor seconds of all processes."""
    peak: int
    """Peak memory of the processes together, in bytes."""
    finished: dict[str, float] = Field(default_factory=dict)
    """Seconds from the start until each model was written, by name."""

    @property
    def processor(self) -> float:
        """Processor seconds, user and system."""
        return self.user + self.system


def time_commands(commands: Sequence[Sequence[str]], *, cwd: Path, timeout: float = 3600.0) -> Run:
    """Run commands one after the other, detached from the terminal, and return their total cost.

    Args:
        commands: program and arguments of each.
        cwd: the directory that they run in.
        timeout: seconds that each may take.

    Raises:
        CommandError: one had a nonzero exit status or took too long; contains the end of what it printed.
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
                # Not `process.wait`: this also returns what the process and the children it waited for have used.
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
    # The child's ru_maxrss includes what this process used when it started it, so smaller values mean nothing.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    known = used.ru_maxrss * 1024 if used.ru_maxrss > own else 0
    return Run(wall=wall, user=used.ru_utime, system=used.ru_stime, peak=max(known, *seen))


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Kill the process, and all that it started, if the block is left before it has ended."""
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
    """Yield a list to which, while the block runs, the memory of a process and its descendants is appended."""
    seen, stop = [0], threading.Event()

    def sample() -> None:
        while True:
            begin = time.perf_counter()
            seen.append(_tree_memory(pid))
            if stop.wait(max(SAMPLED_EVERY, (time.perf_counter() - begin) / _SHARE)):
                return

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def _tree_memory(pid: int) -> int:
    """Return the bytes that a process and its descendants use now, shared ones once (PSS); 0 if it has ended."""
    import psutil

    try:
        process = psutil.Process(pid)
        tree = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for one in tree:
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            # For one process alone the resident set is exact, and much cheaper to ask for.
            total += one.memory_info().rss if len(tree) == 1 else one.memory_full_info().pss
    return total
