"""Many handles to one format in one process: each is finished or fails by itself, and the summary tells."""

import gc
import logging
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from convert.cli import show, stages
from convert.cli.frameworks import quiet_stderr
from export.destination import install, refuse_existing, refuse_foreign, staged, tidy
from export.exported import describe_export
from models.catalog import Checkpoint, Handle, own_handle
from models.contents import compare_files, digest_files
from models.errors import MixerError
from models.exported import ExportManifest, ExportReport
from models.files import write_atomically
from models.formats import Format
from models.paths import ModelPaths
from models.records import Manifest
from models.report import Check

if TYPE_CHECKING:
    from validation.exports import Truth

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exports:
    """Which handles are to be written in which format."""

    format: Format
    handles: tuple[Handle, ...]
    source: stages.Source
    out: Path
    version: int
    own: stages.OwnFile | None = None
    """One's own Mixer, of the architecture and head of the only handle."""
    overwrite: bool = False

    def name(self, handle: Handle) -> str:
        """Return the name that a handle's models have."""
        return self.own.name if self.own else handle.name

    def saved_model(self, handle: Handle) -> ModelPaths:
        """Return where the SavedModel that a handle is written from stands."""
        named = replace(handle, name=self.name(handle))
        return ModelPaths.of(self.out, named.in_flavour("graph").name, self.version)

    def destination(self, handle: Handle) -> ModelPaths:
        """Return where a handle goes."""
        return ModelPaths.of(self.out, self.format.named(self.name(handle)), self.version)

    def how_to_convert(self, handle: Handle) -> str:
        """Return the command that makes the SavedModel."""
        own = f" --checkpoint {self.own.path} --name {self.own.name}" if self.own else ""
        return f"mixer-jax2tf convert {handle.name}{own} --flavour graph"


@dataclass(frozen=True)
class ExportOutcome:
    """What became of one handle."""

    name: str
    seconds: float
    report: ExportReport | None
    problems: tuple[str, ...]


def check_exports(work: Exports) -> None:
    """Refuse, before any work, to replace what is not to be replaced.

    Raises:
        UsageError: something stands in the way.
    """
    for handle in work.handles:
        destination = work.destination(handle)
        tidy(work.saved_model(handle))
        tidy(destination)
        if work.overwrite:
            refuse_foreign(destination, ExportManifest)
        else:
            refuse_existing(destination)


def run_exports(work: Exports) -> list[ExportOutcome]:
    """Write and check each handle, checkpoint by checkpoint; a failure ends that handle only."""
    outcomes: list[ExportOutcome] = []
    by_checkpoint: dict[Checkpoint, list[Handle]] = {}
    for handle in work.handles:
        by_checkpoint.setdefault(handle.checkpoint, []).append(handle)
    with show.steps(len(work.handles)) as steps:
        for checkpoint, handles in by_checkpoint.items():
            for outcome in _run_checkpoint(work, checkpoint, handles, steps):
                outcomes.append(outcome)
                steps.finish("\n  ".join([f"{outcome.name}: {_verdict(outcome)}", *outcome.problems]))
            gc.collect()
    return outcomes


def _run_checkpoint(
    work: Exports, checkpoint: Checkpoint, handles: list[Handle], steps: show.Steps
) -> Iterator[ExportOutcome]:
    truth: Truth | None = None
    sha256 = ""
    for handle in handles:
        begin, name = time.perf_counter(), work.destination(handle).handle
        report: ExportReport | None = None
        problems: tuple[str, ...]
        try:
            _read_source(work, handle)  # before anything is fetched for it
            if truth is None:
                truth, sha256, classes = _find_truth(work, handle, steps)
            steps.start(f"writing and checking {name}")
            with quiet_stderr():
                report = _export(work, handle, truth, sha256, classes)
            problems = report.problems
        except Exception as error:  # the others are still done; --debug shows where
            LOG.debug("failed", exc_info=True)
            known = isinstance(error, MixerError)
            problems = (str(error) if known else f"unexpected {type(error).__name__}: {error}",)
        yield ExportOutcome(name, time.perf_counter() - begin, report, problems)


def _find_truth(work: Exports, handle: Handle, steps: show.Steps) -> tuple["Truth", str, int]:
    """Return the oracle's outputs for a handle's checkpoint, the sha256 of its file, and the classes of its head."""
    from validation.exports import Truth

    checkpoint = handle.checkpoint
    if work.own is not None:
        reading = steps.start(f"reading {work.own.path}")
        _, material = stages.bring_own(work.own, handle, work.source.digests, reading=reading)
    else:
        advance = steps.start(f"fetching and reading {checkpoint.object}")
        material = stages.bring(checkpoint, work.source, fetching=advance, reading=advance)
    steps.start(f"running the oracle on {material.path.name}")
    truth = Truth.of(material.path, checkpoint.architecture.image_size)
    return truth, material.record.sha256, material.loaded.num_classes


