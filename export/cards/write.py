"""Write the cards of models from the records beside them.

TensorFlow Hub's page is beside its model as `<version>.md` and is published with it. The files for other sites are
below `<out>/cards/`, in the layout that each requires.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from export.cards import hugging_face, kaggle, tfhub
from export.cards.collection import COLLECTION
from export.cards.facts import CardFacts
from export.cards.publisher import Publisher
from models.catalog import HANDLES, SQUARE_HANDLES, TESTING_HANDLES
from models.errors import MixerError, counted
from models.flavours import FLAVOURS
from models.records.layout import ModelPaths
from models.storage.files import write_atomically


@dataclass(frozen=True)
class CardFiles:
    """The paths of the cards for a directory of models, except TensorFlow Hub's pages of the models themselves."""

    out: Path

    def hub_collection(self, publisher: str) -> Path:
        """TensorFlow Hub's page of the collection."""
        folder = self._folder("hub") / publisher / "collections" / COLLECTION
        return folder / f"{tfhub.COLLECTION_VERSION}.md"

    def hub_publisher(self, publisher: str) -> Path:
        """TensorFlow Hub's page of the publisher."""
        return self._folder("hub") / publisher / f"{publisher}.md"

    @property
    def kaggle_model(self) -> Path:
        """Kaggle's metadata of the collection."""
        return self._folder("kaggle") / kaggle.MODEL_FILE

    def kaggle_variation(self, handle: str) -> Path:
        """Kaggle's metadata of a model."""
        return self._folder("kaggle") / handle / kaggle.VARIATION_FILE

    @property
    def hugging_face(self) -> Path:
        """Hugging Face's card of the repository with all models."""
        return self._folder("huggingface") / hugging_face.FILE

    def hugging_face_model(self, handle: str) -> Path:
        """Hugging Face's card of a model, for its folder in the repository."""
        return self._folder("huggingface") / handle / hugging_face.FILE

    def _folder(self, site: str) -> Path:
        return self.out / "cards" / site


@dataclass(frozen=True)
class Written:
    """The cards that were written for one model, or for the collection."""

    name: str
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    """Cards or models that were left out, and why."""


class _Card(Protocol):
    """A card for any site."""

    @property
    def text(self) -> str:
        """Its contents."""

    @property
    def problems(self) -> list[str]:
        """Which of its site's rules it breaks."""


def write_model_cards(destination: ModelPaths, where: Publisher) -> Written:
    """Write all cards of a model.

    Raises:
        MixerError: the model was not converted or not validated with the full set, its files differ from its records,
            or a card would break the rules of its site: then no card is written. Or a card cannot be written.
    """
    subject, files = CardFacts.read(destination, where), CardFiles(destination.out)
    name = destination.handle
    cards: dict[Path, _Card] = {
        destination.card: tfhub.Page.of_module(subject),
        files.hugging_face_model(name): hugging_face.Card.of_model(subject),
    }
    notes = [*subject.left_out]
    variation = kaggle.VariationMetadata.of(subject)
    if variation is None:
        notes.append("no file for Kaggle, which takes only models with a licence: none is known for these weights")
    else:
        cards[files.kaggle_variation(name)] = variation
    return Written(name, _write(cards), tuple(notes))


def write_collection_cards(out: Path, where: Publisher) -> Written | None:
    """Write the cards of the collection: the catalog's models in `out` that have a page by this publisher.

    Each model is listed with its highest version that has a page. Return None, and write nothing, if there are none.

    Raises:
        MixerError: the records of a model are missing, or a card would break the rules of its site: then no card is
            written. Or a card cannot be written.
    """
    members, notes = _members(out, where)
    if not members:
        return None
    files = CardFiles(out)
    cards: dict[Path, _Card] = {
        files.hub_collection(where.publisher): tfhub.Page.of_collection(where, members),
        files.hub_publisher(where.publisher): tfhub.Page.of_publisher(where),
        files.kaggle_model: kaggle.ModelMetadata.of(where, members),
        files.hugging_face: hugging_face.Card.of_collection(members),
    }
    return Written(f"the collection, {counted(len(members), 'model')}", _write(cards), tuple(notes))


def _members(out: Path, where: Publisher) -> tuple[list[CardFacts], list[str]]:
    members, notes = [], []
    for row in (HANDLES | TESTING_HANDLES | SQUARE_HANDLES).values():
        for flavour in FLAVOURS:
            name = row.in_flavour(flavour).name
            pages = (out / name).glob("*.md")
            version = max((int(page.stem) for page in pages if page.stem.isdigit()), default=None)
            if version is None:
                continue
            page = ModelPaths.of(out, name, version).card
            by = tfhub.Page.read(page.read_text(encoding="utf-8", errors="replace")).publisher
            if by is None or by.publisher != where.publisher:
                notes.append(f"{page} is not by {where.publisher}: left out of the collection")
                continue
            members.append(CardFacts.read(ModelPaths.of(out, name, version), by))
    return members, notes


def _write(cards: Mapping[Path, _Card]) -> tuple[Path, ...]:
    problems = [f"{path.name}: {problem}" for path, card in cards.items() for problem in card.problems]
    if problems:
        said = "".join(f"\n  {problem}" for problem in problems)
        raise MixerError(f"what would be written breaks the rules of its site, so nothing was:{said}")
    try:
        for path, card in cards.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, card.text.encode())
    except OSError as error:
        raise MixerError(
            f"{error.filename or 'a card'} could not be written ({error.strerror or error}): free some space, make its "
            "folder writable, or give another --out."
        ) from error
    return tuple(cards)
