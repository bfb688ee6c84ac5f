"""What the page shows of one handle: the values that `handle.html` lays out."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from markupsafe import Markup

from models.catalog import ALL_HANDLES, Handle
from models.errors import printable
from models.records.accuracy import Measurement
from models.records.check import Check
from models.records.manifest import Manifest
from models.selection import command_for, is_catalogued
from validation.previous.open import summarise
from validation.views.cells import NOTHING, Row, Table, figure_of, share
from validation.views.inputs import Input
from validation.views.model_records import ModelRecords, Status
from validation.views.plots import Picture, draw_agreement, draw_depth, draw_errors

ORIGINS = {
    "original": "the digest is the one recorded from the public bucket",
    "seeded": "synthetic weights with the names, shapes and dtypes of the originals. They prove the conversion, not "
    "the original weights",
    "unknown": "no digest of the original is recorded, so whether these are its weights is unknown",
    "own": "a custom checkpoint, not of the collection",
}

_SIGNS: dict[Status, str] = {"passed": "✓", "failed": "✕", "void": "!", "not checked": "?"}


def badge(status: Status) -> Markup:
    """Return a verdict in words, with a sign and a colour that only repeat them."""
    name = status.replace(" ", "-")
    pattern = Markup('<span class="badge {}"><span aria-hidden="true">{}</span> {}</span>')
    return pattern.format(name, _SIGNS[status], status)


@dataclass(frozen=True)
class HandleView:
    """The records of one handle, and what the page makes of them; tables are of what is there."""

    model: ModelRecords
    anchor: str
    """The id of its heading."""
    inputs: list[Input]
    """Its inputs, of a classifier."""

    @property
    def name(self) -> str:
        """The handle."""
        return self.model.name

    def command(self, task: str) -> str:
        """Return the command that converts or validates the model."""
        return command_for(task, self.name)

    @cached_property
    def lineage(self) -> list[tuple[str, str]]:
        """What it was made from, and what it is."""
        return [] if self.model.handle is None else list(_lineage(self.model, self.model.handle))

    @cached_property
    def pictures(self) -> list[tuple[str, Picture]]:
        """Pictures with their headings, of the full set: to draw them takes a while."""
        return list(_pictures(self.model, self.anchor))

    @property
    def summary(self) -> Table:
        """A row for each name of checks: the worst of those that can tell right from wrong."""
        report = self.model.report
        names = dict.fromkeys(check.name for check in report.checks) if report else ()
        return Table(
            f"{self.name}: {report.inputs_set if report else 'no'} set",
            ("Check", "#Times", "#Worst", "#Limit", "#Of the limit", "On", "#Without power"),
            tuple(_summarised(name, self.model) for name in names),
        )

    @property
    def checks(self) -> Table:
        """Every check."""
        found = self.model.report.checks if self.model.report else ()
        columns = ("Check", "On", "#Measured", "#Limit", "#Power", "What was seen")
        return Table(f"{self.name}: checks", columns, tuple(map(_check, found)))

    @property
    def limits(self) -> Table:
        """The limits that it was judged by."""
        limits = self.model.report.tolerances if self.model.report else {}
        rows = tuple((_code(name), figure_of(one.limit), one.reason) for name, one in limits.items())
        return Table(f"{self.name}: limits", ("Limit", "#Value", "Reason"), rows)

    @property
    def accuracy(self) -> Table:
        """What was measured on labelled pictures."""
        found = self.model.accuracy.measurements if self.model.accuracy else ()
        columns = ("Pictures", "#Number", "#Top-1", "#Top-5", "Resized by", "Measured with", "Remarks")
        return Table(f"{self.name}: accuracy", columns, tuple(row for one in found for row in _measured(one)))

    @property
    def earlier(self) -> Table:
        """How it compares with an earlier published version."""
        found = self.model.report.reference if self.model.report else None
        name = found.name if found else NOTHING
        return Table(f"{self.name}: against {name}", ("What", "Outcome"), tuple(summarise(found)) if found else ())

    @property
    def provenance(self) -> list[tuple[str, str]]:
        """What made it, and what checked it."""
        return list(_provenance(self.model))

    @property
    def files(self) -> Table:
        """The files of the SavedModel."""
        files = sorted(self.model.manifest.files.items()) if self.model.manifest else ()
        rows = tuple((_code(name), f"{file.size:,}", _code(file.sha256)) for name, file in files)
        return Table(f"{self.name}: files", ("File", "#Bytes", "sha256"), rows)


def _lineage(model: ModelRecords, handle: Handle) -> Iterator[tuple[str, str]]:
    manifest = model.manifest
    checkpoint, training = handle.checkpoint, handle.checkpoint.training
    architecture = checkpoint.architecture
    if manifest:
        yield "Origin", f"{manifest.checkpoint.origin}: {ORIGINS[manifest.checkpoint.origin]}"
    catalogued = is_catalogued(handle.name)
    siblings = [other.name for other in ALL_HANDLES.values() if other.checkpoint == checkpoint and other != handle]
    if catalogued or manifest:
        made_from = checkpoint.object if catalogued or not manifest else manifest.checkpoint.object
        yield "Made from", Markup("").join([_code(made_from), *(f", like {name}" for name in siblings)])
    sizes = f"{architecture.num_blocks} blocks, {architecture.hidden_dim} channels, {architecture.tokens} tokens"
    yield "Architecture", f"Mixer {architecture.name}: {sizes}"
    if catalogued:
        yield "Trained on", f"{training.data}, {training.method}"
    yield "Papers", Markup(" ").join(_link(paper, f"arXiv {paper.rpartition('/')[2]}") for paper in training.papers)
    if catalogued:
        source = _link(training.source, training.source.removeprefix("https://"))
        yield "Weights from", Markup("{}, {}").format(source, training.license)
    yield "Version", str(model.paths.version)
    yield "Output", f"{handle.outputs:,} {'logits' if handle.head == 'classification' else 'features'}"
    yield "Parameters", f"{handle.parameters:,}"
    if manifest:
        yield "SavedModel", f"{manifest.size:,} bytes (files: see Provenance)"
        yield "Flavour", f"{manifest.flavour}, for {', '.join(manifest.platforms)}"


def _pictures(model: ModelRecords, anchor: str) -> Iterator[tuple[str, Picture]]:
    evidence, report = model.evidence, model.report
    tolerance = report.tolerances.get("max_relative") if report else None
    if evidence and report and report.inputs_set == "full" and tolerance and tolerance.limit:
        ours, jax = evidence.saved_model.astype(np.float64), evidence.jax.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            shares = (ours - jax) / evidence.scale[:, np.newaxis] / tolerance.limit
        yield "SavedModel compared with JAX.", draw_agreement(ours, jax, shares, f"{anchor}-agreement")
        yield "Errors and their limit.", draw_errors(shares, f"{anchor}-errors")
    if report and report.depth:
        yield "Error along the depth.", draw_depth(report.depth, f"{anchor}-depth")


def _summarised(name: str, model: ModelRecords) -> Row:
    assert model.report  # noqa: S101 (whoever asks has one)
    checks, worst = list(model.report.find(name)), model.report.worst(name)
    measured, limit = (worst.measured, worst.limit) if worst else (None, None)
    powerless = sum(not check.has_power for check in checks)
    return (
        _code(name),
        str(len(checks)),
        figure_of(measured),
        figure_of(limit),
        share(100 * measured / limit if measured is not None and limit else None),
        worst.on if worst else NOTHING,
        str(powerless) if powerless else NOTHING,
    )


def _measured(one: Measurement) -> Iterator[Row]:
    undecoded = f"{one.not_decoded:,} more could not be decoded" if one.not_decoded else ""
    remarks = "; ".join(part for part in (undecoded, *one.remarks) if part) or NOTHING

    def accuracies(top1: int, top5: int) -> Iterator[str]:
        return (f"{100 * right / one.pictures:.2f} %" for right in (top1, top5))

    number, how = f"{one.pictures:,}", (_code(one.protocol), _code(one.command), remarks)
    yield (one.data, number, *accuracies(one.top1, one.top5), *how)
    if one.subset_top1 is not None and one.subset_top5 is not None:
        among = f"{one.data}, among the classes that occur alone"
        yield (among, number, *accuracies(one.subset_top1, one.subset_top5), *how)


def _check(check: Check) -> Row:
    made_on = check.made_on and f"made on {check.made_on.handle}, saved_model.pb {check.made_on.saved_model_sha256}"
    said = "; ".join(part for part in (check.detail, *check.problems, made_on) if part)
    figures = (figure_of(value) for value in (check.measured, check.limit, check.power))
    return (_code(check.name), check.on, *figures, said or NOTHING)


def _provenance(model: ModelRecords) -> Iterator[tuple[str, str]]:
    manifest, report = model.manifest, model.report
    if manifest is None:
        return
    yield "Checkpoint", f"{manifest.checkpoint.url}, {manifest.checkpoint.size:,} bytes"
    yield "Its sha256", _code(manifest.checkpoint.sha256)
    yield "Made on", model.day_of(model.paths.manifest) or NOTHING
    yield "Made with", _versions(manifest.libraries)
    yield "Project", project(manifest)
    yield "Its sources", _code(manifest.pipeline_sha256)
    if report:
        yield "Checked on", model.day_of(model.paths.report) or NOTHING
        yield "Checked with", _versions(report.libraries)
        yield "Checking sources", _code(report.validator_sha256)
        yield "Inputs", _code(report.inputs_sha256)
        yield "Manifest", _code(report.manifest_sha256)


def project(manifest: Manifest, *, letters: int | None = None) -> Markup:
    """Return this project's version, and so many letters of its commit, as a manifest says them."""
    dirty = ", with uncommitted changes" if manifest.git_dirty else ""
    commit = _code(manifest.git_commit[:letters]) if manifest.git_commit else "none"
    return Markup("{}, commit {}{}").format(printable(manifest.pipeline), commit, dirty)


def _versions(libraries: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in libraries.items())


def _code(text: str) -> Markup:
    """Return text as it is in a file or a program."""
    return Markup("<code>{}</code>").format(printable(text))


def _link(target: str, text: str) -> str:
    """Return a link to a page of the web; to anything else only the text."""
    return Markup('<a href="{}">{}</a>').format(target, printable(text)) if target.startswith("https://") else text
