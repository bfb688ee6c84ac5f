"""Check that a model may be published: validated, packed, with a card, of known origin and from committed sources."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from export.cards.facts import CardFacts
from export.cards.tfhub import Page
from export.package.provenance import Statement
from export.package.verify import verify
from models.digests import DigestTable
from models.errors import MixerError
from models.records.check import GRAPH
from models.records.formats import ExportManifest, read_manifest
from models.records.layout import ModelPaths
from models.records.manifest import Manifest
from models.records.report import ZERO_HEAD, Report
from models.records.tolerances import TOLERANCES
from models.selection import is_catalogued
from models.storage.files import Hashes

ORIGINS = frozenset({"original"})
"""The origins of checkpoints that may be published under a handle of the catalog."""


@dataclass(frozen=True)
class Publishable:
    """A model that may be published: its manifest, and the files to publish."""

    manifest: Manifest
    files: dict[Path, Hashes]


@dataclass(frozen=True)
class PublishPolicy:
    """The requirements for publishing a model."""

    digests: DigestTable
    """The digests of original checkpoints."""
    origins: frozenset[str] = ORIGINS
    """Allowed origins of the checkpoint under a handle of the catalog; tests and measurements allow others."""
    allow_dirty: bool = False
    """Whether it may be made from sources that are not committed."""
    needs_card: bool = True
    """Whether its page must exist; only tests and measurements turn this off, no option of a command does."""

    def check(self, destination: ModelPaths) -> Publishable:
        """Return a model's files after checking all of them; each is read once.

        Raises:
            MixerError: the model may not be published; lists all reasons.
        """
        destination.require_manifest()
        manifest, hashes = read_manifest(destination.manifest), dict[str, Hashes]()
        if isinstance(manifest, ExportManifest):
            raise MixerError(f"{manifest.handle} is an export: only SavedModels, which have cards, are published.")
        problems = [
            *_missing(destination),
            *_differences(destination, hashes),
            *_not_bound(destination),
            *_report_problems(destination),
            *_origin_problems(manifest, destination.handle, self),
            *_place_problems(manifest),
            *([] if self.allow_dirty else _source_problems(manifest)),
            *(_card_problems(destination) if self.needs_card or destination.card.is_file() else ()),
        ]
        if not problems and destination.card.is_file():  # else the records to compare it with are wrong
            problems += _card_differences(destination)
        if problems:
            said = "".join(f"\n  {problem}" for problem in problems)
            raise MixerError(f"version {destination.version} may not be published:{said}")
        extra = [path for path in (destination.signature, *destination.described) if path.is_file()]
        return Publishable(manifest, {path: hashes[path.name] for path in (*destination.required, *extra)})


def _missing(destination: ModelPaths) -> Iterator[str]:
    package = f"mixer-jax2tf package {destination.handle}"
    for path, command in (
        (destination.report, destination.validate_command),
        (destination.archive, package),
        (destination.provenance, package),
    ):
        if not path.is_file():
            yield f"there is no {path.name}: `{command}` writes it"


def _differences(destination: ModelPaths, hashes: dict[str, Hashes]) -> tuple[str, ...]:
    """Verify the archive, or the directory if the model is not packed, and return the differences."""
    path = destination.archive if destination.archive.is_file() else destination.directory
    return verify(path, handle=destination.handle, hashes=hashes).differences if path.exists() else ()


def _not_bound(destination: ModelPaths) -> Iterator[str]:
    """Yield which files would be published that the provenance does not bind: they were written after it."""
    try:
        bound = Statement.read(destination.provenance).bound
    except MixerError:  # missing, or reported by `_differences`
        return
    again = f"`mixer-jax2tf package {destination.handle} --overwrite` packs the model with it"
    for path in destination.described:
        if path.is_file() and path.name not in bound:
            yield f"{path.name} is not bound by {destination.provenance.name}, which is older: {again}"
        elif not path.is_file() and path.name in bound:
            yield f"{path.name} is missing, but {destination.provenance.name} binds it: write it again"


def _report_problems(destination: ModelPaths) -> Iterator[str]:
    """Yield the problems of a report that matter only for publishing: former limits, or a head of zeros."""
    try:
        report = Report.read(destination.report)
    except MixerError:  # reported by `_differences`
        return
    again = f"`{destination.validate_command} --set full`"
    if not any(report.find(GRAPH)):
        yield (
            "its saved_model.pb was not compared with a fresh trace, as other sources or libraries made it: convert it "
            f"again with the present ones (--overwrite), or run {again} with those that made it"
        )
    for found in [one for one in report.contradictions(TOLERANCES) if one not in {*report.contradictions()}]:
        yield f"its report uses other limits than today's: {found}; {again} writes a new one"
    if report.zero_head and is_catalogued(destination.handle):
        yield f"{ZERO_HEAD}; such a model is not published under a handle of the catalog"


def _origin_problems(manifest: Manifest, name: str, rules: PublishPolicy) -> Iterator[str]:
    checkpoint = manifest.checkpoint
    catalogued = is_catalogued(name)
    allowed = rules.origins if catalogued else frozenset({"own"})
    if checkpoint.origin not in allowed:
        whose = "a handle of the catalog" if catalogued else "a custom name"
        yield (
            f"its checkpoint is of origin {checkpoint.origin}, but under {whose} only {' or '.join(sorted(allowed))} "
            "is published"
        )
    elif checkpoint.origin == "original":
        known = rules.digests.origin_of(checkpoint.object, checkpoint.sha256)
        if known != "original":
            yield (
                f"its manifest calls the checkpoint original, but models/digests.json has no original "
                f"{checkpoint.object} of sha256 {checkpoint.sha256}: `mixer-jax2tf fetch --record` records what "
                "the bucket holds"
            )


def _place_problems(manifest: Manifest) -> Iterator[str]:
    url = manifest.checkpoint.url
    if ("://" not in url and not url.startswith("file:")) or url.startswith("file:/"):  # as in earlier manifests
        yield (
            "its manifest contains the local path of the checkpoint, which would be published: convert it again "
            "(--overwrite)"
        )


def _source_problems(manifest: Manifest) -> Iterator[str]:
    again = "convert it again from a commit, or give --allow-dirty"
    if manifest.git_commit is None:
        yield f"it was made from sources of no known git commit: {again}"
    elif manifest.git_dirty is not False:
        yield f"it was made from sources that differ from commit {manifest.git_commit}: {again}"


def _card_problems(destination: ModelPaths) -> Iterator[str]:
    """Yield why a model's page cannot be published: it is missing, cannot be read, or breaks TensorFlow Hub's rules."""
    card, command = destination.card, _card_command(destination)
    if not card.is_file():
        yield f"there is no {card.name}: {command} writes it"
        return
    try:
        text = card.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        yield f"{card.name} cannot be read ({error}): {command} writes it again"
        return
    for problem in Page.read(text).problems:
        yield f"{card.name} breaks a rule of TensorFlow Hub's pages: {problem}"


def _card_differences(destination: ModelPaths) -> Iterator[str]:
    """Yield where a model's page, which must be valid, differs from the one rendered from its manifest and report.

    Raises:
        MixerError: no page can be rendered, for example because there is no manifest or no report of the full set.
    """
    card, again = destination.card, f"{_card_command(destination)} writes it again"
    found = card.read_text(encoding="utf-8")
    where = Page.read(found).publisher
    if where is None:
        yield f"{card.name}: its asset-path is not <assets>/<handle>/<version>.tar.gz: {again}"
        return
    expected = Page.of_module(CardFacts.read(destination, where)).text
    pairs = enumerate(zip_longest(found.split("\n"), expected.split("\n")), 1)
    number, (is_there, due) = next(((number, pair) for number, pair in pairs if pair[0] != pair[1]), (0, ("", "")))
    if number:
        letters = enumerate(zip_longest(is_there or "", due or ""))
        same = next((place for place, (one, other) in letters if one != other), 0)
        yield (
            f"{card.name} is not the card of this manifest and report (line {number} is {_excerpt(is_there, same)}, "
            f"expected {_excerpt(due, same)}): {again}"
        )


def _excerpt(line: str | None, same: int) -> str:
    """Return the part of a line to show, around the end of its first `same` characters, which are as expected."""
    if line is None:
        return "missing"
    start, end = max(0, same - 30), same + 70
    return repr(f"{'...' if start else ''}{line[start:end]}{'...' if len(line) > end else ''}")


def _card_command(destination: ModelPaths) -> str:
    return f"`mixer-jax2tf card {destination.handle} --publisher P --assets URL`"
