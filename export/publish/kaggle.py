"""Publish on Kaggle Models, through its client: a variation for each handle, whose versions Kaggle numbers itself.

The version's notes contain our version number and the manifest's digest. The upload contains the manifest itself,
because the client sends no notes with the first version of a variation.
"""

import os
import re
import tempfile
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ValidationError

from export.cards.kaggle import LICENSES
from export.publish.hub_upload import MANIFEST, HubUpload
from export.publish.policy import PublishPolicy
from export.publish.publish import Publication
from models.catalog import LICENSE
from models.errors import MixerError, UsageError
from models.progress import Progress
from models.records.about import AboutRecord
from models.records.layout import ModelPaths
from models.records.manifest import MOST_BYTES, Manifest
from models.selection import command_for, is_catalogued
from models.storage.files import read_small

FRAMEWORK = "tensorFlow2"
CREDENTIALS = "KAGGLE_API_TOKEN or ~/.kaggle"


@dataclass(frozen=True)
class KaggleModel:
    """A model on Kaggle, with a variation for each handle."""

    PREFIX: ClassVar = "kaggle:"
    CLIENT: ClassVar = "kagglehub"

    name: str
    """`owner/model`."""

    @classmethod
    def parse(cls, destination: str) -> "KaggleModel":
        """Parse `kaggle:owner/model`.

        Raises:
            UsageError: the destination has another form.
        """
        name = destination.removeprefix(cls.PREFIX)
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*/[a-z0-9][a-z0-9-]*", name):
            raise UsageError(f"--to {destination!r} is not a model on Kaggle: expected kaggle:owner/model.")
        return cls(name)

    def publish(
        self, destination: ModelPaths, rules: PublishPolicy, *, dry_run: bool = False, progress: Progress | None = None
    ) -> Publication:
        """Publish a model, or return what would be sent.

        Raises:
            MixerError: the model may not be published, its licence is unknown, its version is taken or lower than the
                published one, or Kaggle or its client fails.
        """
        variation = f"{self.name}/{FRAMEWORK}/{destination.handle}"
        upload = HubUpload.of(destination, rules, f"{self.PREFIX}{variation}")
        license_name = LICENSES[_license_of(destination)]
        with upload.translate_client_errors("Kaggle", CREDENTIALS):
            if upload.is_published(_published(variation)):
                return upload.publication("published already")
            if dry_run:
                return upload.publication("to be published")
            _upload(upload, variation, license_name)
        if progress is not None:
            size = sum(path.stat().st_size for path in upload.files.values())
            progress(size, size)
        return upload.publication("published")


def _client() -> Any:  # noqa: ANN401 (it has no type information)
    os.environ.setdefault("KAGGLEHUB_VERBOSITY", "error")  # else it logs to standard output
    import kagglehub

    return kagglehub


def _published(variation: str) -> Manifest | None:
    """Return the manifest in the newest version; None if there is no such variation, or it has no manifest."""
    kagglehub = _client()
    from kagglehub.exceptions import KaggleApiHTTPError

    with tempfile.TemporaryDirectory() as folder:
        try:
            path = kagglehub.model_download(variation, path=MANIFEST, output_dir=folder, force_download=True)
            return Manifest.model_validate_json(read_small(Path(path), MOST_BYTES))
        except KaggleApiHTTPError as error:
            # Kaggle answers "forbidden" for a missing model; without write access, the upload fails with it again.
            missing = (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN)
            if error.response is not None and error.response.status_code in missing:
                return None
            raise
        except ValidationError as error:
            raise MixerError(
                f"{KaggleModel.PREFIX}{variation}: its {MANIFEST} is not a readable manifest of schema 1."
            ) from error


def _license_of(destination: ModelPaths) -> str:
    """Return the licence of a model's weights.

    Raises:
        MixerError: it is not known.
    """
    if is_catalogued(destination.handle):
        return LICENSE
    if not destination.about.is_file():
        raise MixerError(
            f"the licence of {destination.handle}'s weights is unknown, but Kaggle requires one: run "
            f"`{command_for('convert-all', destination.handle)} --about FILE.toml`, which says so, and then `card`."
        )
    return AboutRecord.read(destination.about).about.license


def _upload(upload: HubUpload, variation: str, license_name: str) -> None:
    manifest = upload.manifest
    notes = f"{manifest.handle} version {manifest.version}, manifest sha256 {upload.manifest_sha256}"
    with tempfile.TemporaryDirectory() as folder:
        for name, path in upload.files.items():
            place = Path(folder, name)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path.absolute())
        _client().model_upload(variation, folder, license_name=license_name, version_notes=notes)
