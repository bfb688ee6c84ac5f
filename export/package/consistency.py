"""Compare the records of one model in every field that two of them have in common.

This module defines which fields correspond; `verify`, `package`, `card` and `publish` use it.
"""

import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from export.package.facts import ModelFacts
from export.package.provenance import LOCAL_BUILDER, WORKFLOW, Statement
from models.records.about import AboutRecord
from models.records.accuracy import AccuracyRecord
from models.records.contents import Described, compare_files
from models.records.formats import ExportReport
from models.records.layout import ModelPaths
from models.records.manifest import Manifest
from models.records.published_index import INDEX, Index
from models.records.report import Report
from models.signatures import MODEL_JSON
from models.storage.files import Hashes

Name = Literal["asked", "report", "about", "accuracy", "facts", "provenance", "index"]

_PAIRS: tuple[tuple[Name, str, str, str], ...] = (
    # record, what, its field, the corresponding field of the manifest
    ("asked", "handle", "handle", "manifest.handle"),
    ("asked", "version", "version", "manifest.version"),
    ("report", "handle", "report.handle", "manifest.handle"),
    ("report", "version", "report.version", "manifest.version"),
    ("report", "flavour", "report.flavour", "manifest.flavour"),
    ("report", "head", "report.head", "manifest.head"),
    ("report", "origin", "report.origin", "manifest.checkpoint.origin"),
    ("report", "sha256 of saved_model.pb", "report.saved_model_sha256", "manifest.saved_model_sha256"),
    ("about", "handle", "about.handle", "manifest.handle"),
    ("about", "version", "about.version", "manifest.version"),
    ("accuracy", "handle", "accuracy.handle", "manifest.handle"),
    ("accuracy", "version", "accuracy.version", "manifest.version"),
    ("facts", "handle", "facts.handle", "manifest.handle"),
    ("facts", "version", "facts.version", "manifest.version"),
    ("facts", "flavour", "facts.flavour.name", "manifest.flavour"),
    ("facts", "architecture", "facts.architecture_name", "manifest.architecture"),
    ("facts", "image size", "facts.image_size", "manifest.image_size"),
    ("facts", "parameters", "facts.parameters", "manifest.parameters"),
    ("facts", "classes", "facts.outputs", "manifest.num_classes"),
    ("facts", "class list", "facts.output.classes", "manifest.class_list"),
    ("facts", "checkpoint", "facts.checkpoint.object", "manifest.checkpoint.object"),
    ("facts", "checkpoint's sha256", "facts.checkpoint.sha256", "manifest.checkpoint.sha256"),
    ("facts", "origin", "facts.checkpoint.origin", "manifest.checkpoint.origin"),
    ("index", "handle", "index.handle", "manifest.handle"),
)
"""Fields of the provenance are not listed: all are compared with the provenance that the manifest gives."""


@dataclass(frozen=True)
class Records:
    """The records of one model; None for those that are missing or cannot be read."""

    paths: ModelPaths
    manifest: Manifest | None
    handle: str | None = None
    """The handle that the model was requested as or is named by, where known."""
    version: int | None = None
    """Its version, likewise."""
    report: Report | ExportReport | None = None
    about: AboutRecord | None = None
    accuracy: AccuracyRecord | None = None
    facts: ModelFacts | None = None
    """From the model's own `model.json`."""
    provenance: Statement | None = None
    index: Index | None = None
    found: Mapping[str, Hashes] = field(default_factory=dict)
    """Hashes of the files beside the model, by name."""
    archive: bool = True
    """Whether the archive is compared too; False where a model is checked as a directory."""

    def differences(self) -> dict[Name, list[str]]:
        """Return, for each record that exists, its differences from the manifest and the files, in words."""
        names: tuple[Name, ...] = ("report", "about", "accuracy", "facts", "provenance", "index")
        there: tuple[Name, ...] = ("asked", *(name for name in names if getattr(self, name) is not None))
        return {name: [*_fields(self, name), *_files(self, name)] for name in there}

    @property
    def not_bound(self) -> list[str]:
        """The files that say more about the model and are here or in the provenance, but not both; in words."""
        if self.provenance is None:
            return []
        name, bound = self.paths.provenance.name, self.provenance.bound
        pairs = [(one.name, one.name in self.found, one.name in bound) for one in self.paths.described]
        return [
            f"{file} is not bound by {name}, so who wrote it is unknown"
            if here
            else f"{name} binds {file}, missing here"
            for file, here, listed in pairs
            if here != listed
        ]

    def name(self, record: Name) -> str:
        """Return the name of a record for messages."""
        paths = self.paths
        names = {
            "report": paths.report.name,
            "about": paths.about.name,
            "accuracy": paths.accuracy.name,
            "provenance": paths.provenance.name,
        }
        return {"asked": "its path", "facts": MODEL_JSON, "index": INDEX, **names}[record]


