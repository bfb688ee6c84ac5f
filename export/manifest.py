"""The manifest: what a SavedModel is, what it was made from, and the digest of each of its files."""

import hashlib
from pathlib import Path

from models.catalog import Handle
from models.errors import MixerError
from models.paths import ModelPaths
from models.provenance import git_state, library_versions, pipeline_version, sources_sha256
from models.records import MOST_FILES, CheckpointRecord, FileDigest, Manifest

PIPELINE_PACKAGES = ("models", "convert", "export")

CHUNK = 1 << 22
"""Bytes hashed at once: `hashlib.file_digest` takes so few that another busy thread of Python's would hold it up."""

_CIRCUMSTANCES = ("files", "git_commit", "git_dirty")
"""Fields that do not decide what is written."""


def describe(
    handle: Handle,
    checkpoint: CheckpointRecord,
    *,
    version: int,
    platforms: tuple[str, ...],
    directory: Path | None = None,
) -> Manifest:
    """Return the manifest of a model made here and now; without `directory` as it would be, with no files listed."""
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
        pipeline_sha256=sources_sha256(*PIPELINE_PACKAGES),
        git_commit=commit,
        git_dirty=dirty,
    )


def digest_files(directory: Path, most: int | None = None) -> dict[str, FileDigest]:
    """Return size and sha256 of every file below a directory, by relative POSIX path.

    Raises:
        MixerError: they have more than `most` bytes together, or there are more than `MOST_FILES`; none is read then.
    """
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    size = sum(path.stat().st_size for path in files)
    if most is not None and (size > most or len(files) > MOST_FILES):
        raise MixerError(f"{directory} has {len(files):,} files of {size:,} bytes, more than a model of its manifest")
    return {path.relative_to(directory).as_posix(): _digest(path) for path in files}


def _digest(path: Path) -> FileDigest:
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return FileDigest(sha256=digest.hexdigest(), size=size)


def find_differences(manifest: Manifest, directory: Path) -> list[str]:
    """Say how the files below a directory differ from what the manifest lists; empty where they do not."""
    found = digest_files(directory)
    missing = [f"{name} is missing" for name in manifest.files.keys() - found.keys()]
    unexpected = [f"{name} is not in the manifest" for name in found.keys() - manifest.files.keys()]
    changed = [
        f"{name} has other contents than the manifest says"
        for name in manifest.files.keys() & found.keys()
        if manifest.files[name] != found[name]
    ]
    return sorted([*missing, *unexpected, *changed])


def is_current(destination: ModelPaths, expected: Manifest) -> bool:
    """Tell whether what stands at the destination is, file by file, what would be made there now."""
    try:
        manifest = Manifest.read(destination.manifest)
    except MixerError:
        return False
    same = _decisive(manifest) == _decisive(expected)
    return same and destination.directory.is_dir() and not find_differences(manifest, destination.directory)


def _decisive(manifest: Manifest) -> dict[str, object]:
    # Where the checkpoint was read from does not matter either: its sha256 is compared.
    fields = manifest.model_dump(exclude=set(_CIRCUMSTANCES))
    fields["checkpoint"] = {name: value for name, value in fields["checkpoint"].items() if name != "url"}
    return fields
