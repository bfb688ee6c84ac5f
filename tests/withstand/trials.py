"""Commands, run in forks of a process that has imported everything: a fresh process takes seconds for that.

What a fork writes is what a fresh process writes. Workers of a command are forked too, before it begins, as its
children; gsutil is started as the tests do (`prepared`).
"""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import forkserver
from pathlib import Path

from withstand.events import Fault, arm, family, runs, send

PATIENCE = 300.0
"""Seconds after which a command is said to hang."""
_LAST = 20.0
"""Seconds in which processes must end after the command that started them."""
MARK = "WITHSTAND"
"""An environment variable that each process of a trial has."""

_PATH = "PYTHONPATH"
_FORKS = multiprocessing.get_context("forkserver")


@cache
def _prepare_forks() -> None:
    """Start the process that is forked; Python 3.11 does not give it `sys.path`."""
    _FORKS.set_forkserver_preload(["withstand.imports"])
    before = os.environ.get(_PATH)
    os.environ[_PATH] = os.pathsep.join(sys.path)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop(_PATH)
        if before is not None:
            os.environ[_PATH] = before


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    """The exit status; minus the signal that killed it."""
    seconds: float
    said: str
    events: int
    """File-system events of the command itself."""
    worker_events: int
    """The most of one worker."""
    left: tuple[str, ...] = ()
    """Processes that did not end with it."""


@dataclass(frozen=True)
class Order:
    """A command to run in a fork."""

    words: tuple[str, ...]
    folder: Path
    """Working directory, whose events are counted; `cache` and `tmp` in it are the cache and the temporary folder."""
    notes: Path
    """Folder of what is said and counted."""
    workers: int = 0
    """Workers that the command starts."""
    fault: Fault | None = None
    gsutil: str | None = None
    """Address of prepared gsutils."""
    environment: Mapping[str, str] = field(default_factory=dict)
    largest: int | None = None
    """Most bytes of a file (RLIMIT_FSIZE)."""

    def start(self) -> multiprocessing.Process:
        _prepare_forks()
        shutil.rmtree(self.notes, ignore_errors=True)
        self.notes.mkdir(parents=True)
        process = _FORKS.Process(target=become, args=(self,))
        process.start()
        return process

    def run(self, disturb: Callable[[int], None] | None = None, patience: float = PATIENCE) -> Ended:
        """Run it to its end, or for `patience` seconds; `disturb` is called with its process id once it has begun."""
        process, until = self.start(), time.monotonic() + patience
        while not (self.notes / "events").exists() and process.is_alive() and time.monotonic() < until:
            time.sleep(0.001)  # the fork is not yet the command
        began = time.monotonic()
        if disturb is not None:
            disturb(process.pid)
        process.join(max(0.0, until - time.monotonic()))
        seconds = time.monotonic() - began
        if process.exitcode is None:
            for pid in (*family(process.pid), process.pid):
                send(pid, signal.SIGKILL)
            process.join()
        return Ended(
            process.exitcode,
            seconds,
            (self.notes / "said").read_text(errors="replace") if (self.notes / "said").is_file() else "",
            _size(self.notes / "events"),
            max(map(_size, self.notes.glob("events-*")), default=0),
            self._left(),
        )

    def _left(self) -> tuple[str, ...]:
        """Return the processes that do not end by themselves, after ending them."""
        until = time.monotonic() + _LAST
        while (left := self._running()) and time.monotonic() < until:
            time.sleep(0.02)
        for pid in left:
            send(pid, signal.SIGKILL)
        return tuple(left.values())

    def _running(self) -> dict[int, str]:
        """Return the running processes of this command: those that were forked, and those that have its mark."""
        mark = f"{MARK}={self.notes}".encode()
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (place / "environ").read_bytes().split(b"\0"):
                    found[int(place.name)] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        forked = self.notes / "forked"
        pids = map(int, forked.read_text().split()) if forked.is_file() else ()
        return {pid: said for pid, said in (found | dict.fromkeys(pids, "a worker")).items() if runs(pid)}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


# --- in the fork ---


def become(order: Order) -> None:
    """Run a command in this process, as the program does, and end with it."""
    os.setsid()
    said = os.open(order.notes / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(said, stream)
    os.chdir(order.folder)
    os.environ.pop(_PATH, None)
    os.environ |= {
        MARK: str(order.notes),
        "TMPDIR": str(order.folder / "tmp"),
        "MIXER_JAX2TF_CACHE": str(order.folder / "cache"),
        **order.environment,
    }
    if order.workers:
        _prepare_workers(order)
    if order.gsutil is not None:
        from prepared import Prepared

        from models.storage import gsutil

        gsutil.subprocess = Prepared(order.gsutil)
    if order.largest is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (order.largest, order.largest))
    from convert.cli import main

    fault = order.fault if order.fault is None or not order.fault.worker else None
    arm(order.folder, order.notes / "events", fault)
    sys.argv = ["mixer-jax2tf", *order.words]
    main()


class _Workers:
    """What `subprocess` is for `convert.pipeline.processes`, with workers that are forked already."""

    DEVNULL = subprocess.DEVNULL

    def __init__(self, order: Order) -> None:
        self._waiting = [_Worker(order, number) for number in range(order.workers)]

    def Popen(self, command, **options):  # noqa: N802 (as in `subprocess`)
        if not self._waiting:
            return subprocess.Popen(command, **options)
        worker = self._waiting.pop(0)
        worker.begin(command[2], **options)
        return worker


class _Worker:
    """A child of this process that waits for its program."""

    def __init__(self, order: Order, number: int) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            self._socket.close()
            _become_worker(order, number, theirs)
        theirs.close()
        with (order.notes / "forked").open("a") as forked:
            forked.write(f"{self.pid}\n")

    def begin(self, program, *, stdin, stdout, stderr, pass_fds, start_new_session) -> None:
        assert start_new_session
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123
            out = 1 if stdout is None else nothing.fileno()
            streams = [stdin, out, 2 if stderr is None else stderr.fileno(), *pass_fds]
            given = json.dumps([program, dict(os.environ), list(pass_fds)]).encode()
            socket.send_fds(self._socket, [given], streams)

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _prepare_workers(order: Order) -> None:
    from convert.pipeline import processes

    processes.subprocess = _Workers(order)


def _become_worker(order: Order, number: int, orders: socket.socket) -> None:
    given, streams, _, _ = socket.recv_fds(orders, 1 << 20, 10)
    if not given:
        os._exit(0)
    program, environment, numbers = json.loads(given)
    os.setsid()
    orders.close()
    os.environ.clear()
    os.environ.update(environment)
    _place(streams, [0, 1, 2, *numbers])
    fault = order.fault if order.fault is not None and order.fault.worker else None
    arm(order.folder, order.notes / f"events-{number}", fault)
    exec(compile(program, "worker", "exec"), {"__name__": "__main__"})  # noqa: S102
    os._exit(0)


def _place(descriptors: list[int], places: list[int]) -> None:
    """Give descriptors the numbers that a program expects."""
    import fcntl

    above = max([*places, *descriptors]) + 1
    moved = [fcntl.fcntl(one, fcntl.F_DUPFD, above) for one in descriptors]
    for one in descriptors:
        os.close(one)
    for one, place in zip(moved, places, strict=True):
        os.dup2(one, place)
        os.close(one)
