"""Check a model in a format other than TensorFlow's: run it in its own runtime, and compare with the oracle."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.catalog import Handle
from models.digests import Origin
from models.formats import FORMATS, INPUT_NAME, OUTPUT_NAME, Format, FormatName, Weights
from models.records.check import Check, Probe, Tolerance
from models.records.formats import ExportManifest, ExportReport
from models.records.provenance import EXPORT_VALIDATOR_SOURCES, library_versions, sources_sha256
from models.records.tolerances import DEFAULT_SETTINGS, export_tolerances, limits_of
from validation.formats.runtimes import RunnableModel
from validation.formats.weights import read_kernels
from validation.parity.images import Images, Inputs
from validation.parity.oracle import OracleOutputs
from validation.parity.outputs import Outputs, limited, measure
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
        checkpoint: its file.
        origin: of the checkpoint; limits differ for synthetic weights.
        inputs: the images.
        outputs: the oracle's.
        head: `kernel` and `bias` of the head.
        is_probe: whether the head is a probing head instead of the checkpoint's.
        prefix: of the names of the checkpoint's arrays.
    """

    checkpoint: Path
    origin: Origin
    inputs: Inputs
    outputs: OracleOutputs
    head: Mapping[str, NDArray[Any]]
    is_probe: bool = False
    prefix: str = ""

    @classmethod
    def of(cls, checkpoint: Path, image_size: int, origin: Origin, *, prefix: str = "") -> "Truth":
        """Run the oracle on a checkpoint's file, in which names begin with `prefix`; it may lack the head."""
        inputs = Inputs.gate(image_size)
        with np.load(checkpoint, allow_pickle=False) as arrays:
            head = {
                name: arrays[f"{prefix}head/{name}"] for name in ("kernel", "bias") if f"{prefix}head/{name}" in arrays
            }
        truth = OracleOutputs.compute(checkpoint, inputs.images, prefix=prefix)
        no_head = {"kernel": np.zeros((truth.features.shape[1], 2), np.float32), "bias": _NO_BIAS}
        return cls(checkpoint, origin, inputs, truth, head or no_head, prefix=prefix)

    @property
    def zero_head(self) -> bool:
        """Whether the head's kernel is zero throughout."""
        return not np.any(self.head["kernel"])

    def scale(self, handle: Handle, weights: Weights) -> Scale:
        """Return what differences of outputs with the handle's head are divided by, one entry per image.

        With a kernel of zeros, files with an unrounded bias must match exactly; float16 rounds it.
        """
        features = self.outputs.features
        if handle.head == "fe":
            return Scale.measure(features, features, None)
        return Scale.measure(self.outputs.logits, features, self.head, exact=weights != "float16")

    def probing(self) -> "Truth":
        """Return the same with a probing head and the outputs expected of it."""
        head = ProbingHead.of(*self.head["kernel"].shape).heads[0]
        outputs = replace(self.outputs, logits=ProbingHead((head,)).outputs(self.outputs.features))
        return replace(self, outputs=outputs, head=head, is_probe=True)

    def with_weights_of(self, path: Path, handle: Handle) -> tuple["Truth", float]:
        """Return the same for the kernels that a LiteRT file of int8 weights stores, and how many steps off they are.

        Raises:
            MixerError: the file does not store them by name.
        """
        own = {f"head/{name}": values for name, values in self.head.items()}
        with np.load(self.checkpoint, allow_pickle=False) as arrays:
            every = (one.removeprefix(self.prefix) for one in arrays.files if one.startswith(self.prefix))
            names = [one for one in every if one.endswith("/kernel")]
            stored = read_kernels(path, [one for one in names if handle.head != "fe" or not one.startswith("head/")])
            steps = max(
                kernel.steps_from(own[one] if one in own else arrays[self.prefix + one])
                for one, kernel in stored.items()
            )
        replaced = own | {one: kernel.dequantise() for one, kernel in stored.items()}
        head = {name: replaced[f"head/{name}"] for name in self.head}
        return replace(
            self,
            outputs=OracleOutputs.compute(self.checkpoint, self.inputs.images, replaced=replaced, prefix=self.prefix),
            head=head,
        ), steps

    def choose(self, handle: Handle, names: Sequence[str]) -> tuple[list[int], Images, Values]:
        """Return the indices of the named images, the images, and the expected outputs with the handle's head."""
        indices = [self.inputs.names.index(name) for name in names]
        outputs = self.outputs.logits if handle.head == "classification" else self.outputs.features
        return indices, self.inputs.images[indices], outputs[indices]

    def check(self, name: FormatName, directory: Path, handle: Handle) -> tuple[Check, ...]:
        """Run each model file of a directory in the runtime of its format, and compare it with the oracle.

        Files of int8 weights are also compared with the oracle on those weights: what they compute is judged as
        strictly as in float32, and what rounding costs by a limit of its own.

        Args:
            name: of the format.
            directory: where the files are.
            handle: the expected handle.
        """
        checks: list[Check] = []
        for file, weights in FORMATS[name].models.items():
            try:
                model = RunnableModel.open(name, directory / file)
                checks.append(
                    Check(name="interface", on=file, problems=tuple(_interface_problems(file, model, handle)))
                )
                found = [(names, _run(model, handle, self, names)) for names in PLAN]
                checks += _compare(found, file, weights, handle, self)
                if weights == "int8":
                    checks += _check_own_weights(found, directory / file, handle, self)
                if FORMATS[name].settings:
                    model = RunnableModel.open(name, directory / file, default_settings=True)
                    found = [(PLAN[0], _run(model, handle, self, PLAN[0]))]
                    name_of = "float32 default_settings_relative"
                    checks += _compare_only(found, name_of, DEFAULT_SETTINGS, file, handle, self, detail=model.detail)
            except Exception as error:  # each runtime raises its own types
                said = f"{file}: does not run: {type(error).__name__}: {str(error).strip()}"
                checks.append(Check(name="running", on=file, problems=(said,)))
        return tuple(checks)