def _export(work: Exports, handle: Handle, truth: "Truth", sha256: str, classes: int) -> ExportReport:
    from export.formats import write_format
    from validation.exports import check_export, make_export_report

    saved_model, destination = work.saved_model(handle), work.destination(handle)
    source = _read_source(work, handle, sha256)
    with staged(destination) as stage:
        write_format(work.format.name, saved_model.directory, stage)
        manifest = describe_export(work.format.name, destination.handle, source, stage)
        install(stage, destination, manifest, overwrite=work.overwrite)
    made = own_handle(handle, work.own.name, classes) if work.own else handle
    checks = check_export(work.format.name, destination.directory, made, truth)
    if made.head == "classification" and not all(check.tells for check in checks):
        try:
            checks += _check_probing_export(work, handle, made, truth)
        except Exception as error:  # the export is in place already: its report says what is not known of it
            LOG.debug("failed", exc_info=True)
            said = f"cannot be exported with a probing head: {type(error).__name__}: {error}"
            checks += (Check(name="running", on="probing head", problems=(said,)),)
    differences = compare_files(manifest.files, digest_files(destination.directory))
    report = make_export_report(destination.manifest.read_bytes(), checks, truth, other_problems=differences)
    write_atomically(destination.report, report.to_bytes())
    return report


def _check_probing_export(work: Exports, handle: Handle, made: Handle, truth: "Truth") -> tuple[Check, ...]:
    """Export the same graph with a probing head in place of the model's own, which hides errors, and check that.

    An export holds its weights as constants, so the head cannot be exchanged in it.
    """
    from export.formats import write_format
    from export.variables import copy_with_variables
    from validation.exports import check_export

    probing = truth.probing()
    with tempfile.TemporaryDirectory() as folder:
        model, exported = Path(folder, "model"), Path(folder, "exported")
        exported.mkdir()
        changed = {f"head/{name}": value for name, value in probing.head.items()}
        copy_with_variables(work.saved_model(handle).directory, model, changed)
        write_format(work.format.name, model, exported)
        return check_export(work.format.name, exported, made, probing)


def _read_source(work: Exports, handle: Handle, sha256: str | None = None) -> bytes:
    """Return the manifest of a SavedModel that is whole; with `sha256`, one made from the checkpoint of that digest."""
    saved_model, convert = work.saved_model(handle), work.how_to_convert(handle)
    if not saved_model.manifest.is_file() or not saved_model.directory.is_dir():
        raise MixerError(
            f"{saved_model.directory} is missing, or its manifest beside it: an export is made from the SavedModel of "
            f"the graph flavour. Run `{convert}` first, or give the --out and --version it was converted with."
        )
    manifest = Manifest.read(saved_model.manifest)
    if sha256 is None:
        return saved_model.manifest.read_bytes()
    if manifest.checkpoint.sha256 != sha256:
        raise MixerError(
            f"{saved_model.directory} was made from a checkpoint of sha256 {manifest.checkpoint.sha256}, found here is "
            f"{sha256}: give the --{'checkpoint' if work.own else 'source'} that it was converted from, or convert it "
            f"anew (`{convert}`)."
        )
    differences = compare_files(manifest.files, digest_files(saved_model.directory))
    if differences:
        raise MixerError(
            f"{saved_model.directory} is not what its manifest says ({'; '.join(differences)}): convert it anew "
            f"(`{convert} --overwrite`)."
        )
    return saved_model.manifest.read_bytes()


def _verdict(outcome: ExportOutcome) -> str:
    return f"{outcome.report.verdict if outcome.report else 'failed'} in {outcome.seconds:.1f} s"


def print_outcomes(outcomes: list[ExportOutcome], *, json: bool) -> None:
    """Print what became of the handles, a line for each file.

    Raises:
        MixerError: one or more failed; names them with their reasons.
    """
    if json:
        show.print_json([_as_json(outcome) for outcome in outcomes])
    else:
        columns = ("model", "file", "#size", "#worst error", "#first class", "verdict")
        rows = [row for outcome in outcomes for row in _rows(outcome)]
        show.print_table("", columns, rows)
    reports = [outcome.report for outcome in outcomes if outcome.report is not None]
    for note in dict.fromkeys(note for report in reports for note in report.not_checked):
        show.tell(f"not checked: {note}")
    failed = [outcome for outcome in outcomes if outcome.problems]
    if failed:
        reasons = "\n".join(f"{outcome.name}: {'; '.join(outcome.problems)}" for outcome in failed)
        raise MixerError(f"{len(failed)} of {len(outcomes)} exports failed.\n{reasons}")


def _rows(outcome: ExportOutcome) -> Iterator[tuple[str, ...]]:
    if outcome.report is None:
        yield outcome.name, "", "", "", "", "failed"
        return
    for file, size in outcome.report.sizes.items():
        of_file = [check for check in outcome.report.checks if check.on.startswith(f"{file} ") and check.tells]
        worst = _most(check for check in of_file if check.name.endswith(" max_relative"))
        apart = _most(check for check in of_file if check.name.endswith(" top1_disagreement"))
        yield (
            outcome.name,
            file,
            show.megabytes(size),
            "" if worst is None else f"{worst:.1e}",
            "" if apart is None else f"{1 - apart:.0%}",
            outcome.report.verdict,
        )


def _most(checks: Iterable[Check]) -> float | None:
    return max((check.measured for check in checks if check.measured is not None), default=None)


def _as_json(outcome: ExportOutcome) -> dict[str, object]:
    report = None if outcome.report is None else outcome.report.model_dump(mode="json")
    verdict = "failed" if outcome.report is None else outcome.report.verdict
    return {
        "name": outcome.name,
        "verdict": verdict,
        "seconds": outcome.seconds,
        "problems": outcome.problems,
        "report": report,
    }
