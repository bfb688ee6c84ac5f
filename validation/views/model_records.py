"""Read the records of the models and exports in a directory, and judge whether they are consistent."""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import numpy as np

from models.catalog import ALL_HANDLES, GRAPH_SUFFIX, Handle
from models.errors import MixerError
from models.formats import FORMATS
from models.records.accuracy import AccuracyRecord
from models.records.formats import ExportManifest, ExportReport, read_manifest
from models.records.layout import ModelPaths
from models.records.manifest import Manifest
from models.records.report import Report
from models.selection import command_for, handle_of, is_catalogued, select_handles
from models.storage.files import read_small, sha256_of

if TYPE_CHECKING:
    from validation.parity.saved_outputs import SavedOutputs

Status = Literal["passed", "failed", "void", "not checked"]

SLACK = 1.001
"""Factor by which rounding may raise a figure that is computed again."""

_LONGEST_CLASS_LIST = 16 << 20
"""Bytes."""

_EXPORTS = tuple(f"-{name}" for name in FORMATS)
"""Endings of the names of exports."""

MadeOf = TypeVar("MadeOf", bound=Manifest)
Judged = TypeVar("Judged", Report, ExportReport)
_Kept = TypeVar("_Kept", Manifest, Report, ExportReport, AccuracyRecord)


@dataclass(frozen=True)
class _Records(Generic[MadeOf, Judged]):
    """The records of one version of one name.

    Attributes:
        paths: of the files.
        status: the report's verdict, if there is one; `void` if the records do not belong together or cannot be read.
        manifest: what it is, if that can be read.
        report: of its checks, if it was checked.
        reasons: why the status is `void`, or why something is not shown.
    """

    paths: ModelPaths
    status: Status
    manifest: MadeOf | None
    report: Judged | None
    reasons: tuple[str, ...]

    @property
    def name(self) -> str:
        """The handle, or the name of the export or the custom model."""
        return self.paths.handle

    def day_of(self, path: Path) -> str | None:
        """Return the day (UTC) on which a record was written; None if there is none."""
        with suppress(OSError):
            return datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
        return None

    @property
    def day(self) -> str:
        """The day (UTC) on which the newest of the manifest and the report was written."""
        return max(filter(None, map(self.day_of, (self.paths.manifest, self.paths.report))), default="")


@dataclass(frozen=True)
class ExportRecords(_Records[ExportManifest, ExportReport]):
    """An exported model of the page."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with it, and with its records."""
        return (*self.reasons, *(self.report.problems if self.report else ()))


@dataclass(frozen=True)
class ModelRecords(_Records[Manifest, Report]):
    """A SavedModel of the page.

    Attributes:
        handle: of the catalog, or of a custom checkpoint; None if nothing readable says which.
        evidence: its saved outputs.
        accuracy: what was measured of this very model.
        classes: the names of its classes, if it has a class list.
    """

    handle: Handle | None = None
    evidence: "SavedOutputs | None" = None
    accuracy: AccuracyRecord | None = None
    classes: tuple[str, ...] = ()


def read_all(out: Path) -> tuple[list[ModelRecords], list[ExportRecords]]:
    """Read the records `<out>/<name>/<version>.*` of all models and exports; problems with them become reasons.

    Handles of the catalog come first, in its order, then custom models by name.
    """
    found = {
        ModelPaths(path.parent, match[1])
        for path in out.glob("*/*.json")
        if (match := re.fullmatch(r"(\d{1,9})\.(manifest|report)\.json", path.name))
    }
    order = {name: place for place, name in enumerate(ALL_HANDLES)}

    def place(paths: ModelPaths) -> tuple[int, str, int]:
        return order.get(paths.handle.removesuffix(GRAPH_SUFFIX), len(order)), paths.handle, paths.version

    models: list[ModelRecords] = []
    exports: list[ExportRecords] = []
    for paths in sorted(found, key=place):
        manifest, reasons = _read(lambda paths=paths: read_manifest(paths.manifest), out)  # type: ignore[misc]
        reasons = [f"{one} Run `{command_for('convert-all', paths.handle)}` again." for one in reasons]
        if isinstance(manifest, ExportManifest) or (manifest is None and paths.handle.endswith(_EXPORTS)):
            exports.append(_read_export(paths, out, manifest, reasons))
        else:
            models.append(_read_model(paths, out, manifest, reasons))
    return models, exports


def _read(read: Callable[[], _Kept], out: Path) -> tuple[_Kept | None, list[str]]:
    """Return a record, or why it cannot be read: the message's first line, with paths relative to `out`."""
    try:
        return read(), []
    except MixerError as error:
        return None, [str(error).splitlines()[0].replace(f"{out}/", "")]


def _digest(paths: ModelPaths, manifest: Manifest | None) -> str | None:
    return hashlib.sha256(paths.manifest.read_bytes()).hexdigest() if manifest else None


