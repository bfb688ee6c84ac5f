"""Write files atomically, and hash files of any size without holding them in memory."""

import base64
import errno
import hashlib
import os
import shutil
import tempfile
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
"""Most files of a SavedModel, which has about ten."""

CHUNK = 1 << 20
"""Bytes read at once."""

_TEMPORARY = 8 << 20
"""Bytes that temporary files take at least; a graph is saved there while it is traced."""

_HASHED_AT_ONCE = 1 << 22
"""Bytes hashed at once: `hashlib.file_digest` takes so few that another busy Python thread would delay it."""

_NO_LINKS = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK})
"""Errors of file systems without hard links (FAT, some network shares)."""

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True)
class Hashes:
    """A file's `size` in bytes, `sha256` in hexadecimal, and `md5` in base64, as object stores give it."""

    size: int
    sha256: str
    md5: str

    @classmethod
    def of(cls, path: Path) -> "Hashes":
        """Compute those of a file.

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
    """Return the contents of a file of at most `most` bytes; a larger one is not read further.

    Raises:
        OSError: it cannot be read.
        MixerError: it is larger.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise MixerError(
            f"{path} has more than {most:,} bytes, the most that was expected: it is another file, or damaged."
        )
    return content


class Hashing:
    """Compute size and hashes of bytes while they are used, so that they need not be read again.

    Each hash has its own thread, in parallel with other use of the bytes: hashing releases the interpreter lock.

    Args:
        md5: whether it is computed too; without it, there is no `result`.
    """

    def __init__(self, *, md5: bool = True) -> None:
        # Stores offer MD5, which detects damage but not tampering; hence sha256 too.
        self._hashes = {"sha256": hashlib.sha256()}
        if md5:
            self._hashes["md5"] = hashlib.md5(usedforsecurity=False)
        self._works = [(one.update, ThreadPoolExecutor(1)) for one in self._hashes.values()]
        self._waiting: list[Future[None]] = []
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for _, thread in self._works:
            thread.shutdown()

    def update(self, chunk: bytes) -> None:
        """Start hashing the next bytes, and wait for the previous ones, so that few are held in memory."""
        before, self._waiting = self._waiting, [thread.submit(update, chunk) for update, thread in self._works]
        self.size += len(chunk)
        for one in before:
            one.result()

    def sha256(self) -> str:
        """Return the sha256 of all bytes so far, in hexadecimal."""
        for one in self._waiting:
            one.result()
        return self._hashes["sha256"].hexdigest()

    def result(self) -> Hashes:
        """Return size and hashes of all bytes so far."""
        return Hashes(self.size, self.sha256(), base64.b64encode(self._hashes["md5"].digest()).decode())


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the path of a file to the error of a full disk: that of a write names none."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _NO_SPACE:
            error.filename = os.fspath(path)
        raise


@contextmanager
def written_whole(path: Path, *, replace: bool = True) -> Iterator[BinaryIO]:
    """Yield a temporary file that moves to `path` when the block succeeds, and is removed when it fails.

    A reader sees the old content or the new. For code that needs the temporary file by its path: that is its `name`.

    Args:
        path: of the file.
        replace: whether an existing file may be replaced.

    Raises:
        FileExistsError: it may not, and `path` exists when the block ends.
        OSError: it cannot be written.
    """
    with naming(path), temporary_file(path) as file:
        yield file
        file.close()  # which writes too
        partial = Path(file.name)
        if replace:
            partial.replace(path)
        else:
            _put_new(partial, path)


def _put_new(partial: Path, path: Path) -> None:
    """Rename a file by an operation that fails if the name is taken."""
    try:
        path.hardlink_to(partial)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with uninterrupted():  # a process killed here leaves an empty file, which is no model's and is refused
            path.touch(exist_ok=False)  # ours from here on
            try:
                partial.replace(path)
            except OSError:
                path.unlink()
                raise


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file atomically: a reader sees the old content or the new.

    Raises:
        OSError: it cannot be written.
    """
    with written_whole(path) as file:
        file.write(content)


def megabytes(size: int) -> str:
    """Return a number of bytes in MB (10^6)."""
    return f"{size / 1e6:,.1f} MB"


def require_room(out: Path, needed: int, advice: str) -> str:
    """Check that a directory has enough free space; return the bytes needed and free, in words.

    Raises:
        UsageError: more bytes are needed than free; the message ends with the advice.
    """
    free = shutil.disk_usage(out).free
    if needed > free:
        raise UsageError(f"{out} has {megabytes(free)} free, but {megabytes(needed)} are needed: {advice}")
    return f"{megabytes(needed)} of disk space needed in {out}, {megabytes(free)} free"


def require_temporary_room() -> None:
    """Check that there is some free space for temporary files.

    Raises:
        UsageError: there is not.
    """
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < _TEMPORARY:
        raise UsageError(
            f"temporary files are in {folder}, which has {megabytes(free)} free, but {megabytes(_TEMPORARY)} are "
            "needed: free some space there, or set TMPDIR to another directory."
        )
