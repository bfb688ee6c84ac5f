"""Prepare uploads to hubs: the SavedModel's files, not packed, with manifest, report and provenance beside them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from export.package.verify import verify
from export.publish.policy import PublishPolicy
from export.publish.publish import Item, Publication
from models.errors import MixerError
from models.records.contents import compare_files
from models.records.layout import ModelPaths
from models.records.manifest import Manifest

MANIFEST = "manifest.json"
"""The manifest's name in the upload, from which the next publication reads the published version."""


@dataclass(frozen=True)
class HubUpload:
    """A model that may be published at an address, and its files by their paths in the upload."""

    address: str
    manifest: Manifest
    manifest_sha256: str
    files: dict[str, Path]

    @classmethod
    def of(cls, destination: ModelPaths, rules: PublishPolicy, address: str) -> Self:
        """Return the upload of a model to an address.

        Raises:
            MixerError: it may not be published, or its directory is missing or differs from its records.
        """
        admitted = rules.check(destination)
        directory = destination.directory
        differences = verify(directory).differences if directory.is_dir() else ("it does not exist",)
        if differences:
            said = "".join(f"\n  {difference}" for difference in differences)
            raise MixerError(f"{directory} may not be published:{said}")
        beside = {
            MANIFEST: destination.manifest,
            "report.json": destination.report,
            "about.json": destination.about,
            "accuracy.json": destination.accuracy,
            "provenance.json": destination.provenance,
            "provenance.json.sig": destination.signature,
        }
        files = {name: directory / name for name in admitted.manifest.files}
        files |= {name: path for name, path in beside.items() if path.is_file()}
        return cls(address, admitted.manifest, admitted.files[destination.manifest].sha256, files)

    def is_published(self, published: Manifest | None) -> bool:
        """Return whether it is the version that was published last, of which this is the manifest.

        Raises:
            MixerError: another handle is published there, or the version was published with other files or is lower
                than the published one.
        """
        if published is None:
            return False
        here, number = self.manifest, published.version
        again = f"Convert with --version {number + 1}."
        if published.handle != here.handle:
            raise MixerError(f"{self.address} contains {published.handle}, expected {here.handle}: check --to.")
        if number > here.version:
            raise MixerError(f"version {here.version} is not above the published {number} ({self.address}). {again}")
        if number < here.version:
            return False
        differences = compare_files(published.files, here.files)
        if differences:
            said = "".join(f"\n  {difference}" for difference in differences)
            raise MixerError(
                f"version {number} is published already, with other files ({self.address}). Compared with the "
                f"published manifest:{said}\n{again}"
            )
        return True

    def publication(
        self,
        verdict: Literal["published", "to be published", "published already"],
        cards: Mapping[str, bytes] | None = None,
    ) -> Publication:
        """Return the outcome for the upload, and for cards, given by their addresses."""
        actions: dict[str, Literal["sent", "to be sent", "there already"]]
        actions = {"published": "sent", "to be published": "to be sent", "published already": "there already"}
        sizes = {f"{self.address}/{name}": path.stat().st_size for name, path in sorted(self.files.items())}
        sizes |= {name: len(card) for name, card in (cards or {}).items()}
        items = tuple(Item(name, size, actions[verdict]) for name, size in sizes.items())
        return Publication(self.manifest.handle, self.manifest.version, verdict, items)

    @contextmanager
    def translate_client_errors(self, site: str, credentials: str) -> Iterator[None]:
        """Turn the exceptions of a site's client, which are of many types, into one MixerError."""
        try:
            yield
        except MixerError:
            raise
        except Exception as error:
            why = "" if error.__cause__ is None else f" ({type(error.__cause__).__name__}: {error.__cause__})"
            said = " ".join(f"{error}{why}".split())[:500].rstrip(".")
            raise MixerError(
                f"{self.address}: {site} or its client reports {type(error).__name__}: {said}. Expected an address "
                f"that the credentials in {credentials} may read and write: check --to and the network, then run the "
                "same command again."
            ) from error
