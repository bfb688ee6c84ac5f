"""Define the interface of a store, where models are published, and implement it for a directory (a mirror).

For buckets, `export.publish.bucket.Bucket` implements it; `export.publish.destinations` opens either.
"""

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol

from models.errors import MixerError
from models.progress import Progress
from models.records.contents import Described
from models.records.manifest import MOST_BYTES
from models.storage.files import CHUNK, read_small, sha256_of, written_whole
from models.storage.temporary import locked, sweep_files

_LOG = logging.getLogger(__name__)

_LOCK = ".publishing.lock"


class StoredFile(Described, Protocol):
    """What a store reports about one of its files: its size, and its `md5` (in base64) or `sha256`."""

    @property
    def generation(self) -> str:
        """Changes whenever the file is replaced."""


class Store(Protocol):
    """Folders of files, none of which is ever incomplete; each method raises MixerError if it fails."""

    def address(self, folder: str, name: str) -> str:
        """Return the address of a file, whether or not it exists, for messages."""

    def files(self, folder: str) -> Mapping[str, StoredFile]:
        """Return the files in a folder, by name; empty if there is no such folder."""

    def cat(self, folder: str, name: str) -> bytes:
        """Return the contents of a small file."""

    def held(self, folder: str) -> AbstractContextManager[None]:
        """Lock a folder during the block, if the store cannot otherwise prevent concurrent writes."""

    def put(self, files: Sequence[Path], folder: str, progress: Progress | None = None) -> None:
        """Send files of one local directory; it is an error if one of them is there already."""

    def replace(self, file: Path, folder: str, seen: str | None) -> None:
        """Send a file instead of the one of generation `seen` (None: no file); any other generation is an error."""


@dataclass(frozen=True)
class _MirroredFile:
    """A file in a mirror; of its digests, only the sha256 is computed."""

    path: Path
    size: int

    @cached_property
    def sha256(self) -> str:
        """In hexadecimal; read from the file when it is first needed."""
        with _translate_os_errors(self.path):
            return sha256_of(self.path)

    @property
    def generation(self) -> str:
        """The sha256: files with equal contents need not be told apart."""
        return self.sha256


@dataclass(frozen=True)
class Mirror:
    """A directory in which models are published."""

    root: Path

    def address(self, folder: str, name: str) -> str:
        """Return the path of a file."""
        return str(self.root / folder / name)

    def files(self, folder: str) -> dict[str, _MirroredFile]:
        """Return the files in a folder, by name."""
        place = self.root / folder
        with _translate_os_errors(self.root):
            paths = [path for path in place.iterdir() if path.name[0] != "."] if place.is_dir() else []
            return {path.name: _MirroredFile(path, path.stat().st_size) for path in paths if path.is_file()}

    def cat(self, folder: str, name: str) -> bytes:
        """Return the contents of a record."""
        with _translate_os_errors(self.root):
            return read_small(self.root / folder / name, MOST_BYTES)

    def put(self, files: Sequence[Path], folder: str, progress: Progress | None = None) -> None:
        """Copy files that are not there yet, each completely or not at all."""
        total, done = sum(file.stat().st_size for file in files), 0
        with _translate_os_errors(self.root):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
            for file in files:
                with file.open("rb") as source, _new(self.root / folder / file.name) as copy:
                    while chunk := source.read(CHUNK):
                        copy.write(chunk)
                        done += len(chunk)
                        if progress is not None:
                            progress(done, total)

    def replace(self, file: Path, folder: str, seen: str | None) -> None:
        """Replace the file of the generation `seen`; `held` must lock the folder between reading and writing it."""
        path, found = self.root / folder / file.name, self.files(folder).get(file.name)
        if (found and found.generation) != seen:
            raise _meanwhile(path)
        with _translate_os_errors(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            with file.open("rb") as source, _new(path) if seen is None else written_whole(path) as copy:
                shutil.copyfileobj(source, copy)

    @contextmanager
    def held(self, folder: str) -> Iterator[None]:
        """Lock a folder, at most until this process ends; wait for another process that is publishing there.

        Temporary files that ended processes left in it are removed, even if nothing is written then.
        """
        place = self.root / folder

        def awaited() -> None:
            _LOG.warning("another process is publishing in %s: waiting for it", place)

        with ExitStack() as stack:
            with _translate_os_errors(self.root):
                place.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(place / _LOCK, awaited))
                sweep_files(place)
            yield


@contextmanager
def _new(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file to write into; it is an error if its path is taken by the time it is complete."""
    try:
        with written_whole(path, replace=False) as file:
            yield file
    except FileExistsError as error:
        raise _meanwhile(path) from error


def _meanwhile(path: Path) -> MixerError:
    return MixerError(
        f"{path} was created or changed in the meantime, and nothing was overwritten: is somebody else publishing? Run "
        "the same command again; it compares first."
    )


@contextmanager
def _translate_os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MixerError(
            f"{error.filename or path}: {error.strerror or error}. Expected a directory that can be read, written "
            "and locked, with space for the models: free some space, check the permissions, or give another --to."
        ) from error
