"""Convert one handle: write its SavedModel from an open checkpoint, or find that it is current."""

from dataclasses import dataclass
from pathlib import Path

from convert.checkpoints.open import CustomCheckpoint, OpenCheckpoint
from convert.pipeline.kept_graphs import KeptGraphs
from convert.pipeline.tracing import GraphKey
from export.install import install, refuse_to_replace, staged
from models.catalog import Handle
from models.errors import MixerError, UsageError
from models.params import flatten
from models.records.layout import ModelPaths
from models.records.manifest import Manifest
from models.records.report import Report
from models.records.tolerances import TOLERANCES
from models.storage.files import sha256_of


@dataclass(frozen=True)
class Item:
    """A handle in the pipeline, with its paths and its class list; made once and passed on."""

    handle: Handle
    paths: ModelPaths
    labels: Path | None
    """Path of its class list; None if it has none."""

    @property
    def graph_key(self) -> GraphKey:
        """The key of its graph."""
        return GraphKey.of(self.handle, self.labels)

    def write(self, checkpoint: OpenCheckpoint, *, overwrite: bool, kept: KeptGraphs | None = None) -> Manifest:
        """Convert it, with a graph that was kept if there is one, and put its SavedModel and manifest in place."""
        from export.saved_model.extra_assets import write_extras

        handle, paths = self.handle, self.paths
        with staged(paths) as stage:
            refuse_to_replace(paths, overwrite=overwrite)
            graph = self.graph_key.graph(kept)
            graph.write(flatten(checkpoint.for_head(handle.head)), stage, labels=self.labels)
            write_extras(stage, handle, paths.version, checkpoint.record, labels=self.labels)
            manifest = self._describe(checkpoint, stage)
            install(stage, paths, manifest, overwrite=overwrite)
        return manifest

    def find_current(self, checkpoint: OpenCheckpoint) -> Report | None:
        """Return the passing report of its SavedModel if it is what would be made now; else None."""
        from export.saved_model.manifest import is_current
        from validation.parity import report as reports

        if not _has_labels(self.paths, self.labels):
            return None
        expected = self._describe(checkpoint, None)
        try:
            report = Report.read(self.paths.report)
        except MixerError:
            return None
        if not is_current(self.paths, expected):
            return None
        if self.paths.outputs.is_file() and sha256_of(self.paths.outputs) != report.outputs_sha256:
            return None  # the check that wrote them was killed before it wrote its report
        current = reports.is_current(report, self.paths.manifest.read_bytes())
        proven = report.verdict == "passed" and not any(report.contradictions(TOLERANCES))
        return report if current and proven else None

    def _describe(self, checkpoint: OpenCheckpoint, directory: Path | None) -> Manifest:
        """Return its manifest as made now from this checkpoint."""
        from convert.flavours.native import PLATFORMS
        from export.saved_model import manifest

        return manifest.describe(
            self.handle, checkpoint.record, version=self.paths.version, platforms=PLATFORMS, directory=directory
        )


def _has_labels(paths: ModelPaths, labels: Path | None) -> bool:
    found = [path for path in (paths.directory / "assets").glob("*") if path.is_file()]
    return [path.read_bytes() for path in found] == ([] if labels is None else [labels.read_bytes()])


def refuse_other_labels(paths: ModelPaths, custom: CustomCheckpoint | None) -> None:
    """Refuse a class list that is given to check a custom model, if it is not the model's own.

    Raises:
        UsageError: it is another.
    """
    if custom is None or custom.labels is None or not paths.directory.is_dir():
        return
    if not _has_labels(paths, custom.labels):
        raise UsageError(
            f"--labels {custom.labels} is not the class list of {paths.directory}: leave it out, or convert the "
            "model again with it (--overwrite)."
        )
