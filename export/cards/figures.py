"""Render the sections of a card with figures: from the report or the manifest, or cited with their source."""

from collections.abc import Iterator
from pathlib import Path

from export.cards.facts import CardFacts
from models.catalog import BUCKET
from models.citations import ACCURACIES
from models.markdown import Markdown, bullets, code, fill, link, section, table
from models.records.layout import ModelPaths
from models.records.report import ZERO_HEAD, Report


def _figure(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1e}"


def _limit(report: Report, name: str) -> str:
    tolerance = report.tolerances.get(name)
    return "none" if tolerance is None else f"{tolerance.limit:g}"


def fine_tuning(subject: CardFacts) -> Markdown:
    """Return the section on whether the model can be fine-tuned, according to the report."""
    report = subject.report
    verdict = (
        "Yes: every variable has the gradient that it has in JAX."
        if subject.fine_tunable
        else "No: not every variable has the gradient that it has in JAX, or a step with them does something else."
    )
    rows = [
        (f"{what}, the largest difference from JAX's", _figure(report.figure(name)), _limit(report, name))
        for name, what in (
            ("gradient_relative", "gradients of every variable and of the images"),
            ("step_relative", "outputs after one step of SGD"),
        )
        if any(report.find(name))
    ]
    missing = " ".join(f"{problem}." for check in report.find("gradients_missing") for problem in check.problems)
    measured = table(("what was measured", "#figure", "#limit"), rows) if rows else ""
    how = fill(
        "In tf_keras: {layer}. In Keras 3, of the unpacked model: {other}.",
        layer=code(f'hub.KerasLayer("{subject.archive}", trainable=True)'),
        other=code('keras.layers.TFSMLayer(DIRECTORY, call_endpoint="serving_default")'),
    )
    return section("Fine-tuning", verdict, measured, missing, how if subject.fine_tunable else "")


def parity(subject: CardFacts) -> Markdown:
    """Return the section on parity: the differences from the original in JAX, with the limits and the report's name."""
    report = subject.report
    said = fill(
        "The SavedModel was read back from disk and compared with the Flax model on the same parameters, and both "
        "with the network written a second time in NumPy, in float64. Verdict: **{verdict}**. All figures are those "
        "of {name} (sha256 {sha256}); the reasons for the limits are in it.",
        verdict=report.verdict,
        name=code(ModelPaths.of(Path(), report.handle, report.version).report.name),
        sha256=code(subject.report_sha256),
    )
    scale = "their standard deviation or, where that vanishes, what the head makes of such features"
    notes = [f"A difference of outputs is the largest one over the scale of the image's outputs: {scale}."]
    if report.zero_head:
        notes.append(
            f"{ZERO_HEAD}. So the outputs prove nothing; the figures are those of a probing head in its place."
        )
    columns = ("what was measured", "#figure", "#limit")
    return section("Is it the same model?", said, table(columns, _parity_rows(report)), bullets(*notes))


def _parity_rows(report: Report) -> Iterator[tuple[str, str, str]]:
    limit = _limit(report, "max_relative")
    what = f"outputs, {len(report.images)} images"
    if report.zero_head:
        what = "outputs of a probing head"
    elif any(check.probe == "head" for check in report.find("max_relative")):
        what += ", and those of a probing head"
    yield f"{what}, from JAX's, the largest difference", _figure(report.figure("max_relative")), limit
    yield "outputs from float64's, the largest", _figure(report.figure("saved_model_oracle_relative")), ""
    jax = _figure(report.figure("jax_oracle_relative"))
    yield "JAX's own outputs from float64's, the largest", jax, _limit(report, "jax_oracle_relative")
    apart = [report.figure(name) for name in ("top1_disagreement", "top5_disagreement")]
    known = [one for one in apart if one is not None]
    if known:
        yield "images with the same first class, and with the same first five", f"{1 - max(known):.0%}", "100%"
    for check in report.find("variables"):
        yield f"variables that differ, {check.detail}", f"{check.measured or 0:.0f}", "0"


def accuracy(subject: CardFacts) -> Markdown:
    """Return the section on accuracy: none is measured here; published figures are cited with their source."""
    here = "Not measured by this project."
    if not subject.trained:
        return section("Accuracy", here, "No figure of others is about these weights.")
    cited = ACCURACIES.get(subject.handle.checkpoint.name, ())
    if not cited:
        return section("Accuracy", here, "No figure of others with a source is known for this checkpoint.")
    rows = [(f"{one.top1:.2f} %", link(one.source, one.url)) for one in cited]
    of = "" if subject.handle.head == "classification" else ", of this checkpoint with its head"
    said = f"What others say of the top-1 accuracy on the validation images of ImageNet-1k{of}:"
    return section("Accuracy", here, said, table(("#top-1", "source"), rows))


def provenance(subject: CardFacts) -> Markdown:
    """Return the section on provenance: what the model was made from and with."""
    manifest, checkpoint = subject.manifest, subject.manifest.checkpoint
    # A checkpoint may have been read from a local path, but originals come from the bucket.
    address = f"{BUCKET}/" if checkpoint.origin == "original" else ""
    dirty = {True: ", with changes that no commit has", False: "", None: ""}[manifest.git_dirty]
    libraries = ", ".join(f"{name} {version}" for name, version in manifest.libraries.items())
    rows = [
        ("checkpoint", code(f"{address}{checkpoint.object}")),
        ("its origin", checkpoint.origin),
        ("its sha256", code(checkpoint.sha256)),
        ("its size", f"{checkpoint.size:,} bytes"),
        ("SavedModel", f"{len(manifest.files)} files of {manifest.size:,} bytes"),
        ("manifest", code(subject.manifest_sha256)),
        ("report", code(subject.report_sha256)),
        ("made with", f"mixer-jax2tf {manifest.pipeline}, {libraries}"),
        ("git commit", f"{manifest.git_commit or 'none'}{dirty}"),
    ]
    return section("Provenance", table(("what", "value"), rows))
