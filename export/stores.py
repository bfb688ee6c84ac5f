"""Where models are published: what such a place must be able to do, and a directory (a mirror) that can.

The bucket that can is `convert.upload.Bucket`; the command line hands one or the other to `export.publish`.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from models.errors import MixerError
from models.files import CHUNK, Hashes, hash_file, read_small, written_whole
from models.records import MOST_BYTES

Progress = Callable[[int, int], None]
"""What is told of a transfer: bytes so far, bytes in all."""


class Stored(Protocol):
    """What a place says of one of its files."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def md5(self) -> str | None:
        """In base64; None where the place has none."""

    @property
    def generation(self) -> str:
        """Another one whenever the file was replaced."""


class Store(Protocol):
    """A place of folders with files, none of which is ever half there; each method raises MixerError where it fails."""

    def address(self, folder: str, name: str) -> str:
        """Return where a file is, or would be, in words for a person."""

    def files(self, folder: str) -> Mapping[str, Stored]:
        """Return what the place says of the files in a folder, by name; none where there is no such folder."""

    def cat(self, folder: str, name: str) -> bytes:
        """Return the contents of a small file."""

    def put(self, files: Sequence[Path], folder: str, progress: Progress | None = None) -> None:
        """Bring files, of one local directory, that are not there yet; one that is there is an error."""

    def replace(self, file: Path, folder: str, seen: str | None) -> None:
        """Bring a file in the place of the one of the generation `seen`; it is an error if another is there by now."""


@dataclass(frozen=True)
class MirroredFile:
    """What a mirror says of a file: its size at once, and its hashes once somebody asks, read back from it then."""

    path: Path
    size: int

    @property
    def md5(self) -> str:
        """In base64."""
        return self._hashes.md5

    @property
    def generation(self) -> str:
        """Of two with equal contents, one is as good as the other."""
        return self._hashes.sha256

    @cached_property
    def _hashes(self) -> Hashes:
        with _told(self.path):
            return hash_file(self.path)


@dataclass(frozen=True)
class Mirror:
    """A directory that models are published in."""

    root: Path

    def address(self, folder: str, name: str) -> str:
        """Return the path of a file."""
        return str(self.root / folder / name)

    def files(self, folder: str) -> dict[str, MirroredFile]:
        """Return the files in a folder, by name."""
        place = self.root / folder
        with _told(self.root):
            paths = [path for path in place.iterdir() if path.name[0] != "."] if place.is_dir() else []
            return {path.name: MirroredFile(path, path.stat().st_size) for path in paths if path.is_file()}

    def cat(self, folder: str, name: str) -> bytes:
        """Return the contents of a record."""
        with _told(self.root):
            return read_small(self.root / folder / name, MOST_BYTES)

    def put(self, files: Sequence[Path], folder: str, progress: Progress | None = None) -> None:
        """Copy files that are not there yet, each whole or not at all."""
        total, done = sum(file.stat().st_size for file in files), 0
        with _told(self.root):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
            for file in files:
                path = self.root / folder / file.name
                if os.path.lexists(path):
                    raise MixerError(f"{path} was put there meanwhile: is somebody else publishing? Run it again.")
                with file.open("rb") as source, written_whole(path) as copy:
                    while chunk := source.read(CHUNK):
                        copy.write(chunk)
                        done += len(chunk)
                        if progress is not None:
                            progress(done, total)

    def replace(self, file: Path, folder: str, seen: str | None) -> None:
        """Copy a file in the place of the one that was seen."""
        found = self.files(folder).get(file.name)
        if (found and found.generation) != seen:
            raise MixerError(
                f"{self.address(folder, file.name)} changed meanwhile: is somebody else publishing? Run it again."
            )
        with _told(self.root):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
            with file.open("rb") as source, written_whole(self.root / folder / file.name) as copy:
                shutil.copyfileobj(source, copy)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MixerError(
            f"{error.filename or path}: {error.strerror or error}. Expected a directory to publish in, that may be "
            "read and written, with room for the models."
        ) from error
