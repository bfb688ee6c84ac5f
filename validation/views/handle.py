"""The part of the page that is about one handle."""

from collections.abc import Iterator

import numpy as np

from models.catalog import HANDLES, Handle
from models.records.manifest import Manifest
from models.records.report import ZERO_HEAD, Check, PublishedComparison, Report
from validation.previous.open import summarise
from validation.views.html import (
    NOTHING,
    Cell,
    Column,
    Markup,
    code,
    details,
    element,
    facts,
    figure_of,
    join,
    link,
    share,
    table,
)
from validation.views.model_records import ModelRecords, Status
from validation.views.plots import Picture, draw_agreement, draw_depth, draw_errors

ORIGINS = {
    "original": "the digest is the one recorded from the public bucket",
    "seeded": "stand-ins with the names, shapes and types of the originals and weights made up. What is proven is the "
    "conversion, not the original weights",
    "unknown": "no digest of the original is recorded, so nothing tells whether these are its weights",
    "own": "somebody's own checkpoint, not of the collection",
}

_SIGNS: dict[Status, str] = {"passed": "✓", "failed": "✕", "void": "!", "not checked": "?", "not made": NOTHING}


def badge(status: Status) -> Markup:
    """Return a verdict in words, with a sign and a colour that only repeat them."""
    sign = element("span", _SIGNS[status], aria_hidden="true")
    return element("span", sign, " ", status, class_=f"badge {status.replace(' ', '-')}")


def section(model: ModelRecords, anchor: str) -> Markup:
    """Return all that is known of one handle, under a heading with this id."""
    heading = element("h2", model.handle.name, id=anchor)
    return element(
        "section",
        element("header", heading, badge(model.status)),
        *_account(model),
        facts(_lineage(model)),
        *_pictures(model, anchor),
        *(_measured(model.handle, model.report) if model.report else ()),
        *([_provenance(model.manifest, model.report)] if model.manifest else ()),
        element("p", link("#handles", "Back to the table"), class_="back"),
        aria_labelledby=anchor,
        data_handle=anchor,
    )


def _account(model: ModelRecords) -> Iterator[Markup]:
    """Say what is wrong or missing."""
    if model.status == "not made":
        yield element(
            "p", "Nothing stands here yet: ", code(f"mixer-jax2tf convert-all {model.handle.name}"), " makes it."
        )
    if model.status == "not checked":
        yield element(
            "p", "Converted, never checked: ", code(f"mixer-jax2tf validate {model.handle.name}"), " does it."
        )
    if model.reasons:
        yield element("ul", *(element("li", reason) for reason in model.reasons), class_="reasons")
    if model.report and model.report.problems:
        yield element("h3", f"Problems ({len(model.report.problems)})")
        yield element("ul", *(element("li", problem) for problem in model.report.problems), class_="problems")
    if model.report and model.report.inputs_set == "gate":
        command = code(f"mixer-jax2tf validate {model.handle.name} --set full")
        yield element(
            "p", "Checked with the gate set: outputs on four images, and variables. ", command, " gives the rest."
        )


def _lineage(model: ModelRecords) -> Iterator[tuple[str, str]]:
    handle, manifest = model.handle, model.manifest
    checkpoint, training = handle.checkpoint, handle.checkpoint.training
    architecture = checkpoint.architecture
    if manifest:
        yield "Origin", f"{manifest.checkpoint.origin}: {ORIGINS[manifest.checkpoint.origin]}"
    siblings = [other.name for other in HANDLES.values() if other.checkpoint == checkpoint and other != handle]
    yield "Made from", join(code(checkpoint.object), *(f", as is {name}" for name in siblings))
    sizes = f"{architecture.num_blocks} blocks, {architecture.hidden_dim} channels, {architecture.tokens} tokens"
    yield "Architecture", f"Mixer {architecture.name}: {sizes}"
    yield "Trained on", f"{training.data}, {training.method}"
    papers = (join(link(paper, f"arXiv {paper.rpartition('/')[2]}"), " ") for paper in training.papers)
    yield "Papers", join(*papers)
    yield "Weights from", join(link(training.source, training.source.removeprefix("https://")), f", {training.license}")
    yield "Output", f"{handle.outputs:,} {'logits' if handle.head == 'classification' else 'features'}"
    yield "Parameters", f"{handle.parameters:,}"
    if manifest:
        yield "SavedModel", f"{manifest.size:,} bytes (files: see Provenance)"
        yield "Flavour", f"{manifest.flavour}, for {', '.join(manifest.platforms)}"


def _pictures(model: ModelRecords, anchor: str) -> Iterator[Markup]:
    pictures: list[tuple[str, Picture]] = []
    evidence, report = model.evidence, model.report
    tolerance = report.tolerances.get("max_relative") if report else None
    if evidence and report and tolerance and tolerance.limit:
        ours, jax = evidence.saved_model.astype(np.float64), evidence.jax.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            shares = (ours - jax) / evidence.scale[:, np.newaxis] / tolerance.limit
        pictures += [
            ("SavedModel against JAX.", draw_agreement(ours, jax, shares, f"{anchor}-agreement")),
            ("Errors and their limit.", draw_errors(shares, f"{anchor}-errors")),
        ]
    if report and report.depth:
        pictures.append(("Error along the depth.", draw_depth(report.depth, f"{anchor}-depth")))
    if pictures:
        yield element("div", *(picture.to_figure(heading) for heading, picture in pictures), class_="pictures")