def _read_export(paths: ModelPaths, out: Path, manifest: ExportManifest | None, reasons: list[str]) -> ExportRecords:
    report, unreadable = _read(lambda: ExportReport.read(paths.report), out) if paths.report.is_file() else (None, [])
    reasons = [*reasons, *unreadable, *_contradictions(paths, manifest, report)]
    source = ModelPaths.of(out, paths.handle.rpartition("-")[0] + GRAPH_SUFFIX, paths.version).manifest
    if manifest and source.is_file() and hashlib.sha256(source.read_bytes()).hexdigest() != manifest.source_sha256:
        reasons.append(
            f"it was written from another SavedModel than {source.parent.name}, which was converted again since. Run "
            f"`{command_for('export', paths.handle)}`."
        )
    return ExportRecords(paths, _status(reasons, report), manifest, report, tuple(reasons))


def _status(reasons: list[str], report: Report | ExportReport | None) -> Status:
    return "void" if reasons else report.verdict if report else "not checked"


def _read_model(paths: ModelPaths, out: Path, manifest: Manifest | None, reasons: list[str]) -> ModelRecords:
    report, unreadable = _read(lambda: Report.read(paths.report), out) if paths.report.is_file() else (None, [])
    reasons = [*reasons, *unreadable, *_contradictions(paths, manifest, report)]
    handle = None
    try:
        if manifest is not None:
            handle = handle_of(paths.handle, manifest.architecture, manifest.head, manifest.num_classes)
        elif is_catalogued(paths.handle):
            handle = select_handles([paths.handle])[0]
    except MixerError as error:
        reasons.append(str(error))
    status = _status(reasons, report)
    evidence, why = _read_evidence(paths.outputs, report) if report else (None, ())
    accuracy, why_not = _read_accuracy(paths, out, _digest(paths, manifest))
    said = (*reasons, *why, *why_not)
    return ModelRecords(paths, status, manifest, report, said, handle, evidence, accuracy, _classes(paths, manifest))


def _contradictions(
    paths: ModelPaths, manifest: Manifest | None, report: Report | ExportReport | None
) -> Iterator[str]:
    """Yield how the manifest and the report do not match their place or each other."""
    expected = f"{paths.handle}, version {paths.version}"
    for name, record in (("manifest", manifest), ("report", report)):
        found = f"{record.handle}, version {record.version}" if record else expected
        if found != expected:
            yield f"the {name} is of {found}, expected {expected}."
    if manifest and report and report.manifest_sha256 != _digest(paths, manifest):
        yield (
            "the report is of another manifest: the model was converted again since. Run "
            f"`{command_for('validate', paths.handle)}`."
        )
    yield from (f"the report contradicts itself: {reason}." for reason in (report.contradictions() if report else ()))


def _read_accuracy(paths: ModelPaths, out: Path, digest: str | None) -> tuple[AccuracyRecord | None, list[str]]:
    if not paths.accuracy.is_file():
        return None, []
    record, reasons = _read(lambda: AccuracyRecord.read(paths.accuracy), out)
    if record is not None and (record.handle, record.manifest_sha256) != (paths.handle, digest):
        again = "measure it again with `mixer-jax2tf accuracy --record`"
        return None, [f"{paths.accuracy.name} is of another manifest, so its accuracy is not shown: {again}."]
    return record, reasons


def _classes(paths: ModelPaths, manifest: Manifest | None) -> tuple[str, ...]:
    """Return the names in a model's own class list, if that is the one of its manifest."""
    if manifest is None or manifest.class_list is None:
        return ()
    with suppress(OSError, MixerError):
        content = read_small(paths.directory / manifest.class_list, _LONGEST_CLASS_LIST)
        if hashlib.sha256(content).hexdigest() == manifest.files[manifest.class_list].sha256:
            return tuple(content.decode(errors="replace").removesuffix("\n").split("\n"))
    return ()


def _read_evidence(path: Path, report: Report) -> tuple["SavedOutputs | None", tuple[str, ...]]:
    if not path.is_file():
        return None, (f"{path.name} is missing: no plots of the outputs.",)
    from validation.parity.saved_outputs import SavedOutputs

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

    shape, side = evidence.jax.shape, evidence.images.shape[1:2]
    if {evidence.saved_model.shape, evidence.oracle.shape, (len(evidence.names), *shape[1:])} != {shape}:
        return False
    if len(shape) != 2 or not evidence.jax.size or evidence.scale.shape != shape[:1]:
        return False
    if evidence.images.shape != (*shape[:1], *side, *side, 3) or evidence.images.dtype != np.uint8:
        return False
    if not set(evidence.names) <= set(report.images):
        return False
    with np.errstate(invalid="ignore"):
        found = relative_distance(evidence.saved_model, evidence.jax, evidence.scale)
    # Comparisons without power count too: the pictures show these outputs, and not those of a probe.
    compared = (check.measured for check in report.find("max_relative") if check.probe is None)
    return any(found <= measured * SLACK for measured in compared if measured is not None)
