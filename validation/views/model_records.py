"""What stands on disk about a handle, and what it is worth."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from models.catalog import Handle
from models.errors import MixerError
from models.records.layout import ModelPaths
from models.records.manifest import Manifest
from models.records.report import Report

if TYPE_CHECKING:
    from validation.parity.saved_outputs import SavedOutputs

Status = Literal["passed", "failed", "void", "not checked", "not made"]

SLACK = 1.001
"""What rounding may add to a figure that is computed again."""


@dataclass(frozen=True)
class ModelRecords:
    """One handle of the page.

    Attributes:
        handle: of the catalog, or one's own.
        standing: the report's verdict; `void` where the records do not belong together or cannot be read.
        manifest: what the SavedModel is, if it was made.
        report: whether it is right, if it was checked.
        evidence: its outputs, if the full set was run.
        reasons: why the standing is `void`, or why there is no evidence.
    """

    handle: Handle
    status: Status
    manifest: Manifest | None = None
    report: Report | None = None
    evidence: "SavedOutputs | None" = None
    reasons: tuple[str, ...] = ()

    @classmethod
    def read(cls, out: Path, version: int, handle: Handle) -> "ModelRecords":
        """Read the records `<out>/<handle>/<version>.*`; what is wrong with them becomes a reason, never an error."""
        paths = ModelPaths.of(out, handle.name, version)
        if not (paths.manifest.is_file() or paths.report.is_file()):
            return cls(handle, "not made")
        manifest, report, unreadable = None, None, []
        try:
            manifest = Manifest.read(paths.manifest)
        except MixerError as error:
            unreadable.append(f"{_first_line(error, out)} Run `mixer-jax2tf convert-all` to make it again.")
        try:
            report = Report.read(paths.report) if paths.report.is_file() else None
        except MixerError as error:
            unreadable.append(_first_line(error, out))
        digest = hashlib.sha256(paths.manifest.read_bytes()).hexdigest() if manifest else None
        reasons = (*unreadable, *_contradictions(handle, version, manifest, report, digest))
        status: Status = "void" if reasons else report.verdict if report else "not checked"
        evidence, why = _read_evidence(paths.outputs, report) if report else (None, ())
        return cls(handle, status, manifest, report, evidence, (*reasons, *why))


def _first_line(error: MixerError, out: Path) -> str:
    return str(error).splitlines()[0].replace(f"{out}/", "")


def _contradictions(
    handle: Handle, version: int, manifest: Manifest | None, report: Report | None, digest: str | None
) -> list[str]:
    """Say where manifest (of this sha256) and report are not of this handle or not of each other."""
    expected, reasons = f"{handle.name}, version {version}", []
    for name, record in (("manifest", manifest), ("report", report)):
        found = f"{record.handle}, version {record.version}" if record else expected
        if found != expected:
            reasons.append(f"the {name} is of {found}, expected {expected}.")
    if manifest and report and report.manifest_sha256 != digest:
        reasons.append(
            "the report is of another manifest: the model was made again since. Run `mixer-jax2tf validate`."
        )
    reasons += [f"the report contradicts itself: {reason}." for reason in (report.contradictions() if report else ())]
    return reasons


def _read_evidence(path: Path, report: Report) -> tuple["SavedOutputs | None", tuple[str, ...]]:
    if report.inputs_set == "gate":
        return None, ()
    if not path.is_file():
        return None, (f"{path.name} is missing: no pictures of the outputs.",)
    from validation.parity.saved_outputs import SavedOutputs  # brings TensorFlow with it

    try:
        evidence = SavedOutputs.read(path)
    except Exception as error:  # NumPy says of a damaged archive any of a dozen types
        return None, (f"{path.name} cannot be read ({error}): no pictures of the outputs.",)
    if not _fits(evidence, report):
        return None, (f"{path.name} is not of this report: no pictures of the outputs.",)
    return evidence, ()


def _fits(evidence: "SavedOutputs", report: Report) -> bool:
    """Say whether the outputs can be those that the report was made from."""
    from validation.parity.outputs import relative_distance

    shape = evidence.jax.shape
    if {evidence.saved_model.shape, evidence.oracle.shape, (len(evidence.names), *shape[1:])} != {shape}:
        return False
    if len(shape) != 2 or not evidence.jax.size or evidence.scale.shape != shape[:1]:
        return False
    if not set(evidence.names) <= set(report.images):
        return False
    with np.errstate(invalid="ignore"):
        found = relative_distance(evidence.saved_model, evidence.jax, evidence.scale)
    # Of the comparisons without power too: the pictures are of these outputs, and not of those of a probe.
    compared = (check.measured for check in report.find("max_relative") if check.probe is None)
    return any(found <= measured * SLACK for measured in compared if measured is not None)
