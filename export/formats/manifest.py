"""Make the manifest of a model in LiteRT, ONNX or OpenVINO."""

import hashlib
from pathlib import Path

from models.formats import FORMATS, FormatName
from models.records.contents import digest_files
from models.records.formats import ExportManifest
from models.records.manifest import Manifest
from models.records.provenance import EXPORT_SOURCES, git_state, library_versions, pipeline_version, sources_sha256


def describe_export(name: FormatName, handle: str, source: bytes, directory: Path) -> ExportManifest:
    """Return the manifest of an export made here and now.

    Args:
        name: the format.
        handle: the export's own name.
        source: the bytes of the manifest file of the SavedModel that it was written from.
        directory: where its files are.
    """
    commit, dirty = git_state()
    fields = Manifest.model_validate_json(source).model_dump() | {
        "handle": handle,
        "platforms": (),  # its runtime decides
        "files": digest_files(directory),
        "libraries": library_versions() | FORMATS[name].versions(),
        "pipeline": pipeline_version(),
        "pipeline_sha256": sources_sha256(*EXPORT_SOURCES),
        "git_commit": commit,
        "git_dirty": dirty,
    }
    digest = hashlib.sha256(source).hexdigest()
    return ExportManifest(**fields, format=name, source_sha256=digest, runtime_settings=FORMATS[name].settings)
