"""Write `assets.extra/` of a SavedModel, for people and programs that have only the SavedModel.

`model.json` contains the facts that do not depend on when and where the model was made; library versions and the commit
are in the manifest instead, so that equal inputs give equal bytes. The weights' licence and citation are added where
they are known. TensorFlow keeps the folder and does not read it (https://www.tensorflow.org/guide/saved_model).
"""

import json
from pathlib import Path
from typing import Any

from export.saved_model.warmup import write_warmup
from models.catalog import LICENSE, Handle
from models.citations import CITATIONS
from models.flavours import FLAVOURS
from models.records.manifest import CheckpointRecord
from models.records.provenance import ROOT
from models.signatures import SERVING_DEFAULT, signatures_of

FOLDER = "assets.extra"


def write_extras(
    directory: Path, handle: Handle, version: int, checkpoint: CheckpointRecord, *, labels: Path | None = None
) -> None:
    """Write `assets.extra/` into the directory of a SavedModel with the class list `labels`.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = directory / FOLDER
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps(_facts(handle, version, checkpoint, labels), indent=1) + "\n")
    write_warmup(folder, handle)
    training = handle.checkpoint.training
    if training.license == LICENSE:
        (folder / "LICENSE").write_bytes((ROOT / "LICENSE").read_bytes())
        (folder / "CITATION.bib").write_text("\n".join(CITATIONS[paper] for paper in training.papers))


def _facts(handle: Handle, version: int, checkpoint: CheckpointRecord, labels: Path | None) -> dict[str, Any]:
    """Return the contents of `model.json`: what a consumer needs to know about a model."""
    architecture, training, flavour = (
        handle.checkpoint.architecture,
        handle.checkpoint.training,
        FLAVOURS[handle.flavour],
    )
    signatures = {signature.name: signature.facts(handle) for signature in signatures_of(handle)}
    default = signatures[SERVING_DEFAULT]
    return {
        "schema_version": 1,
        "handle": handle.name,
        "version": version,
        "flavour": {"name": flavour.name, "what": flavour.what},
        "tensorflow": {"lowest": flavour.lowest, "highest_proven": flavour.highest, "platforms": flavour.platforms},
        "architecture": f"Mixer {architecture.name}",
        "parameters": handle.parameters,
        "trained_on": training.data,
        "method": training.method,
        "input": {**default["input"], "range": [-1, 1]},
        "output": {**default["output"], "classes": f"assets/{labels.name}" if labels else None},
        "signatures": signatures,
        "checkpoint": {"object": checkpoint.object, "sha256": checkpoint.sha256, "origin": checkpoint.origin},
        "license": training.license,
        "papers": list(training.papers),
    }
