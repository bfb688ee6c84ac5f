"""The records of a model in a format beyond TensorFlow: its manifest and its report."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from models.errors import MixerError
from models.formats import FORMATS, FormatName, Weights
from models.records.check import Check, Need
from models.records.manifest import MOST_BYTES, Manifest
from models.records.report import Report, Verdict
from models.storage.files import read_small


class ExportManifest(Manifest):
    """What an exported model is and what it was made from: `handle` is its own name, `flavour` that of its source."""

    format: FormatName
    source_sha256: str
    """Digest of the manifest of the SavedModel that it was written from."""
    runtime_settings: dict[str, str] = {}  # noqa: RUF012 (pydantic copies it)
    """Settings of the runtime that make it compute in float32, as it was checked; not in earlier manifests."""


@dataclass(frozen=True)
class ExportedFile:
    """What a report found of one model file, with the check of the worst figure, where there is one.

    Attributes:
        name: of the file.
        weights: how they are stored.
        size: bytes, with the files that belong to it.
        error: the largest difference from the oracle, in float32.
        own_weights: the same, from the oracle on the weights that the file stores; of int8 only.
        default_settings: the same with the runtime's default settings; its detail names dtype and processor. None for
            a runtime that computes in float32 by default.
    """

    name: str
    weights: Weights
    size: int
    error: Check | None
    own_weights: Check | None
    default_settings: Check | None


class ExportReport(Verdict):
    """The verdict on a model in a format beyond TensorFlow.

    Each file is run in its own runtime and compared with the float64 oracle; the names of its checks begin with how its
    weights are stored: `float16 max_relative`. Files of int8 weights are compared with the oracle on those too.
    """

    format: FormatName
    sizes: dict[str, int]
    """Bytes of each file of the model, by name."""

    @property
    def runtime(self) -> str:
        """The runtime that the files were run in, with its version."""
        name = FORMATS[self.format].runtime
        return f"{name} {self.libraries.get(name, 'of unknown version')}"

    @property
    def files(self) -> tuple[ExportedFile, ...]:
        """What was found of each model file."""
        companions = sum(size for name, size in self.sizes.items() if name not in FORMATS[self.format].models)
        return tuple(self._file(name, weights, companions) for name, weights in FORMATS[self.format].models.items())

    def _file(self, name: str, weights: Weights, companions: int) -> ExportedFile:
        kinds = ("max_relative", "own_weights_relative", "default_settings_relative")
        worst = (self.worst(f"{weights} {kind}", f"{name} ") for kind in kinds)
        return ExportedFile(name, weights, self.sizes.get(name, 0) + companions, *worst)

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


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a SavedModel or of an export.

    Raises:
        MixerError: the file is neither.
    """
    return ExportManifest.read(path) if _names_a_format(path) else Manifest.read(path)


def read_report(path: Path) -> Report | ExportReport:
    """Read the report on a SavedModel or on an export.

    Raises:
        MixerError: the file is neither.
    """
    return ExportReport.read(path) if _names_a_format(path) else Report.read(path)


def _names_a_format(path: Path) -> bool:
    """Return whether a record is that of an export; one that cannot be read is judged by whoever reads it."""
    with suppress(OSError, ValueError, MixerError, RecursionError):
        record = json.loads(read_small(path, MOST_BYTES))
        return isinstance(record, dict) and "format" in record
    return False
