"""Check a model in a format other than TensorFlow's: run it in its own runtime, and compare with the oracle."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.catalog import Handle
from models.formats import FORMATS, INPUT_NAME, OUTPUT_NAME, Format, FormatName, Weights
from models.records.formats import ExportManifest, ExportReport
from models.records.provenance import EXPORT_VALIDATOR_SOURCES, library_versions, sources_sha256
from models.records.report import Check, Probe
from models.records.tolerances import EXPORT_TOLERANCES, export_tolerances
from validation.formats.runtimes import RunnableModel, open_model
from validation.parity.images import Images, Inputs
from validation.parity.oracle import OracleOutputs, run_oracle
from validation.parity.outputs import measure
from validation.parity.probe import ProbingHead
from validation.parity.scale import Scale, Values

PLAN = (("noise", "blank", "chelsea.png", "coffee.png"), ("blank",), ("coffee.png",))
"""The batches that each model is run on; their sizes differ, to show that the batch size is free."""

NOT_CHECKED = ("accelerators: run on the CPU only", "gradients: the formats are for inference")

_NO_BIAS = np.zeros(2, np.float32)


@dataclass(frozen=True)
class Truth:
    """The images of the gate set, and the float64 oracle's outputs for them with a checkpoint.

    Attributes:
        inputs: the images.
        outputs: the oracle's.
        head: `kernel` and `bias` of the head.
        is_probe: whether the head is a probing head instead of the checkpoint's.
    """

    inputs: Inputs
    outputs: OracleOutputs
    head: Mapping[str, NDArray[np.float32]]
    is_probe: bool = False

    @classmethod
    def of(cls, checkpoint: Path, image_size: int, *, prefix: str = "") -> "Truth":
        """Run the oracle on a checkpoint's file, in which names begin with `prefix`; it may lack the head."""
        inputs = Inputs.gate(image_size)
        with np.load(checkpoint, allow_pickle=False) as arrays:
            head = {
                name: arrays[f"{prefix}head/{name}"] for name in ("kernel", "bias") if f"{prefix}head/{name}" in arrays
            }
        truth = run_oracle(checkpoint, inputs.images, prefix=prefix)
        return cls(
            inputs, truth, head or {"kernel": np.zeros((truth.features.shape[1], 2), np.float32), "bias": _NO_BIAS}
        )

    @property
    def zero_head(self) -> bool:
        """Whether the head's kernel is zero throughout."""
        return not np.any(self.head["kernel"])

    def scale(self, handle: Handle, weights: Weights) -> Scale:
        """Return what differences of outputs with the handle's head are divided by, one entry per image.

        With a kernel of zeros, files with unrounded weights must match exactly; the others round the bias.
        """
        features = self.outputs.features
        if handle.head == "fe":
            return Scale.measure(features, features, None)
        return Scale.measure(self.outputs.logits, features, self.head, exact=weights == "float32")

    def probing(self) -> "Truth":
        """Return the same with a probing head and the outputs expected of it."""
        head = ProbingHead.of(*self.head["kernel"].shape).heads[0]
        outputs = replace(self.outputs, logits=ProbingHead((head,)).outputs(self.outputs.features))
        return replace(self, outputs=outputs, head=head, is_probe=True)

    def choose(self, handle: Handle, names: Sequence[str]) -> tuple[list[int], Images, Values]:
        """Return the indices of the named images, the images, and the expected outputs with the handle's head."""
        indices = [self.inputs.names.index(name) for name in names]
        outputs = self.outputs.logits if handle.head == "classification" else self.outputs.features
        return indices, self.inputs.images[indices], outputs[indices]


def check_export(name: FormatName, directory: Path, handle: Handle, truth: Truth) -> tuple[Check, ...]:
    """Run each model file of a directory in the runtime of its format, and compare it with the oracle.

    Args:
        name: of the format.
        directory: where the files are.
        handle: the expected handle.
        truth: the images and their expected outputs.
    """
    checks: list[Check] = []
    for file, weights in FORMATS[name].models.items():
        try:
            model = open_model(name, directory / file)
            checks.append(Check(name="interface", on=file, problems=tuple(_interface_problems(file, model, handle))))
            scale = truth.scale(handle, weights)
            for names in PLAN:
                checks += _compare(model, file, weights, handle, truth, names, scale)
        except Exception as error:  # each runtime raises its own types
            said = f"{file}: does not run: {type(error).__name__}: {str(error).strip()}"
            checks.append(Check(name="running", on=file, problems=(said,)))
    return tuple(checks)


def _compare(
    model: RunnableModel,
    file: str,
    weights: Weights,
    handle: Handle,
    truth: Truth,
    names: tuple[str, ...],
    scale: Scale,
) -> Iterator[Check]:
    indices, images, expected = truth.choose(handle, names)
    found = np.asarray(model.run(images))
    if found.shape != expected.shape:
        raise ValueError(f"outputs of shape {found.shape}, expected {expected.shape}")
    limits = EXPORT_TOLERANCES[weights]
    # A probing head has no classes to rank.
    classes = handle.head == "classification" and not truth.is_probe
    distances = measure(found, expected, scale[indices], classes=classes, tie=limits["tie"].limit)
    probe: Probe | None = "head" if truth.is_probe else None
    how = f" with a probing {probe}" if probe else ""
    on = f"{file}{how} on {', '.join(names)} (batch {len(found)})"
    yield from distances.checks(on, limits, prefix=f"{weights} ", probe=probe)


def _interface_problems(file: str, model: RunnableModel, handle: Handle) -> Iterator[str]:
    size = handle.checkpoint.architecture.image_size
    takes = ((INPUT_NAME, "float32", (None, size, size, 3)),)
    gives = ((OUTPUT_NAME, "float32", (None, handle.outputs)),)
    for verb, found, expected in (("takes", model.takes, takes), ("gives", model.gives, gives)):
        if found != expected:
            yield f"{file} {verb} {found}, expected {expected}"


def make_export_report(
    manifest_bytes: bytes, checks: Sequence[Check], truth: Truth, *, other_problems: Sequence[str] = ()
) -> ExportReport:
    """Return the report of these checks on the model that the manifest (its bytes on disk) describes.

    Args:
        manifest_bytes: the manifest as it is on disk.
        checks: what was measured.
        truth: what it was compared with.
        other_problems: what else is wrong, for instance files that differ from the manifest.
    """
    manifest = ExportManifest.model_validate_json(manifest_bytes)
    kind: Format = FORMATS[manifest.format]
    whole = (Check(name="files", on="against the manifest", problems=tuple(other_problems)), *checks)
    report = ExportReport(
        handle=manifest.handle,
        version=manifest.version,
        format=manifest.format,
        origin=manifest.checkpoint.origin,
        manifest_sha256=hashlib.sha256(manifest_bytes).hexdigest(),
        inputs_sha256=truth.inputs.sha256,
        sizes={name: manifest.files[name].size for name in (*kind.models, *kind.companions)},
        checks=whole,
        zero_head=truth.zero_head and manifest.head == "classification",
        tolerances=export_tolerances(dict.fromkeys(kind.models.values())),
        not_checked=NOT_CHECKED,
        verdict="failed" if any(check.problems for check in whole) else "passed",
        libraries=library_versions() | kind.versions(),
        validator_sha256=sources_sha256(*EXPORT_VALIDATOR_SOURCES),
    )
    return report.concluded()
