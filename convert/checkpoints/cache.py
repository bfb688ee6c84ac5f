"""The cache of downloaded checkpoints.

<cache>/<bucket>/<object>             a checked file, moved here when complete
<cache>/<bucket>/<object>.json        what was checked: size, hashes, and the file's modification time
<cache>/.partial/<bucket>/<object>... an unfinished download, kept for the next run; a lock: one process fetches it
<cache>/.partial/.gsutil              gsutil's own state, from which it resumes
<cache>/.accuracy/<run>.jsonl         what an interrupted measurement of accuracy found
<cache>/.tfds/<digest>/               the pictures of a data set of tensorflow-datasets, one folder per class
<cache>/.graphs/<key>.graph           a traced graph, without weights, for the next `convert`
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import platformdirs
from filelock import FileLock, Timeout

from models.digests import Digest
from models.errors import MixerError
from models.storage.files import Hashes, write_atomically
from models.storage.gsutil import StoredObject

VARIABLE = "MIXER_JAX2TF_CACHE"
"""The environment variable that names the cache."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Verified:
    size: int
    md5: str | None
    crc32c: str | None
    mtime_ns: int


@dataclass(frozen=True)
class Slot:
    """The place of one object in the cache."""

    cache: Path
    name: str
    """The object's address without its scheme: bucket/object."""

    @classmethod
    def of(cls, url: str, cache: Path | None) -> Self:
        """Return the place of `gs://bucket/object`; by default in MIXER_JAX2TF_CACHE, else the platform's directory."""
        named = os.environ.get(VARIABLE)
        default = Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("mixer-jax2tf"))
        return cls((cache or default).absolute(), url.removeprefix("gs://"))

    @property
    def file(self) -> Path:
        """Path of the complete, checked file."""
        return self.cache / self.name

    @property
    def partial(self) -> Path:
        """Path that the file is downloaded to."""
        return self.cache / ".partial" / self.name

    @property
    def state(self) -> Path:
        """Gsutil's state directory."""
        return self.cache / ".partial" / ".gsutil"

    @property
    def _notes(self) -> Path:
        return self.file.with_name(f"{self.file.name}.json")

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            MixerError: the cache cannot be written.
        """
        try:
            for folder in (self.file.parent, self.partial.parent, self.state):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self.not_writable(error) from error

    def not_writable(self, error: OSError) -> MixerError:
        """Return the error for a cache that cannot be written."""
        return MixerError(
            f"cannot write the cache {self.cache}: {error.strerror} ({error.filename}). Expected a writable "
            f"directory: choose another with --cache or {VARIABLE}."
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of this object, after waiting for any other process that is fetching it."""
        lock = FileLock(self.partial.with_name(f"{self.partial.name}.lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            _LOG.warning("another process is fetching gs://%s: waiting for it", self.name)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def holds(self, stored: StoredObject) -> bool:
        """Return whether the cached file is this object; hash it only if it changed since it was last checked."""
        notes = self._verified()
        if notes is not None:
            return (notes.size, notes.md5, notes.crc32c) == (stored.size, stored.md5, stored.crc32c)
        return _is_object(self.file, stored.size, stored.md5) and self._keep(stored)

    def holds_entry(self, entry: Digest | None) -> bool:
        """Return, without asking the store, whether the cached file was checked and matches the entry, if given."""
        notes = self._verified()
        if entry is None:
            return notes is not None
        if notes is None:
            return _is_object(self.file, entry.size, entry.md5)
        return notes.size == entry.size and notes.md5 in {None, entry.md5} and notes.crc32c in {None, entry.crc32c}

    def is_complete(self, stored: StoredObject) -> bool:
        """Return whether all of this object was downloaded, but not yet moved into place."""
        return _is_object(self.partial, stored.size, stored.md5)

    def accept(self, stored: StoredObject) -> None:
        """Move the downloaded file into place and note what was checked."""
        self.partial.replace(self.file)
        self._keep(stored)

    def _keep(self, stored: StoredObject) -> bool:
        notes = _Verified(stored.size, stored.md5, stored.crc32c, self.file.stat().st_mtime_ns)
        write_atomically(self._notes, (json.dumps(asdict(notes), indent=1) + "\n").encode())
        return True

    def _verified(self) -> _Verified | None:
        """Return what was checked of the current file; None if nothing was, or it changed since."""
        try:
            notes = _Verified(**json.loads(self._notes.read_text(encoding="utf-8")))
            now = self.file.stat()
        except (OSError, ValueError, TypeError):
            return None
        return notes if (notes.size, notes.mtime_ns) == (now.st_size, now.st_mtime_ns) else None


def _is_object(path: Path, size: int, md5: str | None) -> bool:
    """Return whether a file has this size and MD5 (base64); False without an MD5 to compare."""
    return path.is_file() and path.stat().st_size == size and md5 is not None and Hashes.of(path).md5 == md5
