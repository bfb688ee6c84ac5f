"""What a model file says of itself, for formats that keep such entries: ONNX and OpenVINO IR."""

import json
from pathlib import Path

from models.catalog import GRAPH_SUFFIX
from models.formats import FORMATS, FormatName


def describe_model(name: FormatName, saved_model: Path) -> dict[str, str]:
    """Return the entries of a model that is written from a SavedModel; none if it has no description of itself.

    `labels` is a JSON list, as are the settings of the runtime under which the model was checked, if it needs any.
    """
    description = saved_model / "assets.extra" / "model.json"
    if not description.is_file():
        return {}
    facts = json.loads(description.read_bytes())
    low, high = facts["input"]["range"]
    entries = {
        "name": facts["handle"].removesuffix(GRAPH_SUFFIX),
        "version": str(facts["version"]),
        "architecture": facts["architecture"],
        "input_range": f"{low} to {high}",
        "preprocessing": facts["input"]["preprocessing"],
        "output": facts["output"]["meaning"],
        "license": facts["license"],
        "checkpoint": facts["checkpoint"]["object"],
        "checkpoint_sha256": facts["checkpoint"]["sha256"],
        "checkpoint_origin": facts["checkpoint"]["origin"],
    }
    if (listed := facts["output"].get("classes")) is not None:
        lines = (saved_model / listed).read_text(encoding="utf-8").removesuffix("\n").split("\n")
        entries["labels"] = json.dumps(lines, ensure_ascii=False)
    if FORMATS[name].settings:
        entries["runtime_settings"] = json.dumps(FORMATS[name].settings)
    return entries
