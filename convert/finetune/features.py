"""The features of many crops, computed once and kept in a file that an interrupted run goes on with."""

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convert.finetune.pictures import Crop, Reader, padded
from models.progress import Progress
from models.storage.files import naming

_BYTES = 4  # of a float32
_LINE = 65  # bytes of a sha256 in hexadecimal and its newline


@dataclass(frozen=True)
class FeatureFile:
    """A file of features `[crops, dimension]`, float32, in the order of the crops.

    The sha256 of each batch is a line of the file beside it: what was damaged is computed again.
    """

    path: Path
    dimension: int

    def fill(
        self,
        crops: Sequence[Crop],
        extract: Callable[[NDArray[np.float32]], NDArray[np.float32]],
        reader: Reader,
        batch_size: int,
        progress: Progress,
    ) -> None:
        """Compute what the file lacks, in whole batches, so that it is the same after any interruption.

        Args:
            crops: all of them.
            extract: images `[batch, size, size, 3]` -> features `[batch, dimension]`.
            reader: reads the crops.
            batch_size: crops that are computed at a time.
            progress: called with the crops done and in all.

        Raises:
            PictureError: a picture cannot be read.
            OSError: the file cannot be written.
        """
        done = self._intact(batch_size)
        if done == len(crops):
            return
        whole = min(done, len(crops)) // batch_size
        done = whole * batch_size
        batches = [crops[start : start + batch_size] for start in range(done, len(crops), batch_size)]
        with naming(self.path), self.path.open("ab") as file, self._digests.open("ab") as digests:
            file.truncate(done * self.dimension * _BYTES)
            digests.truncate(whole * _LINE)
            for images in reader.batches(batches):
                block = extract(padded(images, batch_size))[: len(images)].astype("<f4").tobytes()
                for content, to in ((block, file), (f"{hashlib.sha256(block).hexdigest()}\n".encode(), digests)):
                    to.write(content)
                    to.flush()
                done += len(images)
                progress(done, len(crops))

    def read(self) -> NDArray[np.float32]:
        """Return the features, mapped from the file."""
        return np.memmap(self.path, "<f4", "r").reshape(-1, self.dimension)

    @property
    def _digests(self) -> Path:
        return self.path.with_suffix(".sha256")

    def _intact(self, batch_size: int) -> int:
        """Return the number of crops up to the first batch that is missing or damaged."""
        if not (self.path.exists() and self._digests.exists()):
            return 0
        size, done = self.dimension * _BYTES, 0
        with self.path.open("rb") as file, self._digests.open("rb") as digests:
            for line in itertools.takewhile(lambda line: len(line) == _LINE, digests):
                block = file.read(batch_size * size)
                if hashlib.sha256(block).hexdigest() != line.strip().decode(errors="replace"):
                    break
                done += len(block) // size
        return done
