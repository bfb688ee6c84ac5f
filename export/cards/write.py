"""Write the cards of models from the records beside them, and check them before they are published.

TensorFlow Hub's page is beside its model as `<version>.md` and is published with it. The files for other sites are
below `<out>/cards/`, in the layout that each requires.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from export.cards import hugging_face, kaggle, tfhub
from export.cards.collection import COLLECTION
from export.cards.facts import CardFacts, read_card_facts
from export.cards.publisher import Publisher
from export.cards.tfhub_rules import problems_of
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


_Check = Callable[[str], list[str]]


def write_model_cards(destination: ModelPaths, where: Publisher) -> Written:
    """Write all cards of a model.

    Raises:
        MixerError: the model was not converted or not validated with the full set, its files differ from its records,
            or a card would break the rules of its site: then no card is written. Or a card cannot be written.
    """
    subject, files = read_card_facts(destination, where), CardFiles(destination.out)
    name = destination.handle
    cards: dict[Path, tuple[str, _Check]] = {
        destination.card: (tfhub.render_module(subject), problems_of),
        files.hugging_face_model(name): (hugging_face.render_model(subject), hugging_face.problems_of),
    }
    notes = [*subject.left_out]
    variation = kaggle.render_variation(subject)
    if variation is None:
        notes.append("Kaggle takes no model without a licence, and none of these weights is known: no file for it")
    else:
        cards[files.kaggle_variation(name)] = (variation, kaggle.variation_problems)
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
    collection = tfhub.render_collection(where, members)
    cards: dict[Path, tuple[str, _Check]] = {
        files.hub_collection(where.publisher): (collection, problems_of),
        files.hub_publisher(where.publisher): (tfhub.render_publisher(where), problems_of),
        files.kaggle_model: (kaggle.render_model(where, members), kaggle.model_problems),
        files.hugging_face: (hugging_face.render_collection(members), hugging_face.problems_of),
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
            of_page = Publisher.of_page(page.read_text(encoding="utf-8", errors="replace"))
            if of_page is None or of_page.publisher != where.publisher:
                notes.append(f"{page} is not by {where.publisher}: left out of the collection")
                continue
            members.append(read_card_facts(ModelPaths.of(out, name, version), of_page))
    return members, notes


def _write(cards: Mapping[Path, tuple[str, _Check]]) -> tuple[Path, ...]:
    problems = [f"{path.name}: {problem}" for path, (text, check) in cards.items() for problem in check(text)]
    if problems:
        said = "".join(f"\n  {problem}" for problem in problems)
        raise MixerError(f"what would be written breaks the rules of its site, so nothing was:{said}")
    try:
        for path, (text, _) in cards.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text.encode())
    except OSError as error:
        raise MixerError(
            f"{error.filename or 'a card'} could not be written ({error.strerror or error}): free some space, make its "
            "folder writable, or give another --out."
        ) from error
    return tuple(cards)


def card_problems(destination: ModelPaths) -> Iterator[str]:
    """Yield why a model's page cannot be published: it is missing, cannot be read, or breaks TensorFlow Hub's rules."""
    card = destination.card
    if not card.is_file():
        yield f"there is no {card.name}: {_command(destination.handle)} writes it"
        return
    try:
        text = card.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        yield f"{card.name} cannot be read ({error}): {_command(destination.handle)} writes it again"
        return
    for problem in problems_of(text):
        yield f"{card.name} breaks a rule of TensorFlow Hub's pages: {problem}"


def card_differences(destination: ModelPaths) -> Iterator[str]:
    """Yield where a model's page, which must be valid, differs from the one rendered from its manifest and report.

    Raises:
        MixerError: no page can be rendered, for example because there is no manifest or no report of the full set.
    """
    card = destination.card
    found = card.read_text(encoding="utf-8")
    where = Publisher.of_page(found)
    if where is None:
        yield f"{card.name}: its asset-path is not <assets>/<handle>/<version>.tar.gz: {_again(destination.handle)}"
        return
    expected = tfhub.render_module(read_card_facts(destination, where))
    pairs = enumerate(zip_longest(found.split("\n"), expected.split("\n")), 1)
    number, (is_there, due) = next(((number, pair) for number, pair in pairs if pair[0] != pair[1]), (0, ("", "")))
    if number:
        letters = enumerate(zip_longest(is_there or "", due or ""))
        same = next((place for place, (one, other) in letters if one != other), 0)
        yield (
            f"{card.name} is not the card of this manifest and report (line {number} is {_shown(is_there, same)}, "
            f"expected {_shown(due, same)}): {_again(destination.handle)}"
        )


def _shown(line: str | None, same: int) -> str:
    """Return the part of a line to show, around the end of its first `same` characters, which are as expected."""
    if line is None:
        return "missing"
    start, end = max(0, same - 30), same + 70
    return repr(f"{'...' if start else ''}{line[start:end]}{'...' if len(line) > end else ''}")


def _command(handle: str) -> str:
    return f"`mixer-jax2tf card {handle} --publisher P --assets URL`"


def _again(handle: str) -> str:
    return f"{_command(handle)} writes it again"
