"""The sections of a card that give figures: each from the report or the manifest, or cited with its source."""

from collections.abc import Iterator
from pathlib import Path

from export.markdown import Markdown, bullets, code, fill, link, section, table
from export.subject import Subject
from models.catalog import BUCKET
from models.citations import ACCURACIES
from models.paths import ModelPaths
from models.records import Report


def _figure(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1e}"


def _limit(report: Report, name: str) -> str:
    tolerance = report.tolerances.get(name)
    return "none" if tolerance is None else f"{tolerance.limit:g}"


def fine_tuning(subject: Subject) -> Markdown:
    """Return whether the model can be fine-tuned, as the report found."""
    gradients, report = subject.report.gradients, subject.report
    verdict = (
        "Yes: every variable has the gradient that it has in JAX."
        if subject.fine_tunable
        else "No: not every variable has the gradient that it has in JAX, or a step with them does something else."
    )
    rows = []
    if gradients is not None:
        rows = [
            (
                f"gradients of {gradients.compared} variables, the largest difference from JAX's",
                _figure(gradients.worst_relative),
                _limit(report, "gradient_relative"),
            ),
            (
                "outputs after one step of SGD, the largest difference from JAX's",
                _figure(gradients.step_relative),
                _limit(report, "step_relative"),
            ),
        ]
    missing = f"Without a gradient: {', '.join(gradients.missing)}." if gradients and gradients.missing else ""
    measured = table(("what was measured", "#figure", "#limit"), rows) if rows else ""
    how = fill(
        "In tf_keras: {layer}. In Keras 3, of the unpacked model: {other}.",
        layer=code(f'hub.KerasLayer("{subject.archive}", trainable=True)'),
        other=code('keras.layers.TFSMLayer(DIRECTORY, call_endpoint="serving_default")'),
    )
    return section("Fine-tuning", verdict, measured, missing, how if subject.fine_tunable else "")


def parity(subject: Subject) -> Markdown:
    """Return how far the model is from the original in JAX, with the limits and the report that says so."""
    report = subject.report
    said = fill(
        "The SavedModel was read back from disk and held against the Flax model on the same parameters, and both "
        "against the network written a second time in NumPy, in float64. Verdict: **{verdict}**. All figures are those "
        "of {name} (sha256 {sha256}); the reasons for the limits are in it.",
        verdict=report.verdict,
        name=code(ModelPaths.of(Path(), report.handle, report.version).report.name),
        sha256=code(subject.report_sha256),
    )
    notes = ["A difference of outputs is the largest one over the standard deviation of the image's outputs."]
    columns = ("what was measured", "#figure", "#limit")
    return section("Is it the same model?", said, table(columns, _parity_rows(report)), bullets(*notes))


def _parity_rows(report: Report) -> Iterator[tuple[str, str, str]]:
    limit = _limit(report, "max_relative")
    images = {name for comparison in report.comparisons for name in comparison.inputs}
    yield f"outputs against JAX's, {len(images)} images, worst", _figure(report.worst_relative), limit
    distances = [comparison.oracle for comparison in report.comparisons if comparison.oracle is not None]
    saved_model, jax = (max((getattr(one, side) for one in distances), default=None) for side in ("saved_model", "jax"))
    yield "outputs against float64, worst", _figure(saved_model), ""
    yield "JAX's own outputs against float64, worst", _figure(jax), _limit(report, "jax_oracle_relative")
    shares = [share for one in report.comparisons for share in (one.top1, one.top5) if share is not None]
    if shares:
        yield "images with the same first class, and with the same first five", f"{min(shares):.0%}", "100%"
    different = len(report.variables.different)
    yield f"variables that differ from the checkpoint, of {report.variables.compared}", str(different), "0"


def accuracy(subject: Subject) -> Markdown:
    """Return what is known of the accuracy: nothing measured here; what others say, with its source."""
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


def provenance(subject: Subject) -> Markdown:
    """Return what the model was made from and with."""
    manifest, checkpoint = subject.manifest, subject.manifest.checkpoint
    # Where a checkpoint was read from may be a path of somebody's disk; an original is the bucket's all the same.
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
