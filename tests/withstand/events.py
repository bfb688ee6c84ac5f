"""File-system events of a process, and faults that befall it at one of them."""

import contextlib
import itertools
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

CHANGES = frozenset({"open", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"})
"""Names of the audit events that are counted: `open` for writing alone, `os.rename` for `os.replace` too."""

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Fault:
    """What befalls a process just before one of its file-system events."""

    event: int
    """Its number, from 1 on; that of all events together."""
    signal: int = signal.SIGKILL
    crash: bool = False
    """Whether the processes that it started end with it, as in a crash of the machine."""
    worker: bool = False
    """Whether it befalls the first worker that has come so far, instead of the command itself."""
    remove: Path | None = None
    """A folder that is deleted, instead of a signal."""
    fill: Path | None = None
    """A file that takes all space of its disk, instead of a signal."""

    def happen(self) -> None:
        if self.remove is not None:
            shutil.rmtree(self.remove, ignore_errors=True)
            return
        if self.fill is not None:
            fill(self.fill)
            return
        for pid in family(os.getpid()) if self.crash else ():
            send(pid, self.signal)
        os.kill(os.getpid(), self.signal)


def arm(root: Path, notes: Path, fault: Fault | None) -> None:
    """From now on, add a byte to the file `notes` for each event below `root`, and let the fault happen."""
    numbers, place = itertools.count(1), os.fspath(root)
    noted = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    claim = notes.with_name("claimed")

    def hook(name: str, arguments: tuple) -> None:
        if name not in CHANGES or not _concerns(place, name, arguments):
            return
        os.write(noted, b".")
        if fault is not None and next(numbers) == fault.event and _is_first(claim):
            fault.happen()

    sys.addaudithook(hook)


def _concerns(root: str, name: str, arguments: tuple) -> bool:
    path = arguments[0]
    if isinstance(path, int) or (name == "open" and not arguments[2] & _WRITES):
        return False
    if name in {"os.mkdir", "os.remove", "os.rmdir"} and arguments[-1] != -1:
        return True  # a name in an open folder, as `shutil.rmtree` removes
    return os.path.abspath(os.fsdecode(path)).startswith(root)  # noqa: PTH100 - a path may be bytes


def _is_first(claim: Path) -> bool:
    try:
        os.close(os.open(claim, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def spread(count: int, events: int) -> list[int]:
    """Return the numbers of events, evenly over all."""
    count = min(count, events)
    return [1 + int((number + 0.5) * events / count) for number in range(count)]


def fill(file: Path) -> None:
    """Write a file that leaves no space on its disk."""
    with file.open("wb") as ballast:
        disk = os.statvfs(ballast.fileno())
        os.posix_fallocate(ballast.fileno(), 0, disk.f_bavail * disk.f_frsize)


def family(pid: int) -> set[int]:
    """Return the running descendants of a process."""
    parents = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = place.read_text(errors="replace").rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            parents[int(place.parent.name)] = int(parent)
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def runs(pid: int) -> bool:
    """Return whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
