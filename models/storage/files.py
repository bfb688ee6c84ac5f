"""Files of any size: written whole or not at all, and hashed without being held in memory."""

import base64
import errno
import hashlib
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from models.errors import MixerError, UsageError
from models.storage.temporary import temporary_file, uninterrupted

MOST_FILES = 1000
"""Of a SavedModel, which has some ten."""

CHUNK = 1 << 20
"""Bytes read at once."""

_HASHED_AT_ONCE = 1 << 22
"""Bytes: `hashlib.file_digest` takes so few that another busy thread of Python's would hold it up."""

_NO_LINKS = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK})
"""What file systems without hard links (FAT, some network shares) say of one."""


@dataclass(frozen=True)
class Hashes:
    """A file's `size` in bytes, `sha256` in hexadecimal, and `md5` in base64, as object stores give it."""

    size: int
    sha256: str
    md5: str


def hash_file(path: Path) -> Hashes:
    """Return size and hashes of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file, Hashing() as hashing:
        while chunk := file.read(CHUNK):
            hashing.update(chunk)
        return hashing.result()


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_HASHED_AT_ONCE):
            digest.update(chunk)
    return digest.hexdigest()


def read_small(path: Path, most: int) -> bytes:
    """Return the contents of a file of at most `most` bytes; of a larger one no more is read.

    Raises:
        OSError: it cannot be read.
        MixerError: it is larger.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise MixerError(f"{path} has more than the {most:,} bytes expected at most. Get the right file.")
    return content


class FileHashes:
    """The hashes of files, each of which is read once; of files that nobody changes meanwhile."""

    def __init__(self) -> None:
        self._known: dict[Path, Hashes] = {}

    def note(self, path: Path, hashes: Hashes) -> None:
        """Take what was found where a file was read for something else too."""
        self._known[path] = hashes

    def of(self, path: Path) -> Hashes:
        """Return the hashes of a file.

        Raises:
            OSError: it cannot be read.
        """
        if path not in self._known:
            self._known[path] = hash_file(path)
        return self._known[path]


class Hashing:
    """The size and hashes of bytes that come by, so that nobody need read them again.

    Each hash has a thread, beside whatever else is done with the bytes: hashing leaves Python to others meanwhile.
    """

    def __init__(self) -> None:
        # MD5 is what stores offer: it tells damage, not malice; sha256 stands beside it.
        self._sha256, self._md5, self._size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
        self._works = [(one.update, ThreadPoolExecutor(1)) for one in (self._sha256, self._md5)]
        self._waiting: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for _, thread in self._works:
            thread.shutdown()

    def update(self, chunk: bytes) -> None:
        """Take the next bytes; those before the last ones are done with by then, so that few are held in memory."""
        before, self._waiting = self._waiting, [thread.submit(update, chunk) for update, thread in self._works]
        self._size += len(chunk)
        for one in before:
            one.result()

    def result(self) -> Hashes:
        """Return the hashes of all that came by."""
        for one in self._waiting:
            one.result()
        return Hashes(self._size, self._sha256.hexdigest(), base64.b64encode(self._md5.digest()).decode())


@contextmanager
def written_whole(path: Path, *, replace: bool = True) -> Iterator[BinaryIO]:
    """Give a file to write into, which takes its place at `path` when the block ends well; else nothing is left of it.

    A reader sees the old content or the new.

    Args:
        path: of the file.
        replace: whether it may take the place of another.

    Raises:
        FileExistsError: it may not, and there is one by the time that it is whole.
        OSError: it cannot be written.
    """
    with placed_whole(path, replace=replace) as (_, file):
        yield file


@contextmanager
def placed_whole(path: Path, *, replace: bool = True) -> Iterator[tuple[Path, BinaryIO]]:
    """Give the file of `written_whole` with its path until then, for who writes or reads it by its path."""
    with temporary_file(path) as (partial, file):
        yield partial, file
        file.close()
        if replace:
            partial.replace(path)
        else:
            _put_new(partial, path)


def _put_new(partial: Path, path: Path) -> None:
    """Give a file its name by an operation that fails where the name is taken, whoever took it and whenever."""
    try:
        path.hardlink_to(partial)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with uninterrupted():  # a killed process leaves it empty here, which is no model's file and is refused
            path.touch(exist_ok=False)  # ours from here on
            try:
                partial.replace(path)
            except OSError:
                path.unlink()
                raise


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new.

    Raises:
        OSError: it cannot be written.
    """
    with written_whole(path) as file:
        file.write(content)


def megabytes(size: int) -> str:
    """Return a number of bytes in MB (10^6)."""
    return f"{size / 1e6:,.1f} MB"


def require_room(out: Path, needed: int, advice: str) -> str:
    """Return in words how many bytes are needed in a directory, and how many are free.

    Raises:
        UsageError: more are needed; ends with the advice.
    """
    free = shutil.disk_usage(out).free
    if needed > free:
        raise UsageError(f"{out} has {megabytes(free)} free, {megabytes(needed)} are needed: {advice}")
    return f"{megabytes(needed)} of disk needed in {out}, {megabytes(free)} free"
