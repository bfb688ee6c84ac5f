"""Where models are published: what such a place must be able to do, and a directory (a mirror) that can.

The bucket that can is `convert.upload.Bucket`; the command line hands one or the other to `export.publish`.
"""

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from models.errors import MixerError
from models.files import hash_file, written_whole

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

    def names(self, folder: str) -> frozenset[str]:
        """Return the names of the files in a folder; none where there is no such folder."""

    def stat(self, folder: str, names: Collection[str]) -> Mapping[str, Stored]:
        """Return what the place says of these files, as far as they are there."""

    def cat(self, folder: str, name: str) -> bytes:
        """Return the contents of a small file."""

    def put(self, files: Sequence[Path], folder: str, progress: Progress | None = None) -> None:
        """Bring files, of one local directory, that are not there yet; one that is there is an error."""

    def replace(self, file: Path, folder: str, seen: Stored | None) -> None:
        """Bring a file in the place of the one that was `seen`; it is an error if another is there by now."""


@dataclass(frozen=True)
class MirroredFile:
    """What a mirror says of a file, read back from it; of two with equal contents, one is as good as the other."""

    size: int
    md5: str
    generation: str


@dataclass(frozen=True)
class Mirror:
    """A directory that models are published in."""

    root: Path

    def address(self, folder: str, name: str) -> str:
        """Return the path of a file."""
        return str(self.root / folder / name)

    def names(self, folder: str) -> frozenset[str]:
        """Return the names of the files in a folder."""
        with self._told():
            place = self.root / folder
            if not place.is_dir():
                return frozenset()
            return frozenset(path.name for path in place.iterdir() if path.is_file() and path.name[0] != ".")

    def stat(self, folder: str, names: Collection[str]) -> dict[str, MirroredFile]:
        """Read files back, and return what they are."""
        found = {}
        with self._told():
            for name in self.names(folder) & set(names):
                hashes = hash_file(self.root / folder / name)
                found[name] = MirroredFile(hashes.size, hashes.md5, hashes.sha256)
        return found

    def cat(self, folder: str, name: str) -> bytes:
        """Return the contents of a file."""
        with self._told():
            return (self.root / folder / name).read_bytes()

    def put(self, files: Sequence[Path], folder: str, progress: Progress | None = None) -> None:
        """Copy files that are not there yet, each whole or not at all."""
        total, done = sum(file.stat().st_size for file in files), 0
        with self._told():
            (self.root / folder).mkdir(parents=True, exist_ok=True)
            for file in files:
                path = self.root / folder / file.name
                if os.path.lexists(path):
                    raise MixerError(f"{path} was put there meanwhile: is somebody else publishing? Run it again.")
                with file.open("rb") as source, written_whole(path) as copy:
                    while chunk := source.read(1 << 20):
                        copy.write(chunk)
                        done += len(chunk)
                        if progress is not None:
                            progress(done, total)

    def replace(self, file: Path, folder: str, seen: Stored | None) -> None:
        """Copy a file in the place of the one that was seen."""
        found = self.stat(folder, [file.name]).get(file.name)
        if (found and found.generation) != (seen and seen.generation):
            raise MixerError(
                f"{self.address(folder, file.name)} changed meanwhile: is somebody else publishing? Run it again."
            )
        with self._told():
            (self.root / folder).mkdir(parents=True, exist_ok=True)
            with file.open("rb") as source, written_whole(self.root / folder / file.name) as copy:
                shutil.copyfileobj(source, copy)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise MixerError(
                f"{error.filename or self.root}: {error.strerror or error}. Expected a directory to publish in, that "
                "may be read and written, with room for the models."
            ) from error
