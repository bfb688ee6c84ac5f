"""The part of the page that is about one handle."""

from collections.abc import Iterator

import numpy as np

from models.catalog import HANDLES, Handle
from models.records import Comparison, ConsumerCheck, GradientCheck, Manifest, PublishedComparison, Report
from validation.exhibit import Exhibit, Standing
from validation.figures import Picture, draw_agreement, draw_depth, draw_errors
from validation.markup import NOTHING, Cell, Column, Markup, code, details, element, facts, figure_of, join, link, table
from validation.published import summarise

ORIGINS = {
    "original": "the digest is the one recorded from the public bucket",
    "seeded": "stand-ins with the names, shapes and types of the originals and weights made up. What is proven is the "
    "conversion, not the original weights",
    "unknown": "no digest of the original is recorded, so nothing tells whether these are its weights",
    "own": "somebody's own checkpoint, not of the collection",
}

_SIGNS: dict[Standing, str] = {"passed": "✓", "failed": "✕", "void": "!", "not checked": "?", "not made": NOTHING}


def badge(standing: Standing) -> Markup:
    """Return a verdict in words, with a sign and a colour that only repeat them."""
    sign = element("span", _SIGNS[standing], aria_hidden="true")
    return element("span", sign, " ", standing, class_=f"badge {standing.replace(' ', '-')}")


def section(exhibit: Exhibit, anchor: str) -> Markup:
    """Return all that is known of one handle, under a heading with this id."""
    heading = element("h2", exhibit.handle.name, id=anchor)
    return element(
        "section",
        element("header", heading, badge(exhibit.standing)),
        *_account(exhibit),
        facts(_lineage(exhibit)),
        *_pictures(exhibit, anchor),
        *(_measured(exhibit.handle, exhibit.report) if exhibit.report else ()),
        *([_provenance(exhibit.manifest, exhibit.report)] if exhibit.manifest else ()),
        element("p", link("#handles", "Back to the table"), class_="back"),
        aria_labelledby=anchor,
        data_handle=anchor,
    )


def _account(exhibit: Exhibit) -> Iterator[Markup]:
    """Say what is wrong or missing."""
    if exhibit.standing == "not made":
        yield element(
            "p", "Nothing stands here yet: ", code(f"mixer-jax2tf convert-all {exhibit.handle.name}"), " makes it."
        )
    if exhibit.standing == "not checked":
        yield element(
            "p", "Converted, never checked: ", code(f"mixer-jax2tf validate {exhibit.handle.name}"), " does it."
        )
    if exhibit.reasons:
        yield element("ul", *(element("li", reason) for reason in exhibit.reasons), class_="reasons")
    if exhibit.report and exhibit.report.problems:
        yield element("h3", f"Problems ({len(exhibit.report.problems)})")
        yield element("ul", *(element("li", problem) for problem in exhibit.report.problems), class_="problems")
    if exhibit.report and exhibit.report.inputs_set == "gate":
        command = code(f"mixer-jax2tf validate {exhibit.handle.name} --set full")
        yield element(
            "p", "Checked with the gate set: outputs on four images, and variables. ", command, " gives the rest."
        )


def _lineage(exhibit: Exhibit) -> Iterator[tuple[str, str]]:
    handle, manifest = exhibit.handle, exhibit.manifest
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


def _pictures(exhibit: Exhibit, anchor: str) -> Iterator[Markup]:
    pictures: list[tuple[str, Picture]] = []
    evidence, report = exhibit.evidence, exhibit.report
    if evidence and report:
        ours, jax = evidence.saved_model.astype(np.float64), evidence.jax.astype(np.float64)
        limit = report.tolerances["max_relative"].limit
        with np.errstate(invalid="ignore", over="ignore"):
            spread = np.maximum(jax.std(axis=1, keepdims=True), np.finfo(np.float64).tiny)
            shares = (ours - jax) / spread / limit
        pictures += [
            ("SavedModel against JAX.", draw_agreement(ours, jax, shares, f"{anchor}-agreement")),
            ("Errors and their limit.", draw_errors(shares, f"{anchor}-errors")),
        ]
    if report and report.depth:
        pictures.append(("Error along the depth.", draw_depth(report.depth, f"{anchor}-depth")))
    if pictures:
        yield element("div", *(picture.to_figure(heading) for heading, picture in pictures), class_="pictures")


