"""Temporary files and folders, each locked by its process: a lock ends with it, so what can be locked is abandoned.

Numbers of processes would not tell: in containers they repeat, and on a shared disk they are another machine's.
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
"""Between the name of what is being made and what tells two makers of it apart."""
_LOCK = "lock"
"""The file in a temporary folder that is locked."""
_PATIENCE = 5.0
"""Seconds that an ending process waits for what is being put in place, and for what is still being written."""

Rescue = Callable[[Path], None]
"""Takes out of a temporary folder what must not be removed with it."""

_held: dict[Path, Rescue] = {}
_moving = threading.RLock()
_movers: list[int] = []
_awaiting: dict[int, Callable[[], object]] = {}
"""What each thread is to do once it is in no uninterrupted block."""
_closed = threading.Event()
_locked: dict[Path, int] = {}
"""The threads that hold locks of their own."""


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let no signal end the process before the block is done; for a few renames, not more."""
    thread = threading.get_ident()
    _movers.append(thread)  # before the lock is taken, until it is given back: nobody may stop this thread holding it
    try:
        with _moving:
            yield
    finally:
        _movers.remove(thread)
        if thread not in _movers and thread in _awaiting:
            _awaiting.pop(thread)()


def when_interruptible(call: Callable[[], object]) -> None:
    """Call this at once, or where this thread is in uninterrupted blocks, at the end of the outermost."""
    thread = threading.get_ident()
    if thread in _movers:
        _awaiting[thread] = call
    else:
        call()


def let_none_begin() -> bool:
    """Wait until no thread is in an uninterrupted block, and let none begin another; tell whether that came about."""
    if not _closed.is_set() and _moving.acquire(timeout=_PATIENCE):  # and never given back
        _closed.set()
    return _closed.is_set()


@contextmanager
def temporary_file(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Give a new file beside `path`, `.<name>.partial-...`, to write into; at the end it is removed if it is there.

    What ended processes left in that folder is removed too.

    Raises:
        OSError: it cannot be written.
    """
    sweep_files(path.parent)
    with uninterrupted():
        partial, lock = _claim(lambda: path.with_name(f".{path.name}{PARTIAL}{_random()}"), lambda made: made)
        _held[partial] = _nothing
    try:
        with os.fdopen(os.dup(lock), "wb") as file:  # of a copy: closing the last one gives the lock away
            yield partial, file
    finally:
        with _freeing(lock):
            try:
                partial.unlink(missing_ok=True)
            finally:
                _held.pop(partial, None)


@contextmanager
def temporary_folder(parent: Path, prefix: str, *, rescue: Rescue | None = None, mode: int = 0o777) -> Iterator[Path]:
    """Give a new folder of this prefix for as long as the block runs; what ended processes left of such is removed.

    Args:
        parent: where it is made.
        prefix: of its name.
        rescue: called before it is removed; if that fails (OSError), the folder stays for the next one to try.
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
    """Hold the lock of a path alone, among processes and threads, for a block; one that this thread holds it holds on.

    The file of this path is there for nothing else, and is removed at the end.

    Args:
        path: of the lock.
        awaited: called before another holder is waited for; without it, none is.
        needed: whether to refuse a file system that locks nothing, rather than to go on without.

    Raises:
        BlockingIOError: another holds it, and is not to be waited for.
        OSError: the file cannot be made, or not be locked.
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
        with _freeing(lock), uninterrupted():  # removed while it is held: who waits for it sees that it is nobody's
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
        with suppress(OSError):  # another one's, or another was quicker
            if left.is_file() and (lock := _lock(left, os.O_RDWR)) is not None:
                with _freeing(lock):
                    left.unlink(missing_ok=True)


def left_folders(parent: Path, prefix: str) -> Iterator[Path]:
    """Give the temporary folders of this prefix in a folder, whoever made them."""
    return _named(parent, re.escape(prefix))


def sweep(parent: Path, prefix: str, rescue: Rescue) -> None:
    """Remove the temporary folders of this prefix that ended processes left in a folder."""
    for left in left_folders(parent, prefix):
        with suppress(OSError):  # another one's, or another was quicker
            if left.is_symlink() or left.stat().st_uid != os.geteuid():
                continue
            if not (left / _LOCK).exists():
                left.rmdir()  # killed before it was locked, or after all was removed; else it is not empty
            elif (lock := _lock(left / _LOCK, os.O_RDWR)) is not None:
                with _freeing(lock):
                    _clear(left, rescue)


def remove_all() -> None:
    """Remove what this process has of temporary files and folders, and let no thread make or place anything more.

    Where a thread does not come to the end of putting something in place, what that may need stays for the next run.
    """
    none_moves = let_none_begin()
    for path, rescue in list(_held.items()):
        if not none_moves and (rescue is not _nothing or not path.is_dir()):
            continue
        if path.is_dir():
            until = time.monotonic() + _PATIENCE
            while _clear(path, rescue) and time.monotonic() < until:
                time.sleep(0.01)  # a thread still writes there
        else:
            path.unlink(missing_ok=True)


def _clear(folder: Path, rescue: Rescue) -> bool:
    """Remove a folder, its lock last, so that what is left of it is still found; return whether something is."""
    try:
        rescue(folder)
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != _LOCK:
                path.unlink(missing_ok=True)
        if [path.name for path in folder.iterdir()] == [_LOCK]:
            (folder / _LOCK).unlink()
            folder.rmdir()
    except OSError:
        pass
    return folder.exists()


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
    """Give a lock away at the end of a block, whatever happens in it."""
    try:
        yield
    finally:
        os.close(lock)


def _claim(make: Callable[[], Path], lock_of: Callable[[Path], Path]) -> tuple[Path, int]:
    """Make something that is locked, with the descriptor that holds the lock."""
    while True:  # a sweeper may take it away before it is locked
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
    """Return a descriptor that holds the lock of a file, or None if it has another holder or another file its name."""
    lock = os.open(path, flags | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), path.stat()):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:  # this file system locks nothing, so nothing here is ever found abandoned
        if not needed:
            return lock
        os.close(lock)
        raise
    os.close(lock)
    return None
