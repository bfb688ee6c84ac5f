"""Check pages by the rules of TensorFlow Hub.

The rules are those of the validator in https://github.com/tensorflow/tfhub.dev (tools/validator.py, tags/); of the
values in its tables, this module has only those that pages of this collection may use.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

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
class _Page:
    """The parts of a page that the rules apply to."""

    kind: str | None = None
    """`Module`, `Collection` or `Publisher`; None if the title has another form."""
    name: str = ""
    """What follows the kind in the title."""
    description: str = ""
    metadata: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """Errors in the format itself."""


def read_page(text: str) -> _Page:
    """Read title, description and metadata of a page; parts that cannot be read are listed in its problems."""
    page, lines = _Page(), text.split("\n")
    title = _TITLE.fullmatch(lines[0])
    if title is None:
        page.problems.append(
            f"line 1 is {lines[0][:100]!r}, expected '# Module PUBLISHER/NAME/VERSION', '# Collection "
            "PUBLISHER/NAME/VERSION' or '# Publisher PUBLISHER'"
        )
    else:
        page.kind = title["module"] or title["collection"] or title["publisher"]
        page.name = title["m"] or title["c"] or title["p"]
    if lines[1:2] != [""] or lines[2:3] in ([], [""]):
        page.problems.append("after line 1 there must be one empty line, then a description")
    start = _read_description(page, lines)
    _read_metadata(page, lines, start)
    return page


def _read_description(page: _Page, lines: list[str]) -> int:
    number = 2
    while number < len(lines) and lines[number] and not lines[number].startswith(("<!--", "#")):
        number += 1
    page.description = " ".join(lines[2:number])
    if not page.description:
        page.problems.append("there is no description")
    return number


def _read_metadata(page: _Page, lines: list[str], start: int) -> None:
    for number, line in enumerate(lines[start:], start + 1):
        if line.startswith("#"):
            if not any(rest.strip() for rest in lines[number:]):
                page.problems.append("there is nothing below the first heading")
            return
        found = _METADATA.fullmatch(line)
        if found:
            page.metadata.setdefault(found["key"].strip(), []).append(found["value"].strip())
        elif line and not (page.kind == "Publisher" and _ICON.fullmatch(line)):
            page.problems.append(
                f"line {number} is {line[:100]!r}: up to the first heading there may only be <!-- key: value -->"
            )
    page.problems.append("there is no heading, so nothing but metadata")


def problems_of(text: str) -> list[str]:
    """Return which rules a page breaks, one sentence each; empty if it breaks none."""
    page = read_page(text)
    if page.kind is None:
        return page.problems
    return [*page.problems, *_metadata_problems(page, KINDS[page.kind]), *_link_problems(page, text)]


def _link_problems(page: _Page, text: str) -> Iterator[str]:
    if page.kind == "Collection" and not re.search(
        rf"{re.escape(HUB)}/{page.name.split('/')[0]}/[\w.-]+(/\d+)?\)", text
    ):
        yield f"a page of a Collection needs a link {HUB}/PUBLISHER/NAME to a model of its publisher"


def _metadata_problems(page: _Page, kind: _PageKind) -> Iterator[str]:
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
