"""What a run of fine-tuning leaves on the disk, from which the same run resumes after an interruption."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import MixerError
from models.storage.files import CHUNK, sha256_of, written_whole


@dataclass(frozen=True)
class Score:
    """How the model did after a number of steps."""

    step: int
    train_loss: float
    """Mean of the steps since the score before."""
    loss: float
    """Mean over the pictures that are held out, of which `right` of `total` are right."""
    right: int
    total: int

    @property
    def rank(self) -> tuple[int, float]:
        """The larger, the better."""
        return self.right, -self.loss


@dataclass
class State:
    """Where a run is."""

    step: int = 0
    """Steps that are done."""
    scores: list[Score] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last score."""

    @property
    def best(self) -> Score | None:
        """The best score so far, the first of equal ones."""
        return max(self.scores, key=lambda score: score.rank, default=None)

    def has_stalled(self, patience: int | None) -> bool:
        """Return whether the last scores, as many as `patience`, were no better than one before them."""
        if patience is None or self.best is None:
            return False
        return len(self.scores) - 1 - self.scores.index(self.best) >= patience

    def save(self, arrays: Sequence[NDArray[Any]], path: Path) -> None:
        """Write the state, with the values of all variables, at once: an `.npz` with its sha256 (32 bytes) behind it.

        Raises:
            OSError: it cannot be written.
        """
        said = np.frombuffer(json.dumps(asdict(self)).encode(), np.uint8)
        with written_whole(path) as file:
            np.savez(file, allow_pickle=False, state=said, **{str(index): one for index, one in enumerate(arrays)})
            file.flush()
            file.write(bytes.fromhex(sha256_of(Path(file.name))))

    @classmethod
    def read(cls, path: Path) -> tuple["State", list[NDArray[Any]]]:
        """Return a saved state and the values of the variables.

        Raises:
            MixerError: the file is damaged.
        """
        try:
            _check_digest(path)
            with np.load(path, allow_pickle=False) as stored:
                said = json.loads(stored["state"].tobytes())
                arrays = [stored[str(index)] for index in range(len(stored.files) - 1)]
            return cls(said["step"], [Score(**score) for score in said["scores"]], said["losses"]), arrays
        except Exception as error:  # zipfile, zlib, json and NumPy each raise their own types
            raise MixerError(f"{path} is damaged ({error}): start the run again with --overwrite.") from error


def _check_digest(path: Path) -> None:
    with path.open("rb") as file:
        digest, left = hashlib.sha256(), path.stat().st_size - hashlib.sha256().digest_size
        while left > 0 and (chunk := file.read(min(CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
        if file.read() != digest.digest():
            raise ValueError("its sha256 differs from the one at its end")
