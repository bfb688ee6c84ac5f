"""Publish in a Hugging Face repository, through its client: a folder for each handle, a tag for each version.

All files of a version are sent in one commit, with its card and the collection's, on the condition that nobody else has
committed meanwhile.
"""

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import ValidationError

from export.cards.facts import CardFacts
from export.cards.hugging_face import FILE, Card
from export.cards.tfhub import Page
from export.cards.write import CardFiles
from export.publish.hub_upload import MANIFEST, HubUpload
from export.publish.policy import PublishPolicy
from export.publish.publish import Publication
from models.errors import MixerError, UsageError
from models.progress import Progress
from models.records.layout import ModelPaths
from models.records.manifest import MOST_BYTES, Manifest
from models.storage.files import read_small

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CREDENTIALS = "HF_TOKEN or those of `hf auth login`"


@dataclass(frozen=True)
class HuggingFaceRepository:
    """An existing repository of models."""

    PREFIX: ClassVar = "hf:"
    CLIENT: ClassVar = "huggingface_hub"

    name: str
    """`owner/repo`."""

    @classmethod
    def parse(cls, destination: str) -> "HuggingFaceRepository":
        """Parse `hf:owner/repo`.

        Raises:
            UsageError: the destination has another form.
        """
        name = destination.removeprefix(cls.PREFIX)
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name, re.ASCII):
            raise UsageError(f"--to {destination!r} is not a repository on Hugging Face: expected hf:owner/repo.")
        return cls(name)

    def publish(
        self, destination: ModelPaths, rules: PublishPolicy, *, dry_run: bool = False, progress: Progress | None = None
    ) -> Publication:
        """Publish a model, or return what would be sent.

        Raises:
            MixerError: the model may not be published, its version is taken or lower than the published one, or Hugging
                Face or its client fails.
        """
        handle, tag = destination.handle, f"{destination.handle}-v{destination.version}"
        upload = HubUpload.of(destination, rules, f"{self.PREFIX}{self.name}/{handle}")
        with upload.translate_client_errors("Hugging Face", CREDENTIALS):
            api = _api()
            now = api.model_info(self.name)
            names = {one.rfilename for one in now.siblings or ()}
            tagged = tag in {one.name for one in api.list_repo_refs(self.name).tags}
            there = upload.is_published(_published(api, self.name, now.sha, handle, names))
            if tagged and not there:
                raise MixerError(f"{upload.address}: the tag {tag} exists, but the folder contains another version.")
            if there:
                cards = {}
            else:
                readme = _read(api, self.name, FILE, now.sha, names)
                every = _cards(destination, self.name)
                cards = {name: card for name, card in every.items() if (name, card) != (FILE, readme)}
            planned = {f"{self.PREFIX}{self.name}/{name}": card for name, card in cards.items()}
            if dry_run:
                return upload.publication("published already" if there else "to be published", planned)
            commit = now.sha if there else self._commit(api, upload, cards, now.sha, names)
            if not tagged:  # or an earlier run ended between commit and tag
                api.create_tag(self.name, tag=tag, revision=commit)
        if progress is not None and not there:
            size = sum(path.stat().st_size for path in upload.files.values())
            progress(size, size)
        return upload.publication("published already" if there else "published", planned)

    def _commit(
        self, api: "HfApi", upload: HubUpload, cards: Mapping[str, bytes], parent: str | None, names: set[str]
    ) -> str:
        """Replace the contents of the handle's folder by the upload, add the cards, and return the commit."""
        from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

        manifest = upload.manifest
        new: dict[str, Path | bytes] = {f"{manifest.handle}/{name}": path for name, path in upload.files.items()}
        new |= cards
        old = {name for name in names if name.startswith(f"{manifest.handle}/")}
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
            *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in new.items()),
            *(CommitOperationDelete(path_in_repo=name) for name in sorted(old - new.keys())),
        ]
        done = api.create_commit(
            self.name,
            operations,
            commit_message=f"{manifest.handle} version {manifest.version}",
            commit_description=f"manifest sha256 {upload.manifest_sha256}",
            parent_commit=parent,
        )
        return done.oid


def _api() -> "HfApi":
    # Uploads go by plain HTTP, which was tested; by default the client uses Xet where it can.
    for name in ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="mixer-jax2tf")


def _published(api: "HfApi", name: str, commit: str | None, handle: str, names: set[str]) -> Manifest | None:
    path = f"{handle}/{MANIFEST}"
    content = _read(api, name, path, commit, names)
    try:
        return None if content is None else Manifest.model_validate_json(content)
    except ValidationError as error:
        raise MixerError(
            f"{HuggingFaceRepository.PREFIX}{name}/{path} is not a readable manifest of schema 1."
        ) from error


def _read(api: "HfApi", name: str, path: str, commit: str | None, names: set[str]) -> bytes | None:
    if path not in names:
        return None
    with tempfile.TemporaryDirectory() as folder:
        return read_small(Path(api.hf_hub_download(name, path, revision=commit, local_dir=folder)), MOST_BYTES)


def _cards(destination: ModelPaths, repository: str) -> dict[str, bytes]:
    """Return the cards for a repository by path: the model's, if its page names a publisher, and the collection's."""
    cards, page = {}, destination.card
    where = Page.read(page.read_text(encoding="utf-8")).publisher if page.is_file() else None
    if where is not None:
        card = Card.of_model(CardFacts.read(destination, where), repository)
        cards[f"{destination.handle}/{FILE}"] = card.text.encode()
    collection = CardFiles(destination.out).hugging_face
    if collection.is_file():
        cards[FILE] = collection.read_bytes()
    for name, content in cards.items():
        if problems := Card(content.decode(errors="replace")).problems:
            raise MixerError(f"the card {name} breaks Hugging Face's rules: {'; '.join(problems)}.")
    return cards
