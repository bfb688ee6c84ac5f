"""Compare published models with what would be made now: which need a new version, and why."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from export.publish.publish import PublishedModel
from export.publish.store import Store
from models.catalog import DEFAULT_VERSION
from models.digests import DigestTable
from models.errors import MixerError
from models.records.manifest import CheckpointRecord, Manifest
from models.records.provenance import library_versions, pipeline_version
from models.storage.files import Hashes
from models.storage.gsutil import StoredObject

NO_MATTER = frozenset({"python"})
"""Entries of a manifest's libraries that do not matter: another release of them computes the same."""


@dataclass(frozen=True)
class PublishedState:
    """How a published model compares with what would be made now."""

    handle: str
    published: int | None
    """The highest published version; None if there is none."""
    next: int
    """The number of a new version."""
    reasons: tuple[str, ...]
    """Why it needs a new version; empty if it does not."""
    unknown: tuple[str, ...] = ()
    """What could not be compared."""

    @classmethod
    def compare(cls, handle: str, store: Store, source: Hashes | StoredObject | None, digests: DigestTable) -> Self:
        """Compare the highest published version of a model with what would be made now.

        Args:
            handle: a handle of the catalog, or the name of a custom model.
            store: where it is published.
            source: the checkpoint's metadata; None for a custom model, whose checkpoint is not compared.
            digests: the recorded ones, by which a file of known MD5 is recognised.

        Raises:
            MixerError: the published index or manifest cannot be read, or a custom model is not published.
        """
        there = PublishedModel.look(store, handle)
        latest = there.index.latest
        if source is None:
            if latest is None:
                raise MixerError("it is neither a handle of the catalog nor published there (`mixer-jax2tf list`).")
            manifest = there.manifest(latest)
            unknown = f"{manifest.checkpoint.object} is a custom checkpoint"
            return cls(handle, latest, latest + 1, tuple(_pipeline_reasons(manifest)), (unknown,))
        if latest is None:
            return cls(handle, None, DEFAULT_VERSION, ("it was never published",))
        manifest = there.manifest(latest)
        was = manifest.checkpoint
        md5, sha256 = _recorded_md5(was, digests), _known_sha256(was.object, source, digests)
        known = sha256 is not None or (source.md5 is not None and md5 is not None)
        unknown = (
            f"{was.object} has the published size, but its digests cannot be compared: models/digests.json has no "
            f"entry of sha256 {was.sha256}"
        )
        unsure = not known and source.size == was.size
        pairs = (("size", source.size, was.size), ("sha256", sha256, was.sha256), ("md5", source.md5, md5))
        reasons = (*_checkpoint_reasons(was.object, pairs), *_pipeline_reasons(manifest))
        return cls(handle, latest, latest + 1, reasons, (unknown,) if unsure else ())


def _recorded_md5(checkpoint: CheckpointRecord, digests: DigestTable) -> str | None:
    """Return the MD5 of the file that the published model was made from, if it is recorded."""
    entries = digests.entries
    same = (entry for entry in entries if (entry.object, entry.sha256) == (checkpoint.object, checkpoint.sha256))
    return next((entry.md5 for entry in same), None)


def _known_sha256(name: str, source: Hashes | StoredObject, digests: DigestTable) -> str | None:
    """Return the SHA-256 of the source's file: as the source gives it, or of the recorded file of this size and MD5."""
    same = (
        entry.sha256
        for entry in digests.entries
        if (entry.object, entry.size, entry.md5) == (name, source.size, source.md5)
    )
    return source.sha256 or next(same, None)


def _checkpoint_reasons(name: str, pairs: Iterable[tuple[str, object, object]]) -> Iterator[str]:
    for what, is_now, was in pairs:
        if None not in (is_now, was) and is_now != was:
            yield f"the checkpoint {name} changed: {what} {was} is now {is_now}"
            return


def _pipeline_reasons(manifest: Manifest) -> Iterator[str]:
    pipeline, libraries = pipeline_version(), library_versions()
    if manifest.pipeline != pipeline:
        yield f"mixer-jax2tf {manifest.pipeline} is now {pipeline}"
    for name in sorted((manifest.libraries.keys() | libraries.keys()) - NO_MATTER):
        was, is_now = manifest.libraries.get(name), libraries.get(name)
        if was != is_now:
            yield f"{name} {was or '(none)'} is now {is_now or '(none)'}"
