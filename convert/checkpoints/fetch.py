"""A checkpoint of the catalog as a local file: from the public bucket, another bucket, or a directory.

A bucket is read into the cache through gsutil. The store is asked for the object's metadata each time, so an updated
checkpoint is noticed, and an unchanged one costs no transfer. A directory is used in place.

If the store cannot be reached, a cached file that was checked before is used, with a warning; for the public bucket
only if it also matches the recorded entry, if there is one.
"""

import difflib
import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from convert.checkpoints.cache import VARIABLE, Slot
from models.catalog import BUCKET, Checkpoint
from models.digests import Digest, DigestTable
from models.errors import MixerError, UsageError
from models.progress import Progress
from models.storage.files import Hashes
from models.storage.gsutil import BUCKET_URL, StoredObject
from models.storage.gsutil_errors import StoreUnreachableError

_LOG = logging.getLogger(__name__)

_SPARE = 1 << 20  # free bytes needed beyond the object: notes, logs


@dataclass(frozen=True)
class FetchedFile:
    """A checkpoint as a local file."""

    path: Path
    object: str
    """Its name in a bucket of the catalog's layout."""
    url: str
    """Where it came from: `gs://bucket/object`, or `file:<object>` for a source directory."""
    size: int
    """Bytes."""
    transferred: int
    """Bytes downloaded now: 0 if the file was in the cache or in a directory."""


@dataclass(frozen=True)
class Source:
    """Where checkpoints come from, and their recorded digests."""

    place: str
    """`gs://bucket`, `gs://bucket/prefix`, or a directory of the bucket's layout."""
    cache: Path | None = None
    """Directory of downloads; None is the default one."""
    digests: DigestTable = field(default_factory=lambda: DigestTable.read())  # tests replace it
    """An object of the public bucket must match its `original` entry, if it has one."""
    _unreached: list[StoreUnreachableError] = field(default_factory=list, init=False, compare=False, repr=False)
    """Why the store could not be reached: it is not asked again, as each attempt takes half a minute."""

    def check(self) -> None:
        """Refuse what is no source, and a bucket whose objects have no place.

        Raises:
            UsageError: it is neither a bucket nor a directory, or the cache cannot be made.
        """
        bucket = _parse(self.place)
        if isinstance(bucket, str):
            slot = Slot.of(bucket, self.cache)
            try:
                slot.cache.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(str(slot.not_writable(error))) from error

    def fetch(self, checkpoint: Checkpoint, *, progress: Progress | None = None) -> FetchedFile:
        """Return the checkpoint as a local file, downloading it if it is not in the cache.

        `progress` is called several times a second during a transfer with bytes so far and in all.

        Raises:
            UsageError: the source is neither a bucket nor a directory.
            MixerError: the file is missing or differs, the store or gsutil cannot serve it, or the disk is full.
        """
        bucket = _parse(self.place)
        if isinstance(bucket, Path):
            return _from_directory(checkpoint, bucket)
        url = f"{bucket}/{checkpoint.object}"
        entry = self.digests.find(checkpoint.object, "original") if bucket == BUCKET else None
        slot = Slot.of(url, self.cache)
        try:
            stored = self._stat(url, slot)
        except StoreUnreachableError as error:
            if not slot.holds_entry(entry):
                raise
            _LOG.warning("using %s from the cache, whose digest was checked, because: %s", slot.file, error)
            transferred = 0
        else:
            _refuse_difference(stored, entry)
            transferred = _bring(slot, stored, progress)
        return FetchedFile(slot.file, checkpoint.object, url, slot.file.stat().st_size, transferred)

    def probe(self, checkpoint: Checkpoint) -> Hashes | StoredObject:
        """Return the checkpoint's metadata at the source now; nothing is downloaded from a bucket.

        Raises:
            UsageError: the source is neither a bucket nor a directory.
            MixerError: the file is missing, or the store or gsutil cannot serve it.
        """
        bucket = _parse(self.place)
        if isinstance(bucket, Path):
            return Hashes.of(_from_directory(checkpoint, bucket).path)
        url = f"{bucket}/{checkpoint.object}"
        return self._stat(url, Slot.of(url, self.cache))

    def _stat(self, url: str, slot: Slot) -> StoredObject:
        """Return the store's answer.

        Raises:
            StoreUnreachableError: it could not be reached, now or by an earlier call.
        """
        slot.prepare()
        if self._unreached:
            first = str(self._unreached[0]).partition(". ")[0]
            raise StoreUnreachableError(f"not tried, as an earlier attempt failed ({first}).")
        try:
            return StoredObject.of(url, slot.state)
        except StoreUnreachableError as error:
            self._unreached.append(error)
            raise


