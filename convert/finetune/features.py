"""The features of many crops, computed once and kept in a file that an interrupted run goes on with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convert.finetune.pictures import Crop, Reader, padded
from models.progress import Progress

_BYTES = 4  # of a float32


@dataclass(frozen=True)
class FeatureFile:
    """A file of features `[crops, dimension]`, float32, in the order of the crops."""

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
        done = self._done()
        if done == len(crops):
            return
        done = min(done, len(crops)) // batch_size * batch_size
        batches = [crops[start : start + batch_size] for start in range(done, len(crops), batch_size)]
        with self.path.open("ab") as file:
            file.truncate(done * self.dimension * _BYTES)
            for images in reader.batches(batches):
                features = extract(padded(images, batch_size))[: len(images)]
                file.write(features.astype("<f4").tobytes())
                file.flush()
                done += len(images)
                progress(done, len(crops))

    def read(self) -> NDArray[np.float32]:
        """Return the features, mapped from the file."""
        return np.memmap(self.path, "<f4", "r").reshape(-1, self.dimension)

    def _done(self) -> int:
        size = self.path.stat().st_size if self.path.exists() else 0
        return size // (self.dimension * _BYTES)