def _measured(handle: Handle, report: Report) -> Iterator[Markup]:
    yield _comparisons(handle, report)
    different = report.variables.different
    differing = (
        f"{len(different)} differ: {', '.join(different)}"
        if different
        else "all equal to the checkpoint's arrays, bit for bit"
    )
    yield element("p", element("strong", "Variables. "), f"{report.variables.compared} compared, {differing}.")
    if report.gradients:
        yield _gradients(handle, report.gradients, report)
    if report.consumer:
        yield _consumers(handle, report.consumer)
    if report.reference:
        yield from _earlier(handle, report.reference)
    if report.not_checked:
        yield element("p", element("strong", "Not checked. "), "; ".join(report.not_checked), ".")
    columns = (Column("Limit"), Column("Value", numeric=True), Column("Reason"))
    rows = [(code(name), figure_of(tolerance.limit), tolerance.reason) for name, tolerance in report.tolerances.items()]
    yield details("Limits and their reasons", table(f"{handle.name}: limits", columns, rows))


_DISTANCES = (
    Column("Entry"),
    Column("Batch", numeric=True),
    Column("Inputs"),
    Column("SavedModel to JAX", numeric=True),
    Column("SavedModel to oracle", numeric=True),
    Column("JAX to oracle", numeric=True),
    Column("SavedModel to JAX, ULP", numeric=True),
    Column("Over twice JAX's error, ULP", numeric=True),
    Column("Cosine distance", numeric=True),
    Column("First class, first five", numeric=True),
)


def _comparisons(handle: Handle, report: Report) -> Markup:
    limits = {name: figure_of(tolerance.limit) for name, tolerance in report.tolerances.items()}
    foot = (
        "Limit",
        "",
        "",
        limits.get("max_relative", NOTHING),
        NOTHING,
        limits.get("jax_oracle_relative", NOTHING),
        limits.get("max_ulp", NOTHING),
        limits.get("oracle_excess_ulp", NOTHING),
        limits.get("cosine_distance", NOTHING),
        "all" if handle.head == "classification" else NOTHING,
    )
    note = element(
        "p",
        "The first three distances are the largest difference of an output over the standard deviation of the image's "
        "outputs, on the worst image; ULP are units in the last place of its largest output.",
        class_="note",
    )
    rows = map(_distances, report.comparisons)
    return join(table(f"{handle.name}: outputs, {report.inputs_set} set", _DISTANCES, rows, foot=foot), note)


def _distances(comparison: Comparison) -> tuple[Cell | str, ...]:
    oracle, names = comparison.oracle, comparison.inputs
    agree = (comparison.top1, comparison.top5)
    inputs = ", ".join(names) if len(names) < 4 else details(f"{len(names)} images", ", ".join(names))
    return (
        code(comparison.entry),
        str(comparison.batch),
        inputs,
        figure_of(comparison.max_relative),
        figure_of(oracle.saved_model if oracle else None),
        figure_of(oracle.jax if oracle else None),
        figure_of(comparison.max_ulp),
        figure_of(oracle.excess_ulp if oracle else None),
        figure_of(comparison.cosine_distance),
        NOTHING if agree[0] is None else ", ".join(NOTHING if value is None else f"{value:.0%}" for value in agree),
    )


def _gradients(handle: Handle, check: GradientCheck, report: Report) -> Markup:
    limits = {name: figure_of(tolerance.limit) for name, tolerance in report.tolerances.items()}
    of_gradients, of_step = limits.get("gradient_relative", NOTHING), limits.get("step_relative", NOTHING)
    columns = (
        Column("Gradients against JAX"),
        Column("Which"),
        Column("Difference", numeric=True),
        Column("Limit", numeric=True),
    )
    worst = code(check.worst_variable) if check.worst_variable else "none"
    rows = (
        (f"worst of {check.compared} variables", worst, figure_of(check.worst_relative), of_gradients),
        ("by the images", ", ".join(check.inputs), figure_of(check.input_relative), of_gradients),
        (
            "outputs after one SGD step",
            f"which moves them by {figure_of(check.step_change)}",
            figure_of(check.step_relative),
            of_step,
        ),
    )
    tunable = {True: "Works as in JAX", False: "Does not work as in JAX", None: "Not tried"}
    missing = f" Without a gradient: {', '.join(check.missing)}." if check.missing else ""
    said = element("p", element("strong", "Fine-tuning. "), f"{tunable[report.fine_tunable]}.", missing)
    return join(table(f"{handle.name}: gradients", columns, rows), said)


def _consumers(handle: Handle, checks: tuple[ConsumerCheck, ...]) -> Markup:
    columns = (
        Column("What a consumer does"),
        Column("Outcome"),
        Column("Worst difference", numeric=True),
        Column("Detail"),
    )
    rows = [(check.name, check.status, figure_of(check.worst), check.detail) for check in checks]
    return table(f"{handle.name}: in a process without JAX", columns, rows)


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