_Found = Sequence[tuple[tuple[str, ...], Outputs]]
"""Names of the images of each batch, and the outputs for it."""


def _run(model: RunnableModel, handle: Handle, truth: Truth, names: tuple[str, ...]) -> Outputs:
    _, images, expected = truth.choose(handle, names)
    found = np.asarray(model.run(images))
    if found.shape != expected.shape:
        raise ValueError(f"outputs of shape {found.shape}, expected {expected.shape}")
    return found


def _compare(batches: _Found, file: str, weights: Weights, handle: Handle, truth: Truth) -> Iterator[Check]:
    """Yield the checks of outputs against the oracle on the checkpoint's weights."""
    limits, scale = limits_of(weights, truth.origin), truth.scale(handle, weights)
    # A probing head has no classes to rank.
    classes = handle.head == "classification" and not truth.is_probe
    for names, found in batches:
        indices, _, expected = truth.choose(handle, names)
        distances = measure(found, expected, scale[indices], classes=classes, tie=limits["tie"].limit)
        for check in distances.checks(_on(file, truth, names), limits, prefix=f"{weights} ", probe=_probe(truth)):
            if check.name.endswith("top1_disagreement"):
                said = "; ".join(_first_classes(names, found, expected, scale.of[indices]))
                yield check.model_copy(update={"detail": said})
            else:
                yield check


def _check_own_weights(batches: _Found, path: Path, handle: Handle, truth: Truth) -> Iterator[Check]:
    """Yield the checks of the int8 weights that a file stores, and of its outputs against the oracle on them."""
    limits = limits_of("int8", truth.origin)
    own, steps = truth.with_weights_of(path, handle)
    on = f"{path.name}{' with a probing head' if truth.is_probe else ''}"
    yield limited("int8 weights_steps", on, steps, limits["weights_steps"].limit, power=None, probe=_probe(truth))
    yield from _compare_only(
        batches, "int8 own_weights_relative", limits["own_weights_relative"], path.name, handle, own
    )


def _compare_only(
    batches: _Found, name: str, tolerance: Tolerance, file: str, handle: Handle, truth: Truth, *, detail: str = ""
) -> Iterator[Check]:
    """Yield a check of each batch's largest difference from the oracle; `detail` says how the outputs were computed."""
    scale = truth.scale(handle, "float32")
    for names, found in batches:
        indices, _, expected = truth.choose(handle, names)
        distances = measure(found, expected, scale[indices], classes=False, tie=0)
        figure, power = distances.max_relative, distances.power
        check = limited(name, _on(file, truth, names), figure, tolerance.limit, power=power, probe=_probe(truth))
        yield check.model_copy(update={"detail": detail})


def _on(file: str, truth: Truth, names: tuple[str, ...]) -> str:
    how = " with a probing head" if truth.is_probe else ""
    return f"{file}{how} on {', '.join(names)} (batch {len(names)})"


def _probe(truth: Truth) -> Probe | None:
    return "head" if truth.is_probe else None


def _first_classes(names: Sequence[str], found: Outputs, expected: Values, scale: Values) -> Iterator[str]:
    """Yield, for each image with another first class, by how much the oracle prefers its own."""
    for name, ours, theirs, one in zip(names, found, expected, scale, strict=True):
        mine, right = int(ours.argmax()), int(theirs.argmax())
        if mine != right:
            apart = (theirs[right] - theirs[mine]) / one
            yield f"{name}: first class {mine} instead of {right}, whose logit is {apart:.2g} of the scale higher"


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
        tolerances=export_tolerances(manifest.format, manifest.checkpoint.origin),
        not_checked=NOT_CHECKED,
        verdict="failed" if any(check.problems for check in whole) else "passed",
        libraries=library_versions() | kind.versions(),
        validator_sha256=sources_sha256(*EXPORT_VALIDATOR_SOURCES),
    )
    return report.concluded()
