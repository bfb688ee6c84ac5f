"""Files of any size: written whole or not at all, and hashed without being held in memory."""

import base64
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

CHUNK = 1 << 20
"""Bytes read at once."""


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
    # MD5 is what stores offer: it tells damage, not malice; sha256 stands beside it.
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
            size += len(chunk)
    return Hashes(size, sha256.hexdigest(), base64.b64encode(md5.digest()).decode())


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write into, which takes its place at `path` when the block ends well; else nothing is left of it.

    What killed processes left behind of the same file is removed; the name tells the process, on this machine.

    Raises:
        OSError: it cannot be written.
    """
    prefix = f".{path.name}.partial-"
    for left in path.parent.glob(f"{prefix}*"):
        if not _alive(left.name.removeprefix(prefix)):
            left.unlink(missing_ok=True)
    partial = path.with_name(f"{prefix}{os.getpid()}")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _alive(pid: str) -> bool:
    if not pid.isdigit():
        return True  # not of ours
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
