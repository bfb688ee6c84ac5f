"""The check of a model in a format beyond TensorFlow: in its own runtime, against the float64 oracle."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from models.catalog import Handle
from models.exported import ExportComparison, ExportManifest, ExportReport
from models.formats import FORMATS, INPUT_NAME, OUTPUT_NAME, Format, FormatName, Weights
from models.provenance import library_versions, sources_sha256
from validation.images import Images, Inputs, gate_inputs
from validation.oracle import OracleOutputs, Values, run_oracle
from validation.outputs import measure
from validation.report import VALIDATOR_PACKAGES
from validation.runtimes import RunnableModel, open_model
from validation.tolerances import EXPORT_TOLERANCES

PLAN = (("noise", "blank", "chelsea.png", "coffee.png"), ("blank",), ("coffee.png",))
"""Images that go through a model at once: so the size of the batch is found to be free."""

NOT_CHECKED = ("accelerators: run on the CPU only", "gradients: the formats are for inference")


@dataclass(frozen=True)
class Truth:
    """The images of the gate set, and what the oracle makes of them with a checkpoint."""

    inputs: Inputs
    outputs: OracleOutputs

    @classmethod
    def of(cls, checkpoint: Path, image_size: int) -> "Truth":
        """Run the oracle on a checkpoint's file."""
        inputs = gate_inputs(image_size)
        return cls(inputs, run_oracle(checkpoint, inputs.images))

    def choose(self, handle: Handle, names: Sequence[str]) -> tuple[Images, Values]:
        """Return the images of these names and what a model with the handle's head should give."""
        indices = [self.inputs.names.index(name) for name in names]
        outputs = self.outputs.logits if handle.head == "classification" else self.outputs.features
        return self.inputs.images[indices], outputs[indices]


@dataclass(frozen=True)
class ExportFindings:
    """What the check of one exported model measured, and what of it is wrong."""

    comparisons: tuple[ExportComparison, ...]
    problems: tuple[str, ...]


def check_export(name: FormatName, directory: Path, handle: Handle, truth: Truth) -> ExportFindings:
    """Run each model file of a directory in the runtime of its format, and hold it against the oracle.

    Args:
        name: of the format.
        directory: where the files are.
        handle: what they should be.
        truth: the images and what should come out.
    """
    comparisons: list[ExportComparison] = []
    problems: list[str] = []
    for file, weights in FORMATS[name].models.items():
        try:
            model = open_model(name, directory / file)
            problems += _interface_problems(file, model, handle)
            comparisons += [_compare(model, file, weights, handle, truth, names) for names in PLAN]
        except Exception as error:  # what a runtime says is of its own types
            problems.append(f"{file}: does not run: {type(error).__name__}: {str(error).strip()}")
    problems += [problem for comparison in comparisons for problem in judge_export(comparison)]
    return ExportFindings(tuple(comparisons), tuple(problems))


def _compare(
    model: RunnableModel, file: str, weights: Weights, handle: Handle, truth: Truth, names: tuple[str, ...]
) -> ExportComparison:
    images, expected = truth.choose(handle, names)
    found = np.asarray(model.run(images))
    if found.shape != expected.shape:
        raise ValueError(f"outputs of shape {found.shape}, expected {expected.shape}")
    classes = handle.head == "classification"
    distances = measure(found, expected, classes=classes, tie=0.0)
    tolerant = measure(found, expected, classes=classes, tie=EXPORT_TOLERANCES[weights]["tie"].limit)
    return ExportComparison(
        file=file,
        weights=weights,
        batch=len(found),
        inputs=names,
        **asdict(distances),
        top1_but_ties=tolerant.top1,
    )


def _interface_problems(file: str, model: RunnableModel, handle: Handle) -> Iterator[str]:
    size = handle.checkpoint.architecture.image_size
    takes = ((INPUT_NAME, "float32", (None, size, size, 3)),)
    gives = ((OUTPUT_NAME, "float32", (None, handle.outputs)),)
    for verb, found, expected in (("takes", model.takes, takes), ("gives", model.gives, gives)):
        if found != expected:
            yield f"{file} {verb} {found}, expected {expected}"


def judge_export(comparison: ExportComparison) -> Iterator[str]:
    """Yield what of a comparison is over its limit."""
    where = f"{comparison.file} on {', '.join(comparison.inputs)} (batch {comparison.batch})"
    tolerances = EXPORT_TOLERANCES[comparison.weights]
    for name in ("max_relative", "max_ulp", "cosine_distance"):
        found = getattr(comparison, name)
        if name in tolerances and not found <= tolerances[name].limit:
            yield f"{where}: {name} {found:.3g} is over {tolerances[name].limit:.3g}"
    if comparison.top1_but_ties is not None and comparison.top1_but_ties < 1:
        yield f"{where}: the first class agrees on {comparison.top1_but_ties:.0%} of the images, expected all"


def make_export_report(
    manifest_bytes: bytes, findings: ExportFindings, truth: Truth, *, other_problems: Sequence[str] = ()
) -> ExportReport:
    """Return the report of these findings on the model that the manifest (its bytes on disk) describes.

    Args:
        manifest_bytes: the manifest as it stands on disk.
        findings: what the check measured.
        truth: what it was measured against.
        other_problems: what else is wrong, for instance files that differ from the manifest.
    """
    manifest = ExportManifest.model_validate_json(manifest_bytes)
    kind: Format = FORMATS[manifest.format]
    problems = (*other_problems, *findings.problems)
    return ExportReport(
        handle=manifest.handle,
        version=manifest.version,
        format=manifest.format,
        origin=manifest.checkpoint.origin,
        manifest_sha256=hashlib.sha256(manifest_bytes).hexdigest(),
        inputs_sha256=truth.inputs.sha256,
        sizes={name: manifest.files[name].size for name in (*kind.models, *kind.companions)},
        comparisons=findings.comparisons,
        tolerances={weights: EXPORT_TOLERANCES[weights] for weights in kind.models.values()},
        not_checked=NOT_CHECKED,
        problems=problems,
        verdict="failed" if problems else "passed",
        libraries=library_versions() | kind.versions(),
        validator_sha256=sources_sha256(*VALIDATOR_PACKAGES),
    )