def _fields(records: Records, name: Name) -> Iterator[str]:
    if records.manifest is None:
        return
    pairs = _provenance(records) if name == "provenance" else _table(records, name)
    for what, said, meant in pairs:
        if said != meant:
            yield f"{records.name(name)} says {what} {_shown(said)}, {records.paths.manifest.name} {_shown(meant)}"


def _table(records: Records, name: Name) -> Iterator[tuple[str, object, object]]:
    for record, what, here, there in _PAIRS:
        if record == name:
            said, meant = _value(records, here), _value(records, there)
            if None not in (said, meant):
                yield what, said, meant


def _value(records: Records, path: str) -> object:
    """Return a field; None where a record has none, as reports on exports have no flavour and no head."""
    return functools.reduce(lambda value, name: getattr(value, name, None), path.split("."), cast(object, records))


def _provenance(records: Records) -> Iterator[tuple[str, object, object]]:
    """Yield each field of the provenance with its actual and its expected value; None where it is missing."""
    statement, manifest = records.provenance, records.manifest
    if statement is None or manifest is None:
        return
    builder = statement.predicate.run_details.builder.id
    expected = Statement.of(manifest, {}, builder=builder)
    said, meant = dict(_flat(statement)), dict(_flat(expected))
    for what in sorted(said.keys() | meant.keys()):
        yield what, said.get(what), meant.get(what)
    # The manifest does not name the builder; only a signature proves who it was.
    known = builder == LOCAL_BUILDER or WORKFLOW.fullmatch(builder)
    yield "builder.id", builder, builder if known else f"{LOCAL_BUILDER} or the address of a workflow"


def _flat(statement: Statement) -> Iterator[tuple[str, object]]:
    """Yield each value of a statement's predicate with its path; a list member is identified by its name or URI."""
    names: Counter[str] = Counter()

    def walk(value: object, path: str) -> Iterator[tuple[str, object]]:
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from walk(inner, f"{path}.{name}" if path else name)
        elif isinstance(value, list):
            for member in value:
                inner = f"{path}[{member.get('name') or str(member.get('uri')).partition('@')[0]}]"
                names[inner] += 1
                yield from walk(member, inner if names[inner] == 1 else f"{inner} #{names[inner]}")
        else:
            yield path, value

    values = statement.predicate.model_dump(mode="json", by_alias=True, exclude_none=True)
    yield from walk({**values["buildDefinition"], **values["runDetails"]}, "")


def _files(records: Records, name: Name) -> Iterator[str]:
    """Yield the differences between a record's list of files and the files."""
    paths, record = records.paths, records.name(name)
    listed = _listed(records, name)
    if listed is None:
        return
    if name == "index" and not listed:
        yield f"{INDEX} does not list version {paths.stem}: its publication is incomplete"
        return
    required = {
        "report": (paths.manifest,),
        "about": (paths.manifest,),
        "accuracy": (paths.manifest,),
        "provenance": (paths.archive, paths.manifest, paths.report),
    }
    wanted = {path.name for path in required.get(name, paths.required)}
    optional = {"report": (paths.outputs,), "provenance": paths.described}
    described = {path.name for path in optional.get(name, ())}
    left_out = described - (listed.keys() & records.found.keys())  # for the provenance, said by `not_bound`
    there = {key: one for key, one in records.found.items() if name == "index" or key in wanted | described - left_out}
    for key in sorted(wanted - listed.keys() - there.keys()):
        yield f"{key} is not listed in {record}"
    archive = set() if records.archive else {paths.archive.name}
    seen = {key: one for key, one in listed.items() if key not in left_out | archive}
    yield from compare_files(seen, there, record)


@dataclass(frozen=True)
class _Bound:
    """A file of which only the sha256 is known."""

    sha256: str
    size: None = None


def _listed(records: Records, name: Name) -> Mapping[str, Described] | None:
    """Return a record's entries for files beside the model, by name; None where it has no such list."""
    paths, report, provenance, index = records.paths, records.report, records.provenance, records.index
    if name == "report" and report is not None:
        outputs = report.outputs_sha256 if isinstance(report, Report) else None
        return {
            paths.manifest.name: _Bound(report.manifest_sha256),
            **({} if outputs is None else {paths.outputs.name: _Bound(outputs)}),
        }
    bound = {"about": records.about, "accuracy": records.accuracy}.get(name)
    if bound is not None:
        return {paths.manifest.name: _Bound(bound.manifest_sha256)}
    if name == "provenance" and provenance is not None:
        return {key: _Bound(sha256) for key, sha256 in provenance.bound.items()}
    if name == "index" and index is not None:
        return index.versions.get(paths.stem, {})
    return None


def _shown(value: object) -> str:
    """Return an untrusted value for display: shortened, and without control characters."""
    shown = "nothing" if value is None else ascii(value)
    return shown if len(shown) <= 200 else f"{shown[:200]}..."
