"""Read a model's own description, `assets.extra/model.json`, from its directory or its archive."""

import hashlib
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from models.errors import MixerError, shown
from models.records.manifest import MOST_BYTES, Manifest, fault_of
from models.signatures import MODEL_JSON
from models.storage.archives import read_file

_MOST_OF_LABELS = 1 << 24
"""Bytes of a class list; those of the collection have less than one megabyte."""


class _Facts(BaseModel):
    # Later releases of this project may write more fields, and earlier ones wrote fewer.
    model_config = ConfigDict(frozen=True, extra="ignore")


class _TensorFacts(_Facts):
    """The input or output of a signature; None in `shape` is the batch dimension."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def __str__(self) -> str:
        """Return name, dtype and shape: `inputs: float32 [batch, 224, 224, 3]`."""
        return f"{self.name}: {self.dtype} [{', '.join('batch' if size is None else str(size) for size in self.shape)}]"


class _InputFacts(_TensorFacts):
    preprocessing: str


class _OutputFacts(_TensorFacts):
    meaning: str


class SignatureFacts(_Facts):
    """The input and output of a signature."""

    input: _InputFacts
    output: _OutputFacts


class _FlavourFacts(_Facts):
    name: str | None = None


class _ShapeFacts(_Facts):
    shape: tuple[int | None, ...] = ()
    classes: str | None = None
    """The path of the class list within the model."""


class _CheckpointFacts(_Facts):
    object: str | None = None
    sha256: str | None = None
    origin: str | None = None


class ModelFacts(_Facts):
    """The fields that are read from `model.json`; None where it has no such field."""

    handle: str | None = None
    version: int | None = None
    flavour: _FlavourFacts = _FlavourFacts()
    architecture: str | None = None
    parameters: int | None = None
    input: _ShapeFacts = _ShapeFacts()
    output: _ShapeFacts = _ShapeFacts()
    checkpoint: _CheckpointFacts = _CheckpointFacts()
    signatures: dict[str, SignatureFacts] = {}
    """Empty for models made before there were several."""

    @classmethod
    def read(cls, path: Path, manifest: Manifest) -> Self | None:
        """Read the facts of a model, given as directory or archive; None where its manifest lists no `model.json`.

        Raises:
            MixerError: the file cannot be read.
        """
        if MODEL_JSON not in manifest.files:
            return None
        content = read_member(path, manifest, MODEL_JSON, most=MOST_BYTES)
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise MixerError(
                f"{path / MODEL_JSON} cannot be read: {fault_of(error)}. Convert the model again."
            ) from error

    @property
    def architecture_name(self) -> str | None:
        """The architecture's name in the catalog."""
        return None if self.architecture is None else self.architecture.removeprefix("Mixer ")

    @property
    def image_size(self) -> int | None:
        """Height and width of the input in pixels."""
        return self.input.shape[1] if len(self.input.shape) == 4 else None

    @property
    def outputs(self) -> int | None:
        """The number of outputs for each image."""
        return self.output.shape[-1] if self.output.shape else None


def read_member(path: Path, manifest: Manifest, name: str, most: int = _MOST_OF_LABELS) -> bytes:
    """Return the contents of a small file of a model, given as directory or archive.

    Raises:
        MixerError: the file is not the one that the manifest lists, or cannot be read.
    """
    listed, called = manifest.files[name], path / shown(name)
    if listed.size > most:
        raise MixerError(f"{called} has {listed.size:,} bytes, according to its manifest; expected {most:,} at most.")
    content = (_from_directory if path.is_dir() else read_file)(path, name, listed.size)
    if content is None or hashlib.sha256(content).hexdigest() != listed.sha256:
        raise MixerError(
            f"{called} is {'missing' if content is None else 'not the file that the manifest lists'}: convert the "
            "model again, with --overwrite."
        )
    return content


def _from_directory(path: Path, name: str, most: int) -> bytes | None:
    file = path / name
    try:
        if not file.is_file():
            return None
        with file.open("rb") as opened:
            return opened.read(most + 1)  # no more, if it is another file
    except OSError as error:
        raise MixerError(f"{file} cannot be read ({error.strerror}).") from error
