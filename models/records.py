"""The two records that stand beside a SavedModel: the manifest (what it is) and the report (whether it is right).

`convert` writes `<version>.manifest.json` once; `validate` writes `<version>.report.json`, bound to that manifest by
its sha256. Neither holds a time of day: the same inputs give the same bytes.
"""

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from models.catalog import Flavour
from models.errors import MixerError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file through a temporary sibling, so that a reader sees the old content or the new."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class Record(BaseModel):
    """What every record is: read strictly, never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    def to_bytes(self) -> bytes:
        """Return the record as it stands on disk: indented JSON, UTF-8."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record from its file.

        Raises:
            MixerError: the file is not such a record.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise MixerError(f"{path} is not a readable {cls.__name__.lower()} of schema 1: {error}") from error


class FileDigest(Record):
    """One file: `sha256` in hexadecimal, `size` in bytes."""

    sha256: str
    size: int


class CheckpointRecord(Record):
    """The checkpoint that a model was made from."""

    name: str
    object: str
    url: str
    sha256: str
    size: int
    origin: Literal["original", "seeded", "unknown", "own"]


class Manifest(Record):
    """What a SavedModel is and what it was made from."""

    schema_version: Literal[1] = 1
    handle: str
    version: int
    flavour: Flavour
    head: Literal["classification", "fe"]
    architecture: str
    image_size: int
    num_classes: int | None
    parameters: int
    platforms: tuple[str, ...]
    checkpoint: CheckpointRecord
    files: dict[str, FileDigest]
    """By path relative to the SavedModel's directory, in POSIX form."""
    libraries: dict[str, str]
    pipeline: str
    """Version of this project."""
    pipeline_sha256: str
    """Of the sources that decide what is written (`models`, `convert`, `export`)."""
    git_commit: str | None
    git_dirty: bool | None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


class Tolerance(Record):
    """A limit, with the reason why it is what it is."""

    limit: float
    reason: str


class OracleDistances(Record):
    """The third party of a comparison: how far each side is from the float64 oracle, on the images it was run on."""

    inputs: tuple[str, ...]
    saved_model: float
    """Largest difference over the spread of the image's outputs; the worst image."""
    jax: float
    excess_ulp: float
    """By how much the SavedModel's error exceeds twice JAX's own, in units of the last place of the image's largest
    output; the worst image. Negative where it does not."""


class Comparison(Record):
    """SavedModel against JAX, and both against the oracle, on one batch through one entry."""

    entry: Literal["__call__", "serving_default"]
    batch: int
    inputs: tuple[str, ...]
    max_abs: float
    """Largest absolute difference of an output."""
    max_relative: float
    """The same over the spread (standard deviation) of the image's outputs; the worst image."""
    max_ulp: float
    """The same in units of the last place of the image's largest output; the worst image."""
    cosine_distance: float
    """1 - cosine similarity of the image's outputs; the worst image."""
    top1: float | None
    top5: float | None
    """Share of images whose first class, or set of first five, agrees; None for features."""
    oracle: OracleDistances | None
    """None where the oracle was run on none of the images."""


class VariablesCheck(Record):
    """The model's variables against the checkpoint's arrays, bit for bit."""

    compared: int
    different: tuple[str, ...]


class GradientCheck(Record):
    """Gradients of a fixed loss, TensorFlow against JAX, and one SGD step with them."""

    inputs: tuple[str, ...]
    compared: int
    """Number of variables."""
    missing: tuple[str, ...]
    """Variables without a gradient."""
    worst_variable: str | None
    worst_relative: float
    """Largest difference of a variable's gradient over its largest value (where that is rounding, over the largest
    value of all gradients); the worst variable."""
    input_relative: float
    """The same for the gradient by the images."""
    step_change: float
    """How far one step moves the outputs, over their spread: without movement the next figure says nothing."""
    step_relative: float
    """SavedModel against JAX after the step: largest difference over the spread of the image's outputs."""


class DepthStep(Record):
    """Activations after one step of the model: largest difference from the oracle's, over their standard deviation."""

    name: str
    jax: float
    saved_model: float


class ConsumerCheck(Record):
    """One thing that a user does with the model, in a process without JAX."""

    name: str
    status: Literal["passed", "failed", "absent", "refused", "accepted"]
    detail: str
    worst: float | None


class PublishedVariables(Record):
    """A model's variables against those of an earlier published version, bit for bit.

    One whose name only one variable has, here and there, is compared with that one; the others, whatever they are
    called, with all of the same type and shape.
    """

    count: int
    published: int
    """Number of the published version's."""
    same_name: int
    """How many were compared by name."""
    equal: int
    """How many have an equal counterpart."""
    different: tuple[str, ...]
    """Names of those that have none."""
    left_over: tuple[str, ...]
    """Those of the published version that are the counterpart of none."""


class PublishedComparison(Record):
    """A model against an earlier published version of its handle; no part of the verdict on the model."""

    name: str
    """Of the directory or archive, without the path to it."""
    kind: Literal["directory", "archive"]
    sha256: str
    """Of the archive, or of the directory's `saved_model.pb`."""
    outputs: Comparison | None
    """Through both models' `serving_default`, with the published version's in the place of JAX's; None where one of
    them did not run."""
    signatures: tuple[str, ...] | None
    """What differs; None where one of the models could not be read."""
    variables: PublishedVariables | None
    """None where one of the models could not be read."""
    differences: tuple[str, ...]
    """Everything, in words; empty if and only if the verdict is `same`."""
    verdict: Literal["same", "different"]
    """Whether outputs are within the tolerances of the report, signatures the same and variables equal."""


class Report(Record):
    """The verdict on a SavedModel and the figures behind it."""

    schema_version: Literal[1] = 1
    handle: str
    version: int
    flavour: Flavour
    origin: Literal["original", "seeded", "unknown", "own"]
    manifest_sha256: str
    inputs_set: Literal["gate", "full"]
    inputs_sha256: str
    comparisons: tuple[Comparison, ...]
    variables: VariablesCheck
    gradients: GradientCheck | None
    """None in the gate set."""
    fine_tunable: bool | None
    """Whether every variable has JAX's gradient and a step with it does what it does in JAX; None where not tried."""
    depth: tuple[DepthStep, ...]
    """Where along the depth JAX and the SavedModel's apply function leave the oracle; empty in the gate set."""
    consumer: tuple[ConsumerCheck, ...]
    """Empty in the gate set."""
    reference: PublishedComparison | None
    """None where no earlier version was given to compare with."""
    not_checked: tuple[str, ...]
    """What this report says nothing of."""
    tolerances: dict[str, Tolerance]
    problems: tuple[str, ...]
    """Empty if and only if the verdict is `passed`."""
    verdict: Literal["passed", "failed"]
    libraries: dict[str, str]
    validator_sha256: str
    """Of the sources that decide the verdict (`models`, `validation`)."""

    @property
    def worst_relative(self) -> float | None:
        """The worst `max_relative` of all comparisons; None where nothing could be compared."""
        return max((comparison.max_relative for comparison in self.comparisons), default=None)
