"""Read archives of unknown origin (`.tar.gz`), refusing those with a harmful member or an incomplete end."""

import gzip
import hashlib
import io
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from isal import igzip, igzip_lib

from models.errors import MixerError, shown
from models.storage.files import CHUNK, MOST_FILES, Hashes, Hashing

MOST_BYTES = 4 << 30
"""Most bytes of an unpacked archive. The largest model of the collection has 0.93 GB, and a custom one may have a few
times that; more is taken for a bomb: gzip packs a gigabyte of zeros into one megabyte."""

DENSEST, SMALL, MOST_MORE = 10, 1 << 27, 1 << 29
"""Limits of `most_unpacked`: a multiple of the archive's size, bytes always allowed, and bytes beyond its size.

Weights shrink by a tenth, zero heads to nothing, bfloat16 values in float32 to a half (0.49 GB of the largest model);
anything denser would take seconds to read before it is refused."""

MOST_MEMBERS = MOST_FILES
"""Most members: a million empty files would fill a disk without containing a byte."""

MOST_AT_ONCE = 1 << 20
"""Most bytes that `tarfile` may read at once: it reads a long name or a list of attributes into memory whole, whatever
length the archive claims for it; usual ones have a few kB."""

MOST_OF_HEADERS = 4 << 20
"""Most bytes of all headers: `tarfile` keeps their contents in memory, and follows chains of headers to the end."""

MOST_ATTRIBUTES = 10_000
"""Most attributes of all members together: `tarfile` copies global attributes to each member."""

_DIGITS = re.compile(rb"\d{65}")
"""More digits in a row than any header has: before Python 3.11.10, `tarfile` takes time quadratic in their number."""

_DAMAGE: tuple[type[Exception], ...] = (
    *(tarfile.TarError, gzip.BadGzipFile, cast("type[Exception]", igzip_lib.IsalError)),
    *(EOFError, ValueError, OverflowError, RecursionError),
)
"""Exceptions that `igzip` and `tarfile` raise for damaged archives."""

_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)

_Take = Callable[[tarfile.TarFile, tarfile.TarInfo], bool | None]
"""Called with a member of an archive; returns True to stop reading."""


def most_unpacked(size: int) -> int:
    """Return how many bytes an archive of `size` bytes may unpack to."""
    return min(MOST_BYTES, max(SMALL, DENSEST * size), size + MOST_MORE)


