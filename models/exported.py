"""The records that stand beside a model in a format beyond TensorFlow: its manifest and its report."""

from typing import Literal

from models.formats import FormatName, Weights
from models.records import Manifest, Record, Tolerance


class ExportManifest(Manifest):
    """What an exported model is and what it was made from: `handle` is its own name, the flavour its source's."""

    format: FormatName
    source_sha256: str
    """Of the manifest of the SavedModel that it was written from."""


class ExportComparison(Record):
    """One file in its own runtime against the float64 oracle, on one batch.

    The figures are those of `models.records.Comparison`, with the oracle in the place of JAX.
    """

    file: str
    weights: Weights
    batch: int
    inputs: tuple[str, ...]
    max_abs: float
    max_relative: float
    max_ulp: float
    cosine_distance: float
    top1: float | None
    top5: float | None
    """Shares of images whose first class, or set of first five, agrees; None for features."""
    top1_but_ties: float | None
    """The same of the first class where logits that differ by less than the tolerance `tie` count as equal."""


class ExportReport(Record):
    """The verdict on a model in a format beyond TensorFlow, and the figures behind it."""

    schema_version: Literal[1] = 1
    handle: str
    version: int
    format: FormatName
    origin: Literal["original", "seeded", "unknown", "own"]
    manifest_sha256: str
    inputs_sha256: str
    sizes: dict[str, int]
    """Bytes of each file of the model, by name."""
    comparisons: tuple[ExportComparison, ...]
    tolerances: dict[Weights, dict[str, Tolerance]]
    not_checked: tuple[str, ...]
    """What this report says nothing of."""
    problems: tuple[str, ...]
    """Empty if and only if the verdict is `passed`."""
    verdict: Literal["passed", "failed"]
    libraries: dict[str, str]
    """Those of the format included."""
    validator_sha256: str
    """Of the sources that decide the verdict (`models`, `validation`)."""