def record(
    checkpoint: Checkpoint,
    *,
    cache: Path | None = None,
    digests: DigestTable,
    progress: Progress | None = None,
) -> tuple[Digest | None, Digest]:
    """Fetch the checkpoint from the public bucket as it is now; return its recorded entry and the one to record.

    The caller writes the table.

    Raises:
        MixerError: as `Source.fetch`; but a difference from the entry is accepted, and the store must answer.
    """
    slot = Slot.of(checkpoint.url, cache)
    slot.prepare()
    stored = StoredObject.of(checkpoint.url, slot.state)
    if stored.crc32c is None:
        raise MixerError(
            f"{checkpoint.url}: the store gives no crc32c, which every object must have: nothing was recorded."
        )
    _bring(slot, stored, progress)
    found = Hashes.of(slot.file)
    if stored.md5 not in (None, found.md5):
        raise MixerError(
            f"{slot.file} has md5 {found.md5}, expected the store's {stored.md5}: it changed after it was checked. "
            "Delete it and run the same command again."
        )
    new = Digest(checkpoint.object, "original", stored.size, found.md5, stored.crc32c, found.sha256)
    return digests.find(checkpoint.object, "original"), new


def _parse(source: str) -> str | Path:
    """Return a source as the URL of a bucket (or a folder in it), without a slash at its end, or as a directory.

    Raises:
        UsageError: it is neither.
    """
    expected = "expected gs://bucket, gs://bucket/prefix, or a directory of the bucket's layout"
    if source.startswith("gs://"):
        if BUCKET_URL.fullmatch(source.rstrip("/")):
            return source.rstrip("/")
        raise UsageError(f"--source {source!r} does not name a bucket: {expected}, such as {BUCKET}.")
    if "://" in source:
        raise UsageError(f"--source {source!r}: {source.split(':')[0]} is not supported; {expected}.")
    try:
        folder = Path(source).expanduser()
        source.encode()
        if source and folder.is_dir():
            return folder.absolute()
        exists = source and folder.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"--source {source[:200]!r} cannot be read ({error}): {expected}.") from error
    if exists:
        raise UsageError(f"--source {source!r} is a file: {expected}; a custom checkpoint is given with --checkpoint.")
    raise UsageError(f"--source {source!r} does not exist: {expected}. Is a `gs://` missing?")


def _from_directory(checkpoint: Checkpoint, folder: Path) -> FetchedFile:
    path = folder / checkpoint.object
    if not path.is_file():
        there = sorted(str(found.relative_to(folder)) for glob in ("*.npz", "*/*.npz") for found in folder.glob(glob))
        nearest = difflib.get_close_matches(checkpoint.object, there, n=3, cutoff=0) or ["no .npz file at all"]
        raise MixerError(
            f"{checkpoint.object} is missing in {folder}. Expected the bucket's layout, <folder>/Mixer-<size>_<patch>"
            f".npz; found {', '.join(nearest)}. Put the file there, or give another --source "
            "(`mixer-jax2tf seed DIR` writes synthetic checkpoints to try with)."
        )
    return FetchedFile(path, checkpoint.object, f"file:{checkpoint.object}", path.stat().st_size, 0)


def _refuse_difference(stored: StoredObject, entry: Digest | None) -> None:
    """Raise, before anything is downloaded, if the store's object differs from the recorded one."""
    if entry is None:
        return
    pairs = (
        ("size", stored.size, entry.size),
        ("md5", stored.md5, entry.md5),
        ("crc32c", stored.crc32c, entry.crc32c),
    )
    found = [f"{name} {now}, recorded {then}" for name, now, then in pairs if now not in (None, then)]
    if found:
        raise MixerError(
            f"{stored.url} differs from the recorded object: the store has {'; '.join(found)}. Nothing was downloaded. "
            "If the checkpoint was updated, `mixer-jax2tf fetch --record` records it: review the change of "
            "models/digests.json and commit it."
        )


def _bring(slot: Slot, stored: StoredObject, progress: Progress | None) -> int:
    """Download the object into its slot unless it is there; return the bytes transferred."""
    try:
        with slot.locked():
            if slot.holds(stored):
                return 0
            transferred = 0
            if not slot.is_complete(stored):  # else an earlier run was killed before moving it
                transferred = _download(slot, stored, progress)
            slot.accept(stored)
            return transferred
    except OSError as error:
        raise slot.not_writable(error) from error


def _download(slot: Slot, stored: StoredObject, progress: Progress | None) -> int:
    _refuse_full_disk(slot, stored)
    transferred = stored.download(slot.partial, slot.state, progress)
    size = slot.partial.stat().st_size
    if size != stored.size:
        slot.partial.unlink()
        raise MixerError(
            f"{stored.url}: {size:,} bytes arrived, expected {stored.size:,}. They were deleted: run the same "
            "command again."
        )
    return transferred


def _refuse_full_disk(slot: Slot, stored: StoredObject) -> None:
    needed = stored.left_to_download(slot.partial)
    free = shutil.disk_usage(slot.partial.parent).free
    if free < needed + _SPARE:
        raise MixerError(
            f"{stored.url}: {needed:,} bytes are still to be downloaded, but the disk of the cache {slot.cache} has "
            f"only {free:,} bytes free. Free some space, or choose a cache on another disk with --cache or {VARIABLE}."
        )