def extract_archive(path: Path, directory: Path) -> None:
    """Unpack a `.tar.gz` into an existing, empty directory.

    A refused member is never written. After an error the directory may contain the members before it; the caller
    removes it.

    Raises:
        MixerError: it cannot be read, is not such an archive, is cut off or damaged, has more than `MOST_BYTES` or
            `MOST_MEMBERS`, or a member that is neither a file nor a directory below the archive's root, or appears
            twice. The message lists all problems found before reading ended.
    """

    def extract(archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        archive.extract(member, directory, filter="data")

    try:
        _read(path, extract)
    except OSError as error:
        raise MixerError(
            f"{path} cannot be unpacked ({error.strerror or error}): expected a readable .tar.gz, and room for "
            f"its contents in {directory.parent}."
        ) from error


def read_file(path: Path, name: str, most: int) -> bytes | None:
    """Return the contents of a file in a `.tar.gz`, by its path from the root; None if none has at most `most` bytes.

    The archive is read no further than that file.

    Raises:
        MixerError: as `extract_archive`, for what comes before that file.
    """
    content: list[bytes] = []

    def read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bool:
        file = cast("io.BufferedReader | None", archive.extractfile(member))
        if file is None or PurePosixPath(member.name).as_posix() != name or member.size > most:
            return False
        content.append(b"".join(iter(lambda: file.read(CHUNK), b"")))
        return True

    try:
        _read(path, read)
    except OSError as error:
        raise MixerError(f"{path} cannot be read ({error.strerror or error}): expected a readable .tar.gz.") from error
    return content[0] if content else None


@dataclass(frozen=True)
class _MemberDigest:
    """Size and sha256 of a file in an archive."""

    size: int
    sha256: str


@dataclass(frozen=True)
class _ArchiveDigests:
    """The digests of the `files` in a `.tar.gz`, by their paths from its root, and of the `whole`."""

    files: dict[str, _MemberDigest]
    whole: Hashes


def digest_archive(path: Path, most: int = MOST_BYTES) -> _ArchiveDigests:
    """Return the digests of a `.tar.gz` and of every file in it, in one pass; nothing is written.

    Raises:
        MixerError: as `extract_archive`; or it unpacks to more than `most` bytes.
    """
    found = {}

    def digest(archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        file = cast("io.BufferedReader | None", archive.extractfile(member))
        if file is not None:  # else it is a directory
            name = PurePosixPath(member.name).as_posix()
            found[name] = _MemberDigest(member.size, hashlib.file_digest(file, "sha256").hexdigest())

    try:
        with Hashing() as hashing:
            _read(path, digest, hashing.update, most)
            return _ArchiveDigests(found, hashing.result())
    except OSError as error:
        raise MixerError(f"{path} cannot be read ({error.strerror or error}): expected a readable .tar.gz.") from error


def _read(path: Path, take: _Take, watch: Callable[[bytes], None] | None = None, most: int = MOST_BYTES) -> None:
    """Pass each harmless member before the first problem to `take`; raise if there is a problem.

    `watch` gets the archive's bytes in order: all of them, if there is no problem.
    """
    with path.open("rb") as file:
        watched = _Watched(file, watch)
        most = min(most, most_unpacked(os.fstat(file.fileno()).st_size))
        problems = list(_take_members(watched, take, most))
        if watch and not problems:
            while watched.read(CHUNK):
                pass
    if problems:
        said = "".join(f"\n  {problem}" for problem in problems)
        raise MixerError(
            f"{path} is refused:{said}\nExpected a complete .tar.gz of files and directories only. Get it again from "
            "its publisher, or give the unpacked directory."
        )


class _Watched(io.RawIOBase):
    """A file that is read front to back, and passes the bytes read to `watch`."""

    def __init__(self, file: BinaryIO, watch: Callable[[bytes], None] | None) -> None:
        self._file, self._watch = file, watch

    def seekable(self) -> bool:
        return True  # for seeking forwards in the unpacked stream; this file never goes back

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        chunk = self._file.read(len(buffer))
        if self._watch:
            self._watch(chunk)
        buffer[: len(chunk)] = chunk
        return len(chunk)


class _Unpacked(igzip.IGzipFile):
    """The tar stream inside the gzip, with limits on what is read; keeps the `last` bytes read."""

    last = b""
    headers = 0
    """Bytes of headers so far."""
    in_headers = True

    def __init__(self, file: io.RawIOBase, most: int) -> None:
        super().__init__(fileobj=file)  # type: ignore[no-untyped-call]
        self.most = most

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MOST_AT_ONCE:
            if size is None or size < 0:
                raise MixerError("a header claims an impossible number of bytes")
            raise MixerError(f"a header claims {size:,} bytes, more than {MOST_AT_ONCE:,}")
        if self.in_headers:
            self.headers += size
            if self.headers > MOST_OF_HEADERS:
                raise MixerError(f"its headers take more than {MOST_OF_HEADERS:,} bytes")
        self.last = super().read(size)
        self.refuse_bomb(self.tell())
        if self.in_headers and _DIGITS.search(self.last):
            raise MixerError("a header has more digits in a row than any number or name of a model")
        return self.last

    def seek(self, offset: int, whence: int = 0) -> int:
        self.refuse_bomb(offset)
        position: int = super().seek(offset, whence)  # type: ignore[no-untyped-call]
        return position

    def refuse_bomb(self, position: int, who: str = "it") -> None:
        if position > self.most:
            raise MixerError(f"{who} unpacks to more than {self.most:,} bytes, too many for an archive of its size")


def _take_members(file: io.RawIOBase, take: _Take, most: int) -> Iterator[str]:
    """Pass harmless members before the first problem to `take`, and yield all problems."""
    clean, member = True, None
    try:
        with _Unpacked(file, most) as unpacked, tarfile.open(fileobj=unpacked, mode="r:") as archive:
            seen: set[PurePosixPath] = set()
            attributes = 0
            for count, member in enumerate(archive, 1):
                attributes += len(member.pax_headers)
                _refuse_flood(count, attributes, member)
                for fault in _faults(member, seen):
                    clean = False
                    yield f"'{shown(member.name)}' {fault}"
                if clean:  # before a byte of it is unpacked
                    unpacked.refuse_bomb(member.offset_data + member.size, f"with '{shown(member.name)}' it")
                    unpacked.in_headers = False
                    if take(archive, member):
                        return
                    unpacked.in_headers = True
            unpacked.in_headers = False
            yield from _faults_of_the_end(unpacked, archive.offset, member)
    except MixerError as error:
        yield str(error)
    except _DAMAGE as error:
        where = f"cut off or damaged in or after '{shown(member.name)}'" if member else "not a .tar.gz, or damaged"
        yield f"it is {where}: {type(error).__name__}: {shown(error)}"


def _refuse_flood(count: int, attributes: int, member: tarfile.TarInfo) -> None:
    if count > MOST_MEMBERS:
        raise MixerError(f"it has more than {MOST_MEMBERS:,} members; a model has about ten")
    if attributes > MOST_ATTRIBUTES:
        raise MixerError(f"its members have more than {MOST_ATTRIBUTES:,} attributes; those of a model have a few")
    if member.size < 0:  # tarfile would go backwards from here, and loop forever
        raise MixerError(f"'{shown(member.name)}' claims a size of {member.size:,} bytes")


def _faults(member: tarfile.TarInfo, seen: set[PurePosixPath]) -> Iterator[str]:
    """Yield why a member must not be unpacked; add its path to `seen`."""
    path = PurePosixPath(member.name)
    if not member.name.isprintable():
        yield "has characters in its name that are not printable"
    if path.is_absolute():
        yield "is an absolute path"
    if ".." in path.parts:
        yield "leads out of the directory it is unpacked into"
    if member.issym() or member.islnk():
        yield f"is a link (to '{shown(member.linkname)}')"
    elif not member.isdir() and (member.type not in _PLAIN or member.issparse()):
        yield "is neither a plain file nor a directory, but a device, a pipe or a sparse file"
    if not member.isdir():
        if path in seen:
            yield "appears twice"
        seen.add(path)


def _faults_of_the_end(unpacked: _Unpacked, offset: int, last: tarfile.TarInfo | None) -> Iterator[str]:
    """Yield what is wrong after the last member: `tarfile` accepts anything there as the end.

    Reading to the end also makes gzip check its checksum.
    """
    where = f"after '{shown(last.name)}'" if last else "at its start"
    ahead = unpacked.tell() - offset  # bytes already read of the supposed end
    rest, length = unpacked.last[-ahead:] if ahead else unpacked.read(MOST_AT_ONCE), 0
    while rest:
        if rest.count(0) != len(rest):
            yield f"the bytes {where} are neither a member nor the end of an archive"
            return
        length += len(rest)
        rest = unpacked.read(MOST_AT_ONCE)
    if length < tarfile.BLOCKSIZE:
        yield f"its end is missing: it was cut off {where}"
