"""Compare files with their recorded sizes and digests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from models.errors import MixerError, counted, shown
from models.records.manifest import FileDigest
from models.storage.files import MOST_FILES, sha256_of

_DIGESTS = ("sha256", "md5", "crc32c")
"""The digests of a file, in the order in which they are compared."""


class Described(Protocol):
    """A file with its `size` in bytes (None if unknown), and those of its digests that are known."""

    @property
    def size(self) -> int | None:
        """Bytes."""


def digest_files(directory: Path, most: int | None = None) -> dict[str, FileDigest]:
    """Return size and sha256 of every file below a directory, by relative POSIX path.

    Raises:
        MixerError: `most` is given, and there are more bytes or more than `MOST_FILES` files; none is read then.
    """
    files = {path: path.stat().st_size for path in sorted(directory.rglob("*")) if path.is_file()}
    size = sum(files.values())
    if most is not None and (size > most or len(files) > MOST_FILES):
        raise MixerError(f"{directory} has {counted(len(files), 'file')}, {size:,} bytes: more than its manifest lists")
    return {
        path.relative_to(directory).as_posix(): FileDigest(sha256=sha256_of(path), size=length)
        for path, length in files.items()
    }


def refuse_changed(
    directory: Path, listed: Mapping[str, FileDigest], record: Path, advice: str, *, strict: bool = False
) -> None:
    """Refuse a directory whose files differ from those of its record.

    Args:
        directory: contains the files.
        listed: the files in the record, by relative POSIX path.
        record: the record's file, whose name is in the message.
        advice: the end of the message: what to do next.
        strict: whether files that are not listed are refused too.

    Raises:
        MixerError: a listed file is missing or has other contents; names all of them.
    """
    try:
        found = digest_files(directory)
    except FileNotFoundError as error:
        raise MixerError(
            f"{error.filename} was removed while it was read: is another command replacing {directory}? Run the same "
            "command again."
        ) from error
    compared = found if strict else {name: one for name, one in found.items() if name in listed}
    if differences := compare_files(listed, compared, record.name):
        said = "".join(f"\n  {one}" for one in differences)
        raise MixerError(f"{directory} differs from {record.name}:{said}\n{advice}")


def compare_files(
    listed: Mapping[str, Described], found: Mapping[str, Described], record: str = "the manifest"
) -> list[str]:
    """Return the differences of files, one sentence each, sorted by name; empty if there are none.

    Args:
        listed: the files in the record, by name.
        found: the files that exist, by name.
        record: the record's name in the sentences.
    """
    named = sorted(listed.keys() | found.keys())
    differences = (_difference(name, listed.get(name), found.get(name), record) for name in named)
    return [difference for difference in differences if difference is not None]


def _difference(name: str, listed: Described | None, found: Described | None, record: str) -> str | None:
    called = shown(name)
    if found is None:
        return f"{called} is missing, but {record} lists it"
    if listed is None:
        return f"{called} is not listed in {record}"
    if None not in (listed.size, found.size) and listed.size != found.size:
        return f"{called} has {found.size:,} bytes, but {record} lists {listed.size:,}"
    pairs = ((digest, getattr(listed, digest, None), getattr(found, digest, None)) for digest in _DIGESTS)
    known = [(digest, said, is_there) for digest, said, is_there in pairs if None not in (said, is_there)]
    for digest, said, is_there in known:
        if said != is_there:
            return f"{called} has {digest} {is_there}, but {record} lists {said}"
    if known:
        return None
    return f"{called} cannot be compared: no kind of digest is both listed in {record} and known of the file"
