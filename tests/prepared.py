"""Runs gsutil in forks of a process that has imported its libraries, which takes most of the time that gsutil takes.

Gsutil itself is imported in each fork, with the configuration, working directory and streams that it was given. Only
its name among the processes differs: tests that look for it there start it as the program does.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

LIBRARIES = (
    "OpenSSL", "apitools.base.py", "cryptography.x509", "google.auth.aws", "google.auth.impersonated_credentials",
    "google.auth.transport.requests", "httplib2", "multiprocessing", "oauth2client.client", "pyasn1_modules.rfc2459",
    "pyasn1_modules.rfc5208", "pyparsing", "requests", "sqlite3",
)  # fmt: skip
"""What gsutil imports and what takes long, but nothing that reads gsutil's configuration while it is imported."""


class Prepared:
    """Starts programs as `subprocess.Popen` does, in forks of the process that listens at an address."""

    PIPE, TimeoutExpired = subprocess.PIPE, subprocess.TimeoutExpired

    def __init__(self, address: str) -> None:
        self.address = address

    def Popen(self, command, *, cwd, stdin, env, start_new_session, **texts):  # noqa: N802 (as in `subprocess`)
        """Start `python -P FILE ARGUMENT ...` in a session of its own."""
        assert command[:2] == [sys.executable, "-P"]
        assert start_new_session
        return Forked(self.address, command, os.path.abspath(cwd), stdin, env)  # noqa: PTH100 - as `subprocess`


class Starter(Prepared):
    """The same, with that process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(os.fspath(folder / "prepared.socket"))
        command = [sys.executable, "-P", __file__, self.address]
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.server.stdout.readline()  # it listens

    def stop(self) -> None:
        self.server.communicate()


class Forked:
    """What `subprocess.Popen` is of a process, as far as the program uses it."""

    def __init__(self, address, command, cwd, stdin, env):
        self.args, self.returncode = command, None
        # In memory, so that a full disk is no matter; closed by `__exit__`.
        self._streams = [os.fdopen(os.memfd_create(name), "w+b") for name in ("output", "errors")]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(address)
        given = json.dumps([command[2:], cwd, env]).encode()
        socket.send_fds(self._socket, [given], [stdin, *(stream.fileno() for stream in self._streams)])
        self.pid = json.loads(self._socket.recv(100))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.wait()
        for one in (self._socket, *self._streams):
            one.close()

    def wait(self, timeout=None):
        if self.returncode is None:
            if not select.select([self._socket], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = json.loads(self._socket.recv(100))
        return self.returncode

    def poll(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def communicate(self, timeout=None):
        self.wait(timeout)
        said = []
        for stream in self._streams:
            stream.seek(0)
            said.append(stream.read().decode("utf-8", "replace"))
        return tuple(said)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)


def serve(address: str) -> None:
    """Fork for each connection, until standard input ends."""
    for library in LIBRARIES:
        importlib.import_module(library)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address)
    listener.listen()
    print("ready", flush=True)  # noqa: T201
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno())
    begun = {}
    while True:
        ready, _, _ = select.select([listener, woken, 0], [], [])
        if 0 in ready:
            return
        if woken in ready:
            woken.recv(1000)
            for pid in [*begun]:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    with begun.pop(pid) as connection, contextlib.suppress(BrokenPipeError):
                        connection.send(json.dumps(os.waitstatus_to_exitcode(status)).encode())
        if listener in ready:
            connection, _ = listener.accept()
            given, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for one in (listener, woken, wake, connection, *begun.values()):
                    one.close()
                become(*json.loads(given), streams)
            begun[pid] = connection
            for stream in streams:
                os.close(stream)
            connection.send(json.dumps(pid).encode())


def become(words, folder, environment, streams):
    """Run a program in this process, and end with it."""
    import atexit
    import runpy

    os.setsid()
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = words
    status = 0
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else bool(end.code)
    except BaseException:  # as Python does where nothing catches it
        sys.excepthook(*sys.exc_info())
        status = 1
    finally:
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(int(status))


if __name__ == "__main__":
    serve(sys.argv[1])
