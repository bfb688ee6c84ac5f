"""Publish a packed model: completely, once, and never over another.

Layout: `<handle>/<version>.{tar.gz,manifest.json,report.json,provenance.json,md}` (and `.accuracy.json`, `.about.json`,
`.cdx.json` and `.provenance.json.sig` where they exist), then `<handle>/index.json`, which lists complete versions.
Files that are there already, with equal bytes, are not sent again, so the next publication completes an interrupted
one.
"""

import re
import tempfile
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from export.publish.policy import Publishable, PublishPolicy
from export.publish.store import Store, StoredFile
from models.errors import MixerError
from models.progress import Progress
from models.records.contents import compare_files
from models.records.layout import ModelPaths
from models.records.manifest import Manifest
from models.records.published_index import INDEX, Index, ListedFile
from models.storage.files import Hashes

_LOCAL = "the model here"


@dataclass(frozen=True)
class Item:
    """What is done with one file, with its address and its size in bytes."""

    address: str
    size: int
    action: Literal["sent", "to be sent", "there already", "there, differs here", "not there"]
    """For a version that is published already, files that differ here or exist only here are not sent."""


@dataclass(frozen=True)
class Publication:
    """The outcome for one model."""

    handle: str
    version: int
    verdict: Literal["published", "to be published", "published already"]
    items: tuple[Item, ...]

    @property
    def sent(self) -> int:
        """Number of bytes that were sent."""
        return sum(item.size for item in self.items if item.action == "sent")


@dataclass(frozen=True)
class PublishedModel:
    """What is published under a handle."""

    store: Store
    handle: str
    files: Mapping[str, StoredFile]
    """All files, including those of other versions and of unfinished publications."""
    index: Index
    index_seen: str | None = None
    """Its generation, from before it was read; if the index is replaced after that, writing it fails."""

    @classmethod
    def look(cls, store: Store, handle: str) -> Self:
        """Return what is published under a handle.

        Raises:
            MixerError: the store or the index cannot be read, or the index is that of another handle.
        """
        files = store.files(handle)
        if INDEX not in files:
            return cls(store, handle, files, Index(handle=handle))
        address = store.address(handle, INDEX)
        index = Index.parse(store.cat(handle, INDEX), address)
        if index.handle != handle:
            raise MixerError(f"{address} lists versions of {index.handle}, expected {handle}: check the destination.")
        return cls(store, handle, files, index, files[INDEX].generation)

    @property
    def next_free(self) -> int:
        """The lowest number above every version that has any file here."""
        numbers = [int(found[1]) for name in self.files if (found := re.match(r"(\d+)\.", name))]
        return max([0, self.index.latest or 0, *numbers]) + 1

    def address(self, name: str) -> str:
        """Return the address of a file."""
        return self.store.address(self.handle, name)

    def manifest(self, version: int) -> Manifest:
        """Return the manifest of a published version.

        Raises:
            MixerError: it cannot be read.
        """
        name = ModelPaths.of(Path(), self.handle, version).manifest.name
        return Manifest.parse(self.store.cat(self.handle, name), self.address(name))


