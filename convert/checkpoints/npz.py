"""Read the archive of a checkpoint front to back, each byte read and hashed once."""

import io
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, cast
from zipfile import BadZipFile, ZipFile, ZipInfo

from isal import isal_zlib

from convert.checkpoints.forms import describe_msgpack
from models.errors import MixerError, shown
from models.progress import Progress

CHUNK = 1 << 22
"""Bytes read at once: many, so that little time is lost if another thread keeps Python busy between reads."""
MOST_OF_CONTENTS = 1 << 20
"""Most bytes of a table of contents: usually about a hundred for each of 294 arrays, millions in a hostile one."""
_PICKLE = "it is a pickle, which is never loaded: that would run the code inside it. Save the arrays with np.savez."
_FOREIGN = {bytes((0x80, protocol)): _PICKLE for protocol in range(2, 6)}
_FOREIGN[b"\x93NUMPY"] = "it is a single array (.npy), not an archive of named ones."
UNREADABLE = (BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OverflowError, struct.error)


class CheckpointError(MixerError):
    """A checkpoint file that cannot be loaded as asked."""


@contextmanager
def opened(path: Path) -> Iterator[io.FileIO]:
    """Open a checkpoint for reading.

    Raises:
        CheckpointError: there is no such file, or it cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            kind = "a directory" if path.is_dir() else "not a regular file"
            raise CheckpointError(f"{path} is {kind}; expected a checkpoint (.npz). Name the file itself.")
        with path.open("rb", buffering=0) as file:
            yield file
    except OSError as error:
        what = {FileNotFoundError: "does not exist", PermissionError: "may not be read by this user"}.get(type(error))
        reason = what or f"cannot be read ({error.strerror or error})"
        raise CheckpointError(f"{path} {reason}. Check the path and its permissions, or fetch it first.") from error


def read_contents(file: io.FileIO, size: int) -> ZipFile:
    """Read the table of contents of a file of `size` bytes.

    Raises:
        CheckpointError: it is not an archive; the message says what it is instead.
    """
    start = file.read(512)
    if not start.startswith(b"PK"):
        raise CheckpointError(_foreign(start, Path(os.fsdecode(file.name))))
    file.seek(max(0, size - (1 << 16)))
    tail = file.read(1 << 16)
    last = tail.rfind(b"PK\5\6")  # the record of 22 bytes that ends an archive
    follow = len(tail) - last - 22
    if last < 0 or follow < 0:
        raise CheckpointError("it starts like an archive, but its end is missing: the file is truncated.")
    if follow:
        raise CheckpointError(f"{follow:,} bytes follow the end of the archive.")
    try:
        return ZipFile(cast(IO[bytes], _Contents(file)))
    except (*UNREADABLE, OSError, MemoryError) as error:
        raise CheckpointError(f"its table of contents is damaged ({shown(error)}).") from error


class _Contents:
    """A file from which `zipfile` reads the table of contents at once; raises if that is too large."""

    def __init__(self, file: io.FileIO) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size: int = -1, /) -> bytes:
        if size > MOST_OF_CONTENTS:
            raise CheckpointError(
                f"its table of contents claims {size:,} bytes, where a checkpoint's has at most {MOST_OF_CONTENTS:,}."
            )
        return self._read(size)


def _foreign(start: bytes, path: Path) -> str:
    """Describe a file that does not start like an archive."""
    if not start:
        return "it is empty."
    if (flax := describe_msgpack(path, start)) is not None:
        return flax
    for sign, what in _FOREIGN.items():
        if start.startswith(sign):
            return what
    text = start.decode("utf-8", errors="ignore").strip()
    if text.startswith("<"):
        return f"it is a web page or a server's answer, not the file: '{shown(text, 60)}'."
    if len(text) > len(start) // 2 and all(letter.isprintable() or letter.isspace() for letter in text):
        return f"it is text, not an archive: '{shown(text, 60)}'."
    return f"it is not an archive: it starts with the bytes {start[:4].hex(' ')}, an archive with 50 4b 03 04."


class Reader:
    """A file for `zipfile` to read members from: front to back, each byte read and hashed once."""

    def __init__(self, file: io.FileIO, size: int, progress: Progress | None) -> None:
        file.seek(0)
        self.sha256, self.position = sha256(), 0
        self._file, self._size, self._progress = file, size, progress
        self.refused = False
        """Whether the file is already refused, so that nothing more is read only for its hash."""

    def seekable(self) -> bool:
        """Return True: the file can be sought forwards."""
        return True

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Read on to an offset; going back raises BadZipFile."""
        offset += self.position if whence == os.SEEK_CUR else 0
        if offset < self.position:
            raise BadZipFile("it overlaps the member before it")
        self.skip_to(offset)
        return self.position

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size`, and hash them."""
        data = self._file.read(min(size, self._size - self.position))
        self._note(data, wanted=size)
        return data

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer with the next bytes, hash them, and return how many there were."""
        count = self._file.readinto(buffer[: self._size - self.position])
        self._note(buffer[:count], wanted=len(buffer))
        return count

    def _note(self, data: bytes | memoryview, wanted: int) -> None:
        if not data and wanted and self.position < self._size:
            raise CheckpointError("it became shorter while it was read.")
        self.sha256.update(data)
        self.position += len(data)
        if self._progress:
            self._progress(self.position, self._size)

    def skip_to(self, offset: int) -> None:
        """Read and hash up to an offset; if the file is refused, skip to it without reading."""
        if self.refused and self.position < offset <= self._size:
            self.position = self._file.seek(offset)
        while self.position < min(offset, self._size):  # a damaged table of contents may name an offset beyond the end
            self.read(min(CHUNK, offset - self.position))


class StoredMember:
    """An uncompressed member that starts at the reader's position, and is read directly into its array.

    `zipfile` would copy it three times, and compute its CRC-32 with slower code.
    """

    def __init__(self, reader: Reader, info: ZipInfo) -> None:
        self._reader, self._info = reader, info
        self._position, self._crc = 0, 0

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._position

    def read(self, size: int = CHUNK, /) -> bytes:
        """Return the next bytes, at most `size`.

        Raises:
            BadZipFile: the member ends here, and its CRC-32 is not that of the table of contents.
        """
        data = self._reader.read(min(size, self._info.file_size - self._position))
        self._sum(data)
        return data

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer up to the end of the member, and return the number of bytes; raises as `read`."""
        count = 0  # some file systems return fewer bytes than requested
        while left := min(len(buffer) - count, self._info.file_size - self._position):
            got = self._reader.readinto(buffer[count : count + left])
            if not got:
                break
            self._sum(buffer[count : count + got])
            count += got
        return count

    def _sum(self, data: bytes | memoryview) -> None:
        self._crc = isal_zlib.crc32(data, self._crc)
        self._position += len(data)
        if self._position == self._info.file_size and self._crc != self._info.CRC:
            raise BadZipFile(f"its CRC-32 is {self._crc:08x}, expected {self._info.CRC:08x}")
