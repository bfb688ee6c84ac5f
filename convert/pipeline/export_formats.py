"""Export many handles to one format in one process; each succeeds or fails on its own."""

import gc
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from convert.checkpoints.fetch import Source
from convert.checkpoints.open import CustomCheckpoint, OpenCheckpoint
from convert.pipeline.convert_handle import refuse_other_labels
from convert.pipeline.for_each import Failure, attempt
from convert.pipeline.frameworks import IMPORTING, import_frameworks, quiet_stderr
from convert.pipeline.progress import Steps, Watch
from export.formats.manifest import describe_export
from export.install import held, install, refuse_to_replace, staged, tidy
from models.catalog import Checkpoint, Handle
from models.errors import MixerError
from models.formats import Format
from models.records.check import Check
from models.records.contents import compare_files, digest_files, refuse_changed
from models.records.formats import ExportManifest, ExportReport
from models.records.layout import ModelPaths
from models.records.manifest import Manifest
from models.selection import custom_handle
from models.storage.files import require_temporary_room, write_atomically

if TYPE_CHECKING:
    from validation.formats.check import Truth


@dataclass(frozen=True)
class Exports:
    """Which handles to export, and to which format."""

    format: Format
    handles: tuple[Handle, ...]
    source: Source
    out: Path
    version: int
    custom: CustomCheckpoint | None = None
    """A custom checkpoint, with the architecture and head of the only handle."""
    overwrite: bool = False

    def name(self, handle: Handle) -> str:
        """Return the name of a handle's models, without the ending of the graph flavour."""
        return self.custom.name if self.custom else handle.in_flavour("native").name

    def saved_model(self, handle: Handle) -> ModelPaths:
        """Return the paths of the SavedModel that a handle is exported from."""
        named = replace(handle, name=self.name(handle))
        return ModelPaths.of(self.out, named.in_flavour("graph").name, self.version)

    def destination(self, handle: Handle) -> ModelPaths:
        """Return the paths of a handle's export."""
        return ModelPaths.of(self.out, self.format.named(self.name(handle)), self.version)

    def how_to_convert(self, handle: Handle) -> str:
        """Return the command that makes the SavedModel."""
        name = handle.in_flavour("native").name
        if self.custom is not None:
            is_made = ModelPaths.of(self.out, self.custom.name, self.version).manifest.is_file()
            named = [self.custom.name] if is_made else [name, "--name", self.custom.name]
            name = shlex.join([*named, "--checkpoint", str(self.custom.path)])
        return f"mixer-jax2tf convert {name} --flavour graph"

    def check(self) -> None:
        """Refuse, before any work, what cannot succeed.

        Raises:
            UsageError: a library of the format is missing, or something exists that must not be replaced.
        """
        self.format.require()
        require_temporary_room()
        for handle in self.handles:
            destination = self.destination(handle)
            tidy(destination)
            tidy(self.saved_model(handle))
            refuse_to_replace(destination, ExportManifest, overwrite=self.overwrite)
            refuse_other_labels(self.saved_model(handle), self.custom)

    def run(self, watch: Watch | None = None) -> list["ExportOutcome"]:
        """Write and check each handle, checkpoint by checkpoint; a failure ends that handle only."""
        outcomes: list[ExportOutcome] = []
        by_checkpoint: dict[Checkpoint, list[Handle]] = {}
        for handle in self.handles:
            by_checkpoint.setdefault(handle.checkpoint, []).append(handle)
        with Steps(watch, len(self.handles)) as on:
            if any(self.saved_model(handle).manifest.is_file() for handle in self.handles):  # the others fail before
                on.start(IMPORTING)
                import_frameworks()
            for handles in by_checkpoint.values():
                for outcome in _run_checkpoint(self, handles, on):
                    outcomes.append(outcome)
                    said = f"{outcome.name}: {outcome.verdict} in {outcome.seconds:.1f} s"
                    on.finish("\n  ".join([said, *outcome.problems]))
                gc.collect()
        return outcomes


@dataclass(frozen=True)
class ExportOutcome:
    """The result of exporting one handle."""

    name: str
    seconds: float
    report: ExportReport | None
    problems: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The report's verdict; `failed` without a report."""
        return self.report.verdict if self.report else "failed"


