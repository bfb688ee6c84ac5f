"""Read the records of a handle from disk, and judge whether they are consistent."""

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
from models.selection import command_for
from models.storage.files import sha256_of

if TYPE_CHECKING:
    from validation.parity.saved_outputs import SavedOutputs

Status = Literal["passed", "failed", "void", "not checked", "not made"]

SLACK = 1.001
"""Factor by which rounding may raise a figure that is computed again."""


@dataclass(frozen=True)
class ModelRecords:
    """One handle of the page.

    Attributes:
        handle: of the catalog, or of a custom checkpoint.
        status: the report's verdict, if there is one; `void` if the records do not belong together or cannot be read.
        manifest: of the SavedModel, if it was made.
        report: of the SavedModel, if it was checked.
        evidence: its saved outputs, if the full set was run.
        reasons: why the status is `void`, or why there is no evidence.
    """

    handle: Handle
    status: Status
    manifest: Manifest | None = None
    report: Report | None = None
    evidence: "SavedOutputs | None" = None
    reasons: tuple[str, ...] = ()

    @classmethod
    def read(cls, out: Path, version: int, handle: Handle) -> "ModelRecords":
        """Read the records `<out>/<handle>/<version>.*`; a problem with them becomes a reason; nothing is raised."""
        paths = ModelPaths.of(out, handle.name, version)
        if not (paths.manifest.is_file() or paths.report.is_file()):
            return cls(handle, "not made")
        manifest, report, unreadable = None, None, []
        try:
            manifest = Manifest.read(paths.manifest)
        except MixerError as error:
            unreadable.append(f"{_first_line(error, out)} Run `{command_for('convert-all', handle.name)}` again.")
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
    """Return how the manifest (with this sha256) and the report do not match the handle or each other."""
    expected, reasons = f"{handle.name}, version {version}", []
    for name, record in (("manifest", manifest), ("report", report)):
        found = f"{record.handle}, version {record.version}" if record else expected
        if found != expected:
            reasons.append(f"the {name} is of {found}, expected {expected}.")
    if manifest and report and report.manifest_sha256 != digest:
        reasons.append(
            "the report is of another manifest: the model was converted again since. Run "
            f"`{command_for('validate', handle.name)}`."
        )
    reasons += [f"the report contradicts itself: {reason}." for reason in (report.contradictions() if report else ())]
    return reasons


def _read_evidence(path: Path, report: Report) -> tuple["SavedOutputs | None", tuple[str, ...]]:
    if report.inputs_set == "gate":
        return None, ()
    if not path.is_file():
        return None, (f"{path.name} is missing: no plots of the outputs.",)
    from validation.parity.saved_outputs import SavedOutputs  # not needed for a gate set

    other = f"{path.name} is of another report: no plots of the outputs."
    if report.outputs_sha256 not in (None, sha256_of(path)):
        return None, (other,)
    try:
        evidence = SavedOutputs.read(path)
    except Exception as error:  # NumPy raises any of a dozen types for a damaged archive
        return None, (f"{path.name} cannot be read ({error}): no plots of the outputs.",)
    if not _fits(evidence, report):
        return None, (other,)
    return evidence, ()


def _fits(evidence: "SavedOutputs", report: Report) -> bool:
    """Return whether the outputs can be those that the report was made from."""
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
    # Comparisons without power count too: the pictures show these outputs, and not those of a probe.
    compared = (check.measured for check in report.find("max_relative") if check.probe is None)
    return any(found <= measured * SLACK for measured in compared if measured is not None)
