"""Render TensorFlow Hub's pages, of a model, of the collection and of the publisher, and check them by its rules.

The rules are those of the validator in https://github.com/tensorflow/tfhub.dev (tools/validator.py, tags/); of the
values in its tables, this module has only those that pages of this collection may use.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from export.cards.collection import COLLECTION, COLLECTION_SUMMARY
from export.cards.facts import CardFacts
from export.cards.markdown import render
from export.cards.publisher import Publisher
from models.catalog import LICENSE, Head
from models.errors import UsageError

COLLECTION_VERSION = 1
"""The only number that TensorFlow Hub accepts: a collection has one page, which is overwritten."""

TASKS: dict[Head, str] = {"classification": "image-classification", "fe": "image-feature-vector"}
DATASETS = {"ImageNet-1k": "imagenet-ilsvrc-2012-cls", "ImageNet-21k": "imagenet-21k"}
"""TensorFlow Hub's names for the datasets that the catalog's checkpoints were trained on."""

_TEMPLATE = "tfhub.md"

HUB = "https://tfhub.dev"
"""The old site, by whose addresses its validator knows the models of a collection."""

REPEATED = frozenset({"dataset", "language", "network-architecture", "task"})
"""Keys that may occur more than once."""

KNOWN: Mapping[str, frozenset[str]] = {
    "task": frozenset({"image-classification", "image-feature-vector"}),
    "network-architecture": frozenset({"mixer"}),
    "dataset": frozenset({"imagenet-ilsvrc-2012-cls", "imagenet-21k"}),
    "license": frozenset({"apache-2.0"}),
    "format": frozenset({"saved_model_2"}),
    "fine-tunable": frozenset({"true", "false"}),
}

_NAME = r"[\w.-]+(?:/[\w.-]+)*"
_TITLE = re.compile(
    rf"# (?:(?P<module>Module) (?P<m>[a-z\d-]+/{_NAME}/\d+)|(?P<collection>Collection) (?P<c>[a-z\d-]+/{_NAME}/\d+)|"
    r"(?P<publisher>Publisher) (?P<p>[a-z\d-]+))",
    re.ASCII,
)
_METADATA = re.compile(r"<!--(?P<key>[\w\s-]+):(?P<value>.+)-->")
_ICON = re.compile(r"\[!\[Icon URL\]\]\(https://\S+\)")
_ASSET = re.compile(r"https://[^\s<>\"]+\.tar\.gz")
_NOT_FETCHED = re.compile(r"https://github\.com/.*/releases/download/.*")


@dataclass(frozen=True)
class _PageKind:
    """A kind of page: its required and its optional keys."""

    required: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()


KINDS: Mapping[str, _PageKind] = {
    "Module": _PageKind(
        frozenset({"asset-path", "fine-tunable", "format", "task"}),
        frozenset({"colab", "dataset", "interactive-visualizer", "language", "license", "network-architecture"}),
    ),
    "Collection": _PageKind(frozenset({"task"}), frozenset({"dataset", "language", "network-architecture"})),
    "Publisher": _PageKind(),
}


@dataclass
class Page:
    """A page, with the parts that the rules apply to."""

    text: str
    kind: str | None = None
    """`Module`, `Collection` or `Publisher`; None if the title has another form."""
    name: str = ""
    """What follows the kind in the title."""
    description: str = ""
    metadata: dict[str, list[str]] = field(default_factory=dict)
    malformed: list[str] = field(default_factory=list)
    """Errors in the format itself."""

    @classmethod
    def of_module(cls, subject: CardFacts) -> Self:
        """Render the page of a model."""
        manifest = subject.manifest
        text = render(
            _TEMPLATE,
            title=f"Module {subject.where.publisher}/{manifest.handle}/{manifest.version}",
            description=subject.summary,
            metadata=list(_metadata(subject)),
            body="model.md",
            model=subject,
        )
        return cls.read(text)

    @classmethod
    def of_collection(cls, where: Publisher, members: Sequence[CardFacts]) -> Self:
        """Render the page of the collection with these models."""
        data = [member.handle.checkpoint.training.data for member in members if member.trained]
        metadata = [
            *(("task", task) for task in dict.fromkeys(TASKS[member.handle.head] for member in members)),
            *(("dataset", name) for name in dict.fromkeys(DATASETS[one] for one in data if one in DATASETS)),
            ("network-architecture", "mixer"),
        ]
        text = render(
            _TEMPLATE,
            title=f"Collection {where.publisher}/{COLLECTION}/{COLLECTION_VERSION}",
            description=COLLECTION_SUMMARY,
            metadata=metadata,
            body="collection.md",
            members=members,
            hub=f"{HUB}/{where.publisher}",
        )
        return cls.read(text)

    @classmethod
    def of_publisher(cls, where: Publisher) -> Self:
        """Render the page of the publisher, of whom only the name is known here."""
        text = render(
            _TEMPLATE,
            title=f"Publisher {where.publisher}",
            description=f"Publisher of {COLLECTION}.",
            metadata=(),
            body="publisher.md",
            publisher=where.publisher,
            collection=COLLECTION,
        )
        return cls.read(text)

    @classmethod
    def read(cls, text: str) -> Self:
        """Read title, description and metadata of a page; parts that cannot be read are listed as malformed."""
        page, lines = cls(text), text.split("\n")
        title = _TITLE.fullmatch(lines[0])
        if title is None:
            page.malformed.append(
                f"line 1 is {lines[0][:100]!r}, expected '# Module PUBLISHER/NAME/VERSION', '# Collection "
                "PUBLISHER/NAME/VERSION' or '# Publisher PUBLISHER'"
            )
        else:
            page.kind = title["module"] or title["collection"] or title["publisher"]
            page.name = title["m"] or title["c"] or title["p"]
        if lines[1:2] != [""] or lines[2:3] in ([], [""]):
            page.malformed.append("after line 1 there must be one empty line, then a description")
        start = _read_description(page, lines)
        _read_metadata(page, lines, start)
        return page

    @property
    def problems(self) -> list[str]:
        """Which rules it breaks, one sentence each; empty if it breaks none."""
        if self.kind is None:
            return self.malformed
        return [*self.malformed, *_metadata_problems(self, KINDS[self.kind]), *_link_problems(self)]

    @property
    def publisher(self) -> Publisher | None:
        """Who publishes the model that it is about; None if it cannot be a page of ours."""
        publisher, _, rest = self.name.partition("/")
        path = (self.metadata.get("asset-path") or [""])[0]
        if self.kind != "Module" or not path.endswith(f"/{rest}.tar.gz"):
            return None
        try:
            return Publisher(publisher, path.removesuffix(f"/{rest}.tar.gz"))
        except UsageError:
            return None


def _metadata(subject: CardFacts) -> Iterator[tuple[str, str]]:
    training = subject.handle.checkpoint.training
    yield "asset-path", subject.archive
    yield "task", TASKS[subject.handle.head]
    yield "fine-tunable", str(subject.fine_tunable).lower()
    yield "format", "saved_model_2"
    yield "network-architecture", "mixer"
    if subject.trained and training.data in DATASETS:
        yield "dataset", DATASETS[training.data]
    if training.license == LICENSE:
        yield "license", LICENSE.lower()


def _read_description(page: Page, lines: list[str]) -> int:
    number = 2
    while number < len(lines) and lines[number] and not lines[number].startswith(("<!--", "#")):
        number += 1
    page.description = " ".join(lines[2:number])
    if not page.description:
        page.malformed.append("there is no description")
    return number


def _read_metadata(page: Page, lines: list[str], start: int) -> None:
    for number, line in enumerate(lines[start:], start + 1):
        if line.startswith("#"):
            if not any(rest.strip() for rest in lines[number:]):
                page.malformed.append("there is nothing below the first heading")
            return
        found = _METADATA.fullmatch(line)
        if found:
            page.metadata.setdefault(found["key"].strip(), []).append(found["value"].strip())
        elif line and not (page.kind == "Publisher" and _ICON.fullmatch(line)):
            page.malformed.append(
                f"line {number} is {line[:100]!r}: up to the first heading there may only be <!-- key: value -->"
            )
    page.malformed.append("there is no heading, so nothing but metadata")


def _link_problems(page: Page) -> Iterator[str]:
    if page.kind == "Collection" and not re.search(
        rf"{re.escape(HUB)}/{page.name.split('/')[0]}/[\w.-]+(/\d+)?\)", page.text
    ):
        yield f"a page of a Collection needs a link {HUB}/PUBLISHER/NAME to a model of its publisher"


def _metadata_problems(page: Page, kind: _PageKind) -> Iterator[str]:
    missing = kind.required - page.metadata.keys()
    unknown = page.metadata.keys() - kind.required - kind.optional
    if missing:
        yield f"a page of a {page.kind} needs {', '.join(sorted(missing))}"
    if unknown:
        allowed = ", ".join(sorted(kind.required | kind.optional)) or "none"
        yield f"{', '.join(sorted(unknown))}: not allowed on a page of a {page.kind}, which may have: {allowed}"
    for key, values in sorted(page.metadata.items()):
        if len(values) > 1 and key not in REPEATED:
            yield f"{key} occurs {len(values)} times, expected once"
        if len(set(values)) != len(values) and key in REPEATED:
            yield f"{key} has one value twice: {', '.join(values)}"
        strange = [value for value in values if key in KNOWN and value not in KNOWN[key]]
        if strange:
            yield f"{key} is {', '.join(strange)}, expected one of: {', '.join(sorted(KNOWN[key]))}"
    for path in page.metadata.get("asset-path", ()):
        if not _ASSET.fullmatch(path):
            yield f"asset-path is {path}, expected https://... that ends in .tar.gz"
        elif _NOT_FETCHED.fullmatch(path):
            yield f"asset-path is {path}: from there the site may not fetch, by GitHub's robots.txt"