def _run_checkpoint(work: Exports, handles: list[Handle], on: Steps) -> Iterator[ExportOutcome]:
    expected = cache(lambda: _find_truth(work, handles[0], on))
    for handle in handles:
        begin, name = time.perf_counter(), work.destination(handle).handle
        found = attempt(lambda handle=handle, name=name: _run(work, handle, name, expected, on))  # type: ignore[misc]
        seconds = time.perf_counter() - begin
        if isinstance(found, Failure):
            yield ExportOutcome(name, seconds, None, (found.reason,))
        else:
            yield ExportOutcome(name, seconds, found, found.problems)


def _run(
    work: Exports, handle: Handle, name: str, expected: Callable[[], tuple["Truth", str, int]], on: Steps
) -> ExportReport:
    _read_source(work, handle)  # before anything is fetched for it
    truth, sha256, classes = expected()
    on.start(f"writing and checking {name}")
    source = _read_source(work, handle, sha256)
    with held(work.destination(handle), to_make=True), quiet_stderr():
        return _export(work, handle, source, truth, classes)


def _find_truth(work: Exports, handle: Handle, on: Steps) -> tuple["Truth", str, int]:
    """Return the oracle's outputs for a handle's checkpoint, the sha256 of its file, and the classes of its head."""
    from validation.formats.check import Truth

    checkpoint = handle.checkpoint
    if work.custom is not None:
        reading = on.start(f"reading {work.custom.path}")
        _, opened = work.custom.open(handle, work.source.digests, reading=reading)
    else:
        advance = on.start(f"loading {checkpoint.object}")
        opened = OpenCheckpoint.of_catalog(checkpoint, work.source, fetching=advance, reading=advance)
    on.start(f"running the oracle on {opened.path.name}")
    truth = Truth.of(opened.path, checkpoint.architecture.image_size, opened.record.origin, prefix=opened.prefix)
    return truth, opened.record.sha256, opened.loaded.num_classes


def _export(work: Exports, handle: Handle, source: bytes, truth: "Truth", classes: int) -> ExportReport:
    from export.formats.writer import write_format
    from validation.formats.check import make_export_report

    saved_model, destination = work.saved_model(handle), work.destination(handle)
    with staged(destination) as stage:
        write_format(work.format.name, saved_model.directory, stage)
        manifest = describe_export(work.format.name, destination.handle, source, stage)
        install(stage, destination, manifest, overwrite=work.overwrite)
    made = custom_handle(handle, work.custom.name, classes) if work.custom else handle
    checks = truth.check(work.format.name, destination.directory, made)
    if made.head == "classification" and not all(check.has_power for check in checks):
        probed = attempt(lambda: _check_probing_export(work, handle, made, truth))
        if isinstance(probed, Failure):  # the export is already in place: its report says what is not known
            said = f"cannot be exported with a probing head: {probed.reason}"
            probed = (Check(name="running", on="probing head", problems=(said,)),)
        checks += probed
    differences = compare_files(manifest.files, digest_files(destination.directory))
    report = make_export_report(destination.manifest.read_bytes(), checks, truth, other_problems=differences)
    write_atomically(destination.report, report.to_bytes())
    return report


def _check_probing_export(work: Exports, handle: Handle, made: Handle, truth: "Truth") -> tuple[Check, ...]:
    """Export the same graph with a probing head instead of the model's own, which hides errors, and check it.

    An export contains its weights as constants, so the head cannot be replaced in it.
    """
    from export.formats.writer import write_format
    from export.saved_model.variables import copy_with_variables

    probing = truth.probing()
    with tempfile.TemporaryDirectory() as folder:
        model, exported = Path(folder, "model"), Path(folder, "exported")
        exported.mkdir()
        changed = {f"head/{name}": value for name, value in probing.head.items()}
        copy_with_variables(work.saved_model(handle).directory, model, changed)
        write_format(work.format.name, model, exported)
        return probing.check(work.format.name, exported, made)


def _read_source(work: Exports, handle: Handle, sha256: str | None = None) -> bytes:
    """Return the manifest of a SavedModel; with `sha256`, check its files and that checkpoint's digest first."""
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
            f"{saved_model.directory} was made from a checkpoint of sha256 {manifest.checkpoint.sha256}, this one "
            f"has {sha256}: give the --{'checkpoint' if work.custom else 'source'} that it was converted from, or "
            f"convert it again (`{convert}`)."
        )
    again = f"Convert it again (`{convert} --overwrite`)."
    refuse_changed(saved_model.directory, manifest.files, saved_model.manifest, again, strict=True)
    return saved_model.manifest.read_bytes()
