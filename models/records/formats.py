"""The records of a model in a format beyond TensorFlow: its manifest and its report."""

from models.formats import FORMATS, FormatName
from models.records.manifest import Manifest
from models.records.report import Need, Verdict


class ExportManifest(Manifest):
    """What an exported model is and what it was made from: `handle` is its own name, `flavour` that of its source."""

    format: FormatName
    source_sha256: str
    """Digest of the manifest of the SavedModel that it was written from."""
    runtime_settings: dict[str, str] = {}  # noqa: RUF012 (pydantic copies it)
    """Settings of the runtime that make it compute in float32, as it was checked; not in earlier manifests."""


class ExportReport(Verdict):
    """The verdict on a model in a format beyond TensorFlow.

    Each file is run in its own runtime and compared with the float64 oracle; the names of its checks begin with how its
    weights are stored: `float16 max_relative`. Files of int8 weights are compared with the oracle on those too.
    """

    format: FormatName
    sizes: dict[str, int]
    """Bytes of each file of the model, by name."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """The checks without which nothing is proven."""
        weights = dict.fromkeys(FORMATS[self.format].models.values())
        names = ["files", "interface", *(f"{one} max_relative" for one in weights)]
        if "int8" in weights:
            names += ["int8 weights_steps", "int8 own_weights_relative"]
        if FORMATS[self.format].settings:
            names.append("float32 default_settings_relative")
        return tuple(map(Need, names))
