"""Make the manifest: what a SavedModel is, what it was made from, and the digest of each of its files."""

from pathlib import Path

from models.catalog import Handle
from models.errors import MixerError
from models.records.contents import compare_files, digest_files
from models.records.layout import ModelPaths
from models.records.manifest import CheckpointRecord, Manifest
from models.records.provenance import PIPELINE_SOURCES, git_state, library_versions, pipeline_version, sources_sha256

_CIRCUMSTANCES = ("files", "git_commit", "git_dirty")
"""Fields that do not affect what is written."""


def describe(
    handle: Handle,
    checkpoint: CheckpointRecord,
    *,
    version: int,
    platforms: tuple[str, ...],
    directory: Path | None = None,
) -> Manifest:
    """Return the manifest of a model made here and now; without `directory`, the expected one, with no files listed."""
    commit, dirty = git_state()
    return Manifest(
        handle=handle.name,
        version=version,
        flavour=handle.flavour,
        head=handle.head,
        architecture=handle.checkpoint.architecture.name,
        image_size=handle.checkpoint.architecture.image_size,
        num_classes=handle.num_classes,
        parameters=handle.parameters,
        platforms=platforms,
        checkpoint=checkpoint,
        files={} if directory is None else digest_files(directory),
        libraries=library_versions(),
        pipeline=pipeline_version(),
        pipeline_sha256=sources_sha256(*PIPELINE_SOURCES),
        git_commit=commit,
        git_dirty=dirty,
    )


def is_current(destination: ModelPaths, expected: Manifest) -> bool:
    """Return whether the model at the destination is, file by file, the one that would be made there now."""
    try:
        manifest = Manifest.read(destination.manifest)
    except MixerError:
        return False
    same = _decisive(manifest) == _decisive(expected)
    return (
        same
        and destination.directory.is_dir()
        and not compare_files(manifest.files, digest_files(destination.directory))
    )


def _decisive(manifest: Manifest) -> dict[str, object]:
    # It does not matter where the checkpoint was read from either: its sha256 is compared.
    fields = manifest.model_dump(exclude=set(_CIRCUMSTANCES))
    fields["checkpoint"] = {name: value for name, value in fields["checkpoint"].items() if name != "url"}
    return fields