def _measured(handle: Handle, report: Report) -> Iterator[Markup]:
    yield _summary(handle, report)
    columns = (
        Column("Check"), Column("On"), Column("Measured", numeric=True), Column("Limit", numeric=True),
        Column("Power", numeric=True), Column("What was seen"),
    )  # fmt: skip
    yield details(
        f"All {len(report.checks)} checks", table(f"{handle.name}: checks", columns, map(_check, report.checks))
    )
    tunable = {True: "Works as in JAX", False: "Does not work as in JAX", None: "Not tried"}
    yield element("p", element("strong", "Fine-tuning. "), f"{tunable[report.fine_tunable]}.")
    if report.zero_head:
        yield element("p", element("strong", "Zero head. "), f"{ZERO_HEAD}.")
    if report.reference:
        yield from _earlier(handle, report.reference)
    if report.not_checked:
        yield element("p", element("strong", "Not checked. "), "; ".join(report.not_checked), ".")
    limits = (Column("Limit"), Column("Value", numeric=True), Column("Reason"))
    rows = [(code(name), figure_of(tolerance.limit), tolerance.reason) for name, tolerance in report.tolerances.items()]
    yield details("Limits and their reasons", table(f"{handle.name}: limits", limits, rows))


_SUMMARY = (
    Column("Check"),
    Column("Times", numeric=True),
    Column("Worst", numeric=True),
    Column("Limit", numeric=True),
    Column("Of the limit", numeric=True),
    Column("On"),
    Column("Without power", numeric=True),
)


def _summary(handle: Handle, report: Report) -> Markup:
    """Return a row for each name of checks: the worst of those that can tell right from wrong."""
    note = element(
        "p",
        "Differences of outputs are measured over the scale of the image's outputs, on the worst image; ULP are units "
        "in the last place. A check without power cannot tell a right model from a wrong one, and counts for nothing.",
        class_="note",
    )
    rows = (_summarised(name, report) for name in dict.fromkeys(check.name for check in report.checks))
    return join(table(f"{handle.name}: {report.inputs_set} set", _SUMMARY, rows), note)


def _summarised(name: str, report: Report) -> tuple[Cell | str, ...]:
    checks, worst = list(report.find(name)), report.worst(name)
    measured, limit = (worst.measured, worst.limit) if worst else (None, None)
    powerless = sum(not check.tells for check in checks)
    part = 100 * measured / limit if measured is not None and limit else None
    return (
        code(name),
        str(len(checks)),
        figure_of(measured),
        figure_of(limit),
        share(part),
        worst.on if worst else NOTHING,
        str(powerless) if powerless else NOTHING,
    )


def _check(check: Check) -> tuple[Cell | str, ...]:
    said = "; ".join(part for part in (check.detail, *check.problems) if part)
    return (
        code(check.name),
        check.on,
        figure_of(check.measured),
        figure_of(check.limit),
        figure_of(check.power),
        said or NOTHING,
    )


def _earlier(handle: Handle, found: PublishedComparison) -> Iterator[Markup]:
    """Say how the model compares with an earlier published version, which is no part of its verdict."""
    of = "archive" if found.kind == "archive" else "its saved_model.pb"
    outcome = {"same": "the same", "different": "different"}[found.verdict]
    said = f" is {outcome}. A new version may differ on purpose: this is no part of the verdict. sha256 ({of}): "
    yield element("p", element("strong", "Earlier version. "), code(found.name), said, code(found.sha256))
    yield table(f"{handle.name}: against {found.name}", (Column("What"), Column("Outcome")), summarise(found))
    if found.differences:
        yield element("ul", *(element("li", difference) for difference in found.differences))


def _provenance(manifest: Manifest, report: Report | None) -> Markup:
    checkpoint = manifest.checkpoint
    dirty = {True: ", with changes that are in no commit", False: "", None: ""}[manifest.git_dirty]
    pairs = [
        ("Checkpoint", join(checkpoint.url, f", {checkpoint.size:,} bytes")),
        ("Its sha256", code(checkpoint.sha256)),
        ("Made with", _versions(manifest.libraries)),
        ("Project", join(f"{manifest.pipeline}, sources ", code(manifest.pipeline_sha256))),
        ("Git commit", join(code(manifest.git_commit), dirty) if manifest.git_commit else "none"),
    ]
    if report:
        pairs += [
            ("Checked with", _versions(report.libraries)),
            ("Checking sources", code(report.validator_sha256)),
            ("Inputs", code(report.inputs_sha256)),
            ("Manifest", code(report.manifest_sha256)),
        ]
    columns = (Column("File"), Column("Bytes", numeric=True), Column("sha256"))
    rows = [(code(name), f"{file.size:,}", code(file.sha256)) for name, file in sorted(manifest.files.items())]
    return details("Provenance", facts(pairs), table(f"{manifest.handle}: files", columns, rows))


def _versions(libraries: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in libraries.items())
