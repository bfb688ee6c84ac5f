"""Where a model in a format beyond TensorFlow goes, and its manifest."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from export.destination import Destination
from export.manifest import PIPELINE_PACKAGES, digest_files
from models.errors import MixerError, UsageError
from models.exported import ExportManifest
from models.formats import FORMATS, FormatName
from models.provenance import git_state, library_versions, pipeline_version, sources_sha256
from models.records import Manifest


@dataclass(frozen=True)
class ExportDestination(Destination):
    """The paths of one version of one handle in one format: `<out>/<handle>-<format>/<version>` and its siblings."""

    def refuse_foreign(self) -> None:
        """Refuse to replace what is not ours alone: no export, or one with files in it that nobody wrote here.

        Raises:
            UsageError: such a thing stands there.
        """
        if not os.path.lexists(self.directory):
            return
        try:
            listed = ExportManifest.read(self.manifest).files
        except MixerError:
            raise UsageError(
                f"{self.directory} has no manifest of an export beside it, so it is left alone: move it away, or give "
                "another --out."
            ) from None
        found = (path.relative_to(self.directory) for path in self.directory.rglob("*") if path.is_file())
        strange = sorted(path.as_posix() for path in found if path.as_posix() not in listed)
        if strange:
            raise UsageError(
                f"{self.directory} holds files that were not written with it ({', '.join(strange[:5])}), so it is left "
                "alone: move them away, or give another --out."
            )


def describe_export(name: FormatName, handle: str, source: bytes, directory: Path) -> ExportManifest:
    """Return the manifest of an export made here and now.

    Args:
        name: of the format.
        handle: the export's own name.
        source: the manifest of the SavedModel that it was written from, as it stands on disk.
        directory: where its files are.
    """
    commit, dirty = git_state()
    fields = Manifest.model_validate_json(source).model_dump() | {
        "handle": handle,
        "platforms": (),  # those of its runtime
        "files": digest_files(directory),
        "libraries": library_versions() | FORMATS[name].versions(),
        "pipeline": pipeline_version(),
        "pipeline_sha256": sources_sha256(*PIPELINE_PACKAGES),
        "git_commit": commit,
        "git_dirty": dirty,
    }
    return ExportManifest(**fields, format=name, source_sha256=hashlib.sha256(source).hexdigest())
