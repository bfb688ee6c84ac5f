"""Archives from elsewhere (`.tar.gz`): read only where every member is harmless and the whole is complete."""

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from models.errors import MixerError
from models.records import FileDigest

MOST_BYTES = 4 << 30
"""Unpacked, all in all. The largest model of the collection has 0.93 GB, and one's own Mixer may have a few times that;
more is no model but a bomb: gzip packs a gigabyte of zeros into one megabyte."""

MOST_MEMBERS = 1000
"""A SavedModel has some ten files; a million empty ones fill a disk without a byte in them."""

MOST_AT_ONCE = 1 << 20
"""Bytes that `tarfile` may ask for at once: it reads a long name or a list of attributes into memory whole, whatever
length the archive claims for it, and wants a few kB of an honest one."""

_DAMAGE = (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError, OverflowError, RecursionError)
"""What `gzip` and `tarfile` say of damaged archives."""

_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)
_LONGEST_NAME_SHOWN = 100


def extract_archive(path: Path, directory: Path) -> None:
    """Unpack a `.tar.gz` into an existing, empty directory.

    A member that is refused is never written. After an error, what came before it may lie in the directory, which is
    the caller's to remove.

    Raises:
        MixerError: it cannot be read, is no such archive, is cut off or damaged, has more than `MOST_BYTES` or
            `MOST_MEMBERS`, or a member that is neither a file nor a directory below the archive's root, or stands
            twice. Says everything that was found up to where reading ended.
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


def digest_archive(path: Path) -> dict[str, FileDigest]:
    """Return size and sha256 of every file in a `.tar.gz`, by its path from the archive's root; nothing is written.

    Raises:
        MixerError: as `extract_archive`.
    """
    found = {}

    def digest(archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        file = cast("io.BufferedReader | None", archive.extractfile(member))
        if file is not None:  # else it is a directory
            name = PurePosixPath(member.name).as_posix()
            found[name] = FileDigest(sha256=hashlib.file_digest(file, "sha256").hexdigest(), size=member.size)

    try:
        _read(path, digest)
    except OSError as error:
        raise MixerError(f"{path} cannot be read ({error.strerror or error}): expected a readable .tar.gz.") from error
    return found


def _read(path: Path, take: Callable[[tarfile.TarFile, tarfile.TarInfo], None]) -> None:
    """Give each harmless member, up to the first problem, to `take`, and refuse the archive if there is a problem."""
    with path.open("rb") as file:
        problems = list(_take_members(file, take))
    if problems:
        said = "".join(f"\n  {problem}" for problem in problems)
        raise MixerError(
            f"{path} is refused:{said}\nExpected a complete .tar.gz of files and directories only. Get it again from "
            "its publisher, or give the unpacked directory."
        )


class _Unpacked(gzip.GzipFile):
    """The tar inside the gzip, as far as it may be read."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MOST_AT_ONCE:
            raise MixerError(f"a header claims {size:,} bytes, more than {MOST_AT_ONCE:,}")
        content = super().read(size)
        self._refuse_bomb(self.tell())
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        self._refuse_bomb(offset)
        return super().seek(offset, whence)

    def _refuse_bomb(self, position: int) -> None:
        if position > MOST_BYTES:
            raise MixerError(f"it unpacks to more than {MOST_BYTES:,} bytes, which no model has")


def _take_members(file: BinaryIO, take: Callable[[tarfile.TarFile, tarfile.TarInfo], None]) -> Iterator[str]:
    """Take what is harmless, up to the first problem, and yield all problems."""
    clean, member = True, None
    try:
        with _Unpacked(fileobj=file) as unpacked, tarfile.open(fileobj=unpacked, mode="r:") as archive:
            seen: set[PurePosixPath] = set()
            for count, member in enumerate(archive, 1):
                _refuse_flood(count, member)
                for fault in _faults(member, seen):
                    clean = False
                    yield f"{_shown(member.name)} {fault}"
                if clean:
                    take(archive, member)
            yield from _faults_of_the_end(unpacked, archive.offset, member)
    except MixerError as error:
        yield str(error)
    except _DAMAGE as error:
        where = f"cut off or damaged in or after {_shown(member.name)}" if member else "no .tar.gz, or damaged"
        yield f"it is {where}: {type(error).__name__}: {error}"


def _refuse_flood(count: int, member: tarfile.TarInfo) -> None:
    if count > MOST_MEMBERS:
        raise MixerError(f"it has more than {MOST_MEMBERS:,} members, where a model has about ten")
    if member.size < 0:  # tarfile would go backwards from here, and round in circles
        raise MixerError(f"{_shown(member.name)} claims a size of {member.size:,} bytes")
    if member.offset_data + member.size > MOST_BYTES:  # before a byte of it is unpacked
        raise MixerError(f"{_shown(member.name)} makes it unpack to more than {MOST_BYTES:,} bytes, which no model has")


def _faults(member: tarfile.TarInfo, seen: set[PurePosixPath]) -> Iterator[str]:
    """Yield why a member must not be unpacked; add its path to those seen."""
    path = PurePosixPath(member.name)
    if not member.name.isprintable():
        yield "has characters in its name that are not printable"
    if path.is_absolute():
        yield "is an absolute path"
    if ".." in path.parts:
        yield "leads out of the directory it is unpacked into"
    if member.issym() or member.islnk():
        yield f"is a link (to {_shown(member.linkname)})"
    elif not member.isdir() and (member.type not in _PLAIN or member.issparse()):
        yield "is neither a plain file nor a directory, but a device, a pipe or a sparse file"
    if not member.isdir():
        if path in seen:
            yield "stands in it twice"
        seen.add(path)


def _faults_of_the_end(unpacked: _Unpacked, offset: int, last: tarfile.TarInfo | None) -> Iterator[str]:
    """Yield what is wrong with all that follows the last member, which `tarfile` takes for the end without a look.

    Reading it all also lets gzip compare its checksum.
    """
    after = f"after {_shown(last.name)}" if last else "at its start"
    unpacked.seek(offset)
    length = 0
    while rest := unpacked.read(MOST_AT_ONCE):
        if rest.count(0) != len(rest):
            yield f"{after} comes what is neither a member nor the end of an archive"
            return
        length += len(rest)
    if length < tarfile.BLOCKSIZE:
        yield f"{after} its end is missing: it was cut off there"


def _shown(name: str) -> str:
    short = name if len(name) <= _LONGEST_NAME_SHOWN else f"{name[:_LONGEST_NAME_SHOWN]}..."
    return ascii(short)
