"""Where downloads lie, and what is known of them.

<cache>/<bucket>/<object>             a file that was checked, moved here whole
<cache>/<bucket>/<object>.json        what was checked: size, hashes, and the file's time of modification
<cache>/.partial/<bucket>/<object>... what is on its way, kept for the next run; a lock so that one fetches at a time
<cache>/.partial/.gsutil              gsutil's own notes, by which it resumes
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from models.digests import Digest
from models.errors import MixerError
from models.storage.files import hash_file, write_atomically
from models.storage.gsutil import StoredObject

VARIABLE = "MIXER_JAX2TF_CACHE"
"""The environment variable that names the cache."""

_LOG = logging.getLogger(__name__)


def default_cache() -> Path:
    """Return the cache's folder: MIXER_JAX2TF_CACHE, else the platform's place for caches."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("mixer-jax2tf"))


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

    @property
    def file(self) -> Path:
        """Where the whole and checked file lies."""
        return self.cache / self.name

    @property
    def partial(self) -> Path:
        """Where the file is gathered."""
        return self.cache / ".partial" / self.name

    @property
    def state(self) -> Path:
        """Where gsutil keeps its notes."""
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
        """Say that the cache cannot be worked with."""
        return MixerError(
            f"cannot write the cache {self.cache}: {error.strerror} ({error.filename}). Expected a folder that may be "
            f"written: name another with --cache or {VARIABLE}."
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold this place alone: another process that fetches the same object is waited for."""
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
        """Tell whether the file here is this object; hashed only if it changed since it was last checked."""
        notes = self._verified()
        if notes is not None:
            return (notes.size, notes.md5, notes.crc32c) == (stored.size, stored.md5, stored.crc32c)
        return is_object(self.file, stored.size, stored.md5) and self._keep(stored)

    def holds_entry(self, entry: Digest | None) -> bool:
        """Tell, without asking the store, whether the file here was checked and (if there is an entry) is its."""
        notes = self._verified()
        if entry is None:
            return notes is not None
        if notes is None:
            return is_object(self.file, entry.size, entry.md5)
        return notes.size == entry.size and notes.md5 in {None, entry.md5} and notes.crc32c in {None, entry.crc32c}

    def accept(self, stored: StoredObject) -> None:
        """Move the gathered file to its place and note what was checked of it."""
        self.partial.replace(self.file)
        self._keep(stored)

    def _keep(self, stored: StoredObject) -> bool:
        notes = _Verified(stored.size, stored.md5, stored.crc32c, self.file.stat().st_mtime_ns)
        write_atomically(self._notes, (json.dumps(asdict(notes), indent=1) + "\n").encode())
        return True

    def _verified(self) -> _Verified | None:
        """Return what was checked of the file that lies here now; None if nothing was, or it changed since."""
        try:
            notes = _Verified(**json.loads(self._notes.read_text(encoding="utf-8")))
            now = self.file.stat()
        except (OSError, ValueError, TypeError):
            return None
        return notes if (notes.size, notes.mtime_ns) == (now.st_size, now.st_mtime_ns) else None


def is_object(path: Path, size: int, md5: str | None) -> bool:
    """Tell whether a file has this size and MD5 (base64); False without an MD5 to compare."""
    return path.is_file() and path.stat().st_size == size and md5 is not None and hash_file(path).md5 == md5
