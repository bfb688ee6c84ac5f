"""What lies in `assets.extra/` of a SavedModel, for people and programs that have nothing else of it.

`model.json` carries the stable facts; library versions, the commit and times of day stay outside, in the manifest, so
that equal inputs give equal bytes. Beside it lie the weights' licence and how to cite them, where these are known.
TensorFlow keeps the folder and does not read it (https://www.tensorflow.org/guide/saved_model).
"""

import json
from pathlib import Path
from typing import Any

from models.catalog import LICENSE, Handle
from models.citations import CITATIONS
from models.flavours import FLAVOURS
from models.provenance import ROOT
from models.records import CheckpointRecord

FOLDER = "assets.extra"
PREPROCESSING = "RGB, (pixel - 127.5) / 127.5 of pixels from 0 to 255"


def write_extras(
    directory: Path, handle: Handle, version: int, checkpoint: CheckpointRecord, *, labels: Path | None = None
) -> None:
    """Write `assets.extra/` into the directory of a SavedModel, whose class list is `labels`.

    Raises:
        OSError: it cannot be written.
    """
    folder = directory / FOLDER
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps(facts(handle, version, checkpoint, labels), indent=1) + "\n")
    training = handle.checkpoint.training
    if training.license == LICENSE:
        (folder / "LICENSE").write_bytes((ROOT / "LICENSE").read_bytes())
        (folder / "CITATION.bib").write_text("\n".join(CITATIONS[paper] for paper in training.papers))


def facts(handle: Handle, version: int, checkpoint: CheckpointRecord, labels: Path | None) -> dict[str, Any]:
    """Return what a consumer needs to know of a model, as it stands in `model.json`."""
    architecture, training, flavour = (
        handle.checkpoint.architecture,
        handle.checkpoint.training,
        FLAVOURS[handle.flavour],
    )
    size = architecture.image_size
    classes = handle.head == "classification"
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
        "input": {
            "name": "inputs",
            "shape": [None, size, size, 3],
            "dtype": "float32",
            "range": [-1, 1],
            "preprocessing": PREPROCESSING,
        },
        "output": {
            "name": "output_0",
            "shape": [None, handle.outputs],
            "dtype": "float32",
            "meaning": "logits" if classes else "features: the mean of the tokens after the last norm",
            "classes": f"assets/{labels.name}" if labels else None,
        },
        "checkpoint": {"object": checkpoint.object, "sha256": checkpoint.sha256, "origin": checkpoint.origin},
        "license": training.license,
        "papers": list(training.papers),
    }
