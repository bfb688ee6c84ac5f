"""Temporary files and folders, each locked by its process; one that can be locked is abandoned.

A lock ends with its process. Process ids would not do: they repeat in containers, and on a shared disk they may be
another machine's.
"""

import errno
import fcntl
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial-"
"""Between the final name of a temporary file and its random suffix."""
_LOCK = "lock"
"""Name of the lock file in a temporary folder."""
_PATIENCE = 5.0
"""Seconds that an ending process waits for files being put in place, and for threads that are still writing."""

Rescue = Callable[[Path], None]
"""Called with a temporary folder to move out what must not be removed with it."""

_held: dict[Path, Rescue] = {}
_moving = threading.RLock()
_movers: list[int] = []
_awaiting: dict[int, Callable[[], object]] = {}
"""What each thread is to call at the end of its outermost uninterrupted block."""
_closed = threading.Event()
_locked: dict[Path, int] = {}
"""Path of a lock -> id of the thread that holds it."""


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay signals that end the process until the block is done; only for a few renames."""
    thread = threading.get_ident()
    _movers.append(thread)  # until the lock is released: this thread must not be stopped while it holds it
    try:
        with _moving:
            yield
    finally:
        _movers.remove(thread)
        if thread not in _movers and thread in _awaiting:
            _awaiting.pop(thread)()


def when_interruptible(call: Callable[[], object]) -> None:
    """Call `call` at once or, if this thread is in uninterrupted blocks, at the end of the outermost."""
    thread = threading.get_ident()
    if thread in _movers:
        _awaiting[thread] = call
    else:
        call()


def let_none_begin() -> bool:
    """Wait until no thread is in an uninterrupted block, and let none begin; return whether that succeeded in time."""
    if not _closed.is_set() and _moving.acquire(timeout=_PATIENCE):  # and never released
        _closed.set()
    return _closed.is_set()


@contextmanager
def temporary_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file beside `path`, to write into; remove it at the end if it still exists.

    Its `name` is its own path, `.<name>.partial-...`.
    Files that ended processes left in that folder are removed too.

    Raises:
        OSError: it cannot be written.
    """
    sweep_files(path.parent)
    with uninterrupted():
        partial, lock = _claim(lambda: path.with_name(f".{path.name}{PARTIAL}{_random()}"), lambda made: made)
        _held[partial] = _nothing
    try:
        # A duplicate: closing the last descriptor releases the lock.
        with open(partial, "wb", opener=lambda *_: os.dup(lock)) as file:
            yield file
    finally:
        with _freeing(lock):
            try:
                partial.unlink(missing_ok=True)
            finally:
                _held.pop(partial, None)


@contextmanager
def temporary_folder(parent: Path, prefix: str, *, rescue: Rescue | None = None, mode: int = 0o777) -> Iterator[Path]:
    """Yield a new folder with this prefix for the block; remove such folders that ended processes left.

    Args:
        parent: where it is made.
        prefix: of its name.
        rescue: called before the folder is removed; if that fails (OSError), the folder stays for the next sweep.
        mode: of the folder, less the umask.

    Raises:
        OSError: it cannot be made.
    """
    rescue = rescue or _nothing

    def make() -> Path:
        folder = parent / f"{prefix}{_random()}"
        folder.mkdir(mode)
        return folder

    sweep(parent, prefix, rescue)
    with uninterrupted():
        folder, lock = _claim(make, lambda made: made / _LOCK)
        _held[folder] = rescue
    try:
        yield folder
    finally:
        with _freeing(lock):
            try:
                _clear(folder, rescue)
            finally:
                _held.pop(folder, None)


@contextmanager
def locked(path: Path, awaited: Callable[[], object] | None, *, needed: bool = True) -> Iterator[None]:
    """Hold the exclusive lock of a path for the block, among processes and threads; reentrant in its thread.

    The file at this path serves only as the lock, and is removed at the end.

    Args:
        path: of the lock.
        awaited: called before waiting for another holder; None to raise instead.
        needed: whether to raise on a file system without locks, rather than go on unlocked.

    Raises:
        BlockingIOError: another holds it, and `awaited` is None.
        OSError: the file cannot be made or locked.
    """
    path = path.absolute()
    if _locked.get(path) == threading.get_ident():
        yield
        return
    while (lock := _try_lock(path, needed=needed)) is None:
        if awaited is None:
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), os.fspath(path))
        awaited()
        awaited = bool  # once is enough
        _await(path)
    try:
        yield
    finally:
        with _freeing(lock), uninterrupted():  # removed while held, so that a waiter sees that it is gone
            _locked.pop(path)
            _held.pop(path)
            path.unlink(missing_ok=True)