def publish(
    destination: ModelPaths,
    store: Store,
    rules: PublishPolicy,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Publication:
    """Publish a model, or return what would be sent.

    Except in a dry run, the store is read and written under its lock. Nothing is sent for a version that is published
    already.

    Raises:
        MixerError: the model may not be published, its version is taken by other files or is lower than the published
            ones, the store cannot be read or written, or does not contain what was sent. Versions published before are
            not changed.
    """
    version, admitted = destination.version, rules.check(destination)
    with nullcontext() if dry_run else store.held(destination.handle):
        place = PublishedModel.look(store, destination.handle)
        if str(version) in place.index.versions:
            return _compare_with_published(place, version, admitted)
        latest = place.index.latest
        if latest is not None and version < latest:
            raise MixerError(
                f"version {version} is not above the published {latest} ({place.address(INDEX)}): convert it with "
                f"--version {place.next_free}."
            )
        return _complete(place, version, admitted.files, dry_run=dry_run, progress=progress)


def _complete(
    place: PublishedModel, version: int, files: Mapping[Path, Hashes], *, dry_run: bool, progress: Progress | None
) -> Publication:
    """Send the missing files and add the version to the index, or return what would be sent."""
    local = {path.name: hashes for path, hashes in files.items()}
    there = _refuse_others(place, version, local)
    index = place.index.with_version(version, _digests(local))
    items = _items(place, local, there, index, dry_run=dry_run)
    if dry_run:
        return Publication(place.handle, version, "to be published", items)
    missing = [path for path in files if path.name not in there]
    if missing:
        place.store.put(missing, place.handle, progress)
    _read_back(place, local)
    _write_index(place, index)
    return Publication(place.handle, version, "published", items)


def _compare_with_published(place: PublishedModel, version: int, admitted: Publishable) -> Publication:
    """Return that there is nothing to do, if the published version is complete and its model has the same files.

    What the store knows of each file (size and MD5, or sha256) is compared with the index; if the index has no MD5,
    that of the same file here, by its sha256, is used.
    """
    local = {path.name: hashes for path, hashes in admitted.files.items()}
    listed = {name: _with_md5(one, local.get(name)) for name, one in place.index.versions[str(version)].items()}
    found = {name: one for name, one in place.files.items() if name.startswith(f"{version}.")}
    required = {path.name for path in ModelPaths.of(Path(), place.handle, version).required}
    damage = [f"{name} is not listed in {INDEX}" for name in sorted(required - listed.keys() - found.keys())]
    damage += compare_files(listed, found, INDEX)
    if damage:
        said = "".join(f"\n  {difference}" for difference in damage)
        raise MixerError(
            f"the published version {version} differs from {place.address(INDEX)}:{said}\n"
            f"Repair it there, or publish version {place.next_free}."
        )
    _refuse_other_contents(place, version, admitted.manifest)
    items = [
        Item(place.address(name), one.size, "there already" if _same(one, local.get(name)) else "there, differs here")
        for name, one in sorted(listed.items())
    ]
    items += [
        Item(place.address(name), one.size, "not there") for name, one in sorted(local.items()) if name not in listed
    ]
    return Publication(place.handle, version, "published already", tuple(items))


def _with_md5(listed: ListedFile, local: Hashes | None) -> ListedFile:
    """Add an MD5, which stores report, to an entry that has none, if the same file exists here."""
    known = listed.md5 or (local.md5 if local is not None and local.sha256 == listed.sha256 else None)
    return listed.model_copy(update={"md5": known})


def _same(listed: ListedFile, local: Hashes | None) -> bool:
    return local is not None and (local.size, local.sha256) == (listed.size, listed.sha256)


def _refuse_other_contents(place: PublishedModel, version: int, manifest: Manifest) -> None:
    differences = compare_files(place.manifest(version).files, manifest.files)
    if differences:
        said = "".join(f"\n  {difference}" for difference in differences)
        raise MixerError(
            f"version {version} is published already, with other files, which are never overwritten "
            f"({place.address(INDEX)}). Compared with the published manifest:{said}\n"
            f"Convert with --version {place.next_free}."
        )


def _refuse_others(place: PublishedModel, version: int, local: Mapping[str, Hashes]) -> Collection[str]:
    """Return which files are there already, from an unfinished publication.

    Raises:
        MixerError: a file is there with other contents.
    """
    there = {name: place.files[name] for name in local.keys() & place.files.keys()}
    others = compare_files({name: local[name] for name in there}, there, _LOCAL)
    if others:
        said = "".join(f"\n  {other}" for other in others)
        raise MixerError(
            f"an unfinished publication of version {version} left other files in {place.address('')}, which are never "
            f"overwritten:{said}\n"
            f"Convert with --version {place.next_free}, or remove them there, if nobody uses them."
        )
    return there.keys()


def _digests(local: Mapping[str, Hashes]) -> dict[str, ListedFile]:
    return {name: ListedFile(**asdict(hashes)) for name, hashes in sorted(local.items())}


def _items(
    place: PublishedModel, local: Mapping[str, Hashes], there: Collection[str], index: Index, *, dry_run: bool
) -> tuple[Item, ...]:
    sent: Literal["to be sent", "sent"] = "to be sent" if dry_run else "sent"
    return (
        *(
            Item(place.address(name), one.size, "there already" if name in there else sent)
            for name, one in local.items()
        ),
        Item(place.address(INDEX), len(index.to_bytes()), sent),
    )


def _read_back(place: PublishedModel, local: Mapping[str, Hashes]) -> None:
    """Check that the store contains what was sent, before it is listed in the index."""
    found = place.store.files(place.handle)
    wrong = compare_files(local, {name: found[name] for name in local.keys() & found.keys()}, _LOCAL)
    if wrong:
        said = "".join(f"\n  {one}" for one in wrong)
        raise MixerError(
            f"the files in {place.address('')} differ from those sent, so {INDEX} was not written:{said}\n"
            "Remove them there, and run the same command again."
        )


def _write_index(place: PublishedModel, index: Index) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, INDEX)
        file.write_bytes(index.to_bytes())
        place.store.replace(file, place.handle, place.index_seen)
        written = {INDEX: Hashes.of(file)}
    stored = {name: one for name, one in place.store.files(place.handle).items() if name == INDEX}
    differences = compare_files(written, stored, _LOCAL)
    if differences:
        raise MixerError(
            f"{place.address(INDEX)} differs from what was written ({'; '.join(differences)}): is somebody else "
            "publishing? Run the same command again."
        )
