"""Record a measured accuracy beside the manifest of the SavedModel that was measured."""

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from convert.pipeline.accuracy import AccuracyResult, Measured
from convert.pipeline.contenders import Contender
from export.install import held
from models.errors import MixerError, UsageError, printable
from models.preprocessing import Protocol
from models.records.accuracy import AccuracyRecord, Measurement
from models.records.contents import refuse_changed
from models.records.layout import ModelPaths
from models.records.manifest import Manifest
from models.records.provenance import library_versions
from models.storage.files import write_atomically
from validation.accuracy.counts import Share


@dataclass(frozen=True)
class Recordable:
    """The SavedModels whose accuracy may be recorded: each was found to be the one of its manifest."""

    manifests: Mapping[Path, str]
    """The sha256 of the manifest of each, by its directory."""

    @classmethod
    def of(cls, contenders: Sequence[Contender], *, labels: Path | None) -> Self:
        """Return what may be recorded, after comparing the files of each SavedModel with its manifest.

        Raises:
            UsageError: none has a manifest, or another class list than the model's own is given.
            MixerError: the files of one differ from its manifest, or its earlier record cannot be read.
        """
        if labels is not None:
            raise UsageError("--record takes the model's own class list: leave out --labels.")
        found = {}
        for paths in (one.paths for one in contenders):
            if paths is not None:
                found[paths.directory] = _checked(paths)
                _earlier(paths)
        if not found:
            raise UsageError("--record needs a SavedModel with its manifest beside it: name one below --out.")
        return cls(found)

    def record(self, result: AccuracyResult, protocol: Protocol) -> list[Path]:
        """Record the accuracy of each SavedModel beside its manifest, and return the files.

        Raises:
            MixerError: a SavedModel changed meanwhile, or pictures occur with different labels.
        """
        if result.contradictions:
            raise MixerError(f"the accuracy is not recorded: {result.contradictions[0]}.")
        written = []
        for one in result.measured:
            if one.paths is not None and (sha256 := self.manifests.get(one.paths.directory)) is not None:
                with held(one.paths):
                    if _checked(one.paths) != sha256:
                        raise MixerError(
                            f"{one.paths.directory} was replaced while it was measured: nothing is recorded."
                        )
                    record = _record(one.paths, result, one, protocol, sha256)
                    write_atomically(one.paths.accuracy, record.to_bytes())
                written.append(one.paths.accuracy)
        return written


def _checked(paths: ModelPaths) -> str:
    manifest = paths.manifest.read_bytes()
    listed = Manifest.parse(manifest, paths.manifest).files
    again = "Its accuracy is not recorded, as it is not the model of its manifest: convert it again (--overwrite)."
    refuse_changed(paths.directory, listed, paths.manifest, again, strict=True)
    return hashlib.sha256(manifest).hexdigest()


def _earlier(paths: ModelPaths) -> AccuracyRecord | None:
    """Return what is recorded beside a manifest, to which a measurement is added; None if nothing is."""
    if not paths.accuracy.is_file():
        return None
    try:
        return AccuracyRecord.read(paths.accuracy)
    except MixerError as error:
        raise MixerError(
            f"{error} Nothing can be added to it: delete it, with what it records, and measure again."
        ) from error


def _record(
    paths: ModelPaths, result: AccuracyResult, measured: Measured, protocol: Protocol, sha256: str
) -> AccuracyRecord:
    within, handle = measured.within_subset, Manifest.read(paths.manifest).handle
    data = printable(result.dataset.directory.absolute().name)
    real = ["--real", "real.json"] if result.dataset.real else []
    measurement = Measurement(
        data=result.dataset.layout,
        data_sha256=result.data_sha256,
        protocol=protocol,
        command=shlex.join(["mixer-jax2tf", "accuracy", handle, "--data", data, *real, "--protocol", protocol]),
        pictures=len(measured.answers),
        not_decoded=len(result.problems),
        top1=Share.of(measured.answers, 1).right,
        top5=Share.of(measured.answers, 5).right,
        subset_top1=None if within is None else Share.of(within, 1).right,
        subset_top5=None if within is None else Share.of(within, 5).right,
        remarks=tuple(map(printable, result.remarks)),
        libraries=library_versions(),
    )
    earlier = _earlier(paths)
    if earlier is not None and earlier.manifest_sha256 == sha256:
        return earlier.adding(measurement)
    return AccuracyRecord(handle=handle, version=paths.version, manifest_sha256=sha256, measurements=(measurement,))