def _try_lock(path: Path, *, needed: bool) -> int | None:
    with uninterrupted():
        lock = _lock(path, os.O_RDWR | os.O_CREAT, needed=needed)
        if lock is not None:
            _held[path] = _nothing
            _locked[path] = threading.get_ident()
        return lock


def _await(path: Path) -> None:
    """Wait until nobody holds a lock."""
    with suppress(FileNotFoundError):
        lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        with _freeing(lock):
            fcntl.flock(lock, fcntl.LOCK_EX)


def sweep_files(folder: Path) -> None:
    """Remove the temporary files that ended processes left in a folder."""
    for left in _named(folder, rf"\..+{re.escape(PARTIAL)}"):
        with suppress(OSError):  # another user's, or another process was quicker
            if left.is_file() and (lock := _lock(left, os.O_RDWR)) is not None:
                with _freeing(lock):
                    left.unlink(missing_ok=True)


def left_folders(parent: Path, prefix: str) -> Iterator[Path]:
    """Return the temporary folders with this prefix in a folder, whoever made them."""
    return _named(parent, re.escape(prefix))


def sweep(parent: Path, prefix: str, rescue: Rescue) -> None:
    """Remove the temporary folders with this prefix that ended processes left in a folder."""
    for left in left_folders(parent, prefix):
        with suppress(OSError):  # another user's, or another process was quicker
            if left.is_symlink() or left.stat().st_uid != os.geteuid():
                continue
            if not (left / _LOCK).exists():
                left.rmdir()  # left before it was locked or after it was cleared; otherwise not empty, and stays
            elif (lock := _lock(left / _LOCK, os.O_RDWR)) is not None:
                with _freeing(lock):
                    _clear(left, rescue)


def remove_all() -> None:
    """Remove this process's temporary files and folders, and let no thread put anything more in place.

    If a thread does not finish putting something in place, the folders that it may need stay for the next run.
    """
    none_moves = let_none_begin()
    held = [one for one in _held.items() if none_moves or (one[1] is _nothing and one[0].is_dir())]
    until = time.monotonic() + _PATIENCE
    while left := [(path, rescue) for path, rescue in held if os.path.lexists(path)]:
        for path, rescue in left:
            if path.is_dir():
                _clear(path, rescue)
            else:
                path.unlink(missing_ok=True)
        if time.monotonic() > until:
            return
        time.sleep(0.01)  # a thread may still write there, and TensorFlow makes a folder again that is gone


def _clear(folder: Path, rescue: Rescue) -> None:
    """Remove a folder, its lock last, so that remains are still found."""
    try:
        rescue(folder)
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != _LOCK:
                path.unlink(missing_ok=True)
        if any(path.name != _LOCK for path in folder.iterdir()):
            return
        (folder / _LOCK).unlink(missing_ok=True)
        folder.rmdir()
    except OSError:
        pass


def _named(parent: Path, prefix: str) -> Iterator[Path]:
    pattern = re.compile(prefix + "[0-9a-f]{16}")
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        yield from [path for path in parent.iterdir() if pattern.fullmatch(path.name)]


def _random() -> str:
    return os.urandom(8).hex()


def _nothing(_: Path) -> None:
    pass


@contextmanager
def _freeing(lock: int) -> Iterator[None]:
    """Release a lock at the end of the block, whatever happens in it."""
    try:
        yield
    finally:
        os.close(lock)


def _claim(make: Callable[[], Path], lock_of: Callable[[Path], Path]) -> tuple[Path, int]:
    """Make a file or folder and lock it; return it with the descriptor that holds the lock."""
    while True:  # a sweep may remove it before it is locked
        made = make()
        try:
            lock = _lock(lock_of(made), os.O_RDWR | os.O_CREAT, needed=False)
        except OSError as error:
            if made.is_dir():
                made.rmdir()
            elif isinstance(error, FileNotFoundError) and made != lock_of(made):
                continue
            raise
        if lock is not None:
            return made, lock


def _lock(path: Path, flags: int, *, needed: bool = True) -> int | None:
    """Lock a file and return its descriptor; None if another holds the lock, or the path names another file by now."""
    lock = os.open(path, flags | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), path.stat()):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:  # a file system without locks, where nothing is ever found abandoned
        if not needed:
            return lock
        os.close(lock)
        raise
    os.close(lock)
    return None
