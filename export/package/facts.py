"""What a model says of itself: its own `assets.extra/model.json`, read from its directory or its archive."""

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from models.errors import MixerError, shown
from models.records.manifest import MOST_BYTES, Manifest, fault_of
from models.storage.archives import read_file

MODEL_JSON = "assets.extra/model.json"
"""As `export.saved_model.extra_assets` writes it, which brings TensorFlow with it."""

_MOST_OF_LABELS = 1 << 24
"""Bytes of a class list: those of the collection have less than one megabyte."""


class _Facts(BaseModel):
    # A model made by a later release of this project may say more of itself, one by an earlier release less.
    model_config = ConfigDict(frozen=True, extra="ignore")


class _InputFacts(_Facts):
    """The input of a signature; None in `shape` is the batch."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    preprocessing: str


class _OutputFacts(_Facts):
    """The output of a signature; None in `shape` is the batch."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    meaning: str


class SignatureFacts(_Facts):
    """One way into the model."""

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
    """What is read of `model.json`; None for what it does not say."""

    handle: str | None = None
    version: int | None = None
    flavour: _FlavourFacts = _FlavourFacts()
    architecture: str | None = None
    parameters: int | None = None
    input: _ShapeFacts = _ShapeFacts()
    output: _ShapeFacts = _ShapeFacts()
    checkpoint: _CheckpointFacts = _CheckpointFacts()
    signatures: dict[str, SignatureFacts] = {}
    """Models made before there were several have none."""

    @property
    def architecture_name(self) -> str | None:
        """Its name as the catalog has it."""
        return None if self.architecture is None else self.architecture.removeprefix("Mixer ")

    @property
    def image_size(self) -> int | None:
        """Pixels of a side."""
        return self.input.shape[1] if len(self.input.shape) == 4 else None

    @property
    def outputs(self) -> int | None:
        """Numbers for each image."""
        return self.output.shape[-1] if self.output.shape else None


def read_facts(path: Path, manifest: Manifest) -> ModelFacts | None:
    """Return what a model, given as directory or archive, says of itself; None where its manifest lists no such file.

    Raises:
        MixerError: it cannot be read.
    """
    if MODEL_JSON not in manifest.files:
        return None
    content = read_member(path, manifest, MODEL_JSON, most=MOST_BYTES)
    try:
        return ModelFacts.model_validate_json(content)
    except ValidationError as error:
        raise MixerError(f"{path / MODEL_JSON} cannot be read: {fault_of(error)}. Convert the model again.") from error


def class_list(manifest: Manifest) -> str | None:
    """Return the path of the class list within a model."""
    return next((name for name in sorted(manifest.files) if name.startswith("assets/")), None)


def read_member(path: Path, manifest: Manifest, name: str, most: int = _MOST_OF_LABELS) -> bytes:
    """Return a small file of a model, given as directory or archive, if it is the one that its manifest lists.

    Raises:
        MixerError: it is not, or cannot be read.
    """
    listed, called = manifest.files[name], path / shown(name)
    if listed.size > most:
        raise MixerError(f"{called} has {listed.size:,} bytes, by its manifest; expected {most:,} at most.")
    content = (_from_directory if path.is_dir() else read_file)(path, name, listed.size)
    if content is None or hashlib.sha256(content).hexdigest() != listed.sha256:
        raise MixerError(
            f"{called} is {'missing' if content is None else 'not the one that the manifest lists'}: convert the "
            "model again, with --overwrite."
        )
    return content


def _from_directory(path: Path, name: str, most: int) -> bytes | None:
    file = path / name
    try:
        if not file.is_file():
            return None
        with file.open("rb") as opened:
            return opened.read(most + 1)  # of another file no more is read
    except OSError as error:
        raise MixerError(f"{file} cannot be read ({error.strerror}).") from error
