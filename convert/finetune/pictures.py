"""The pictures of fine-tuning: which are held out, in which order they are trained on, and how each is cropped.

All that is random follows from a seed and a number (of a step, an epoch, a picture), so that a run that was
interrupted goes on as if it had not been.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from models.picture_files import PictureError, read_picture
from models.progress import Progress

if TYPE_CHECKING:
    from models.pictures import Pixels

_SMALLEST_AREA = 0.05
"""Least share of a picture that a random crop takes, as in the collection's notebook and in big_vision."""
_MOST_NAMED = 20


@dataclass(frozen=True)
class Labelled:
    """Paths of pictures with their class indices."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def split(self, share: float, seed: int) -> tuple["Labelled", "Labelled"]:
        """Return the pictures to train on and, at random, a share of each class that is held out.

        Of a class with several pictures at least one is held out; of a class with one, none.
        """
        rng = np.random.default_rng(seed)
        held: set[int] = set()
        classes: dict[int, list[int]] = {}
        for index, label in enumerate(self.labels):
            classes.setdefault(label, []).append(index)
        for _, members in sorted(classes.items()):
            count = min(max(1, round(share * len(members))), len(members) - 1)
            held.update(rng.permutation(members)[:count].tolist())
        train = [index for index in range(len(self)) if index not in held]
        return self.chosen(train), self.chosen(sorted(held))

    def chosen(self, indices: Sequence[int]) -> "Labelled":
        """Return the pictures at these indices."""
        return Labelled(tuple(self.paths[index] for index in indices), tuple(self.labels[index] for index in indices))

    def batch(self, step: int, size: int, seed: int) -> list[tuple[int, int]]:
        """Return index and epoch of each picture of a step: all of an epoch in a random order, then of the next."""
        places = (divmod(step * size + place, len(self)) for place in range(size))
        return [(int(_order(len(self), seed, epoch)[place]), epoch) for epoch, place in places]


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(count)


@dataclass(frozen=True)
class Crop:
    """A part of a picture, resized to a model's input; the picture is never turned by its EXIF orientation."""

    path: Path
    seed: tuple[int, int] | None = None
    """Of a random crop, equal for equal seeds; None for the central crop of the paper's evaluation."""

    def read(self, image_size: int) -> NDArray[np.float32]:
        """Return the image `[image_size, image_size, 3]`, in [-1, 1].

        A random crop (https://arxiv.org/abs/1409.4842, section 6) takes 5 to 100 % of the area at an aspect ratio of
        3:4 to 4:3, and is resized (bilinear, no antialias) and, in half of all cases, mirrored.

        Raises:
            PictureError: the picture cannot be read; the message names it.
        """
        from models.pictures import decode, preprocess

        try:
            pixels = decode(read_picture(self.path), exif=False)
            if self.seed is None:
                return preprocess(pixels, "paper", image_size)
        except PictureError as error:
            raise PictureError(f"{self.path}: {error}") from error
        return _random_crop(pixels, image_size, self.seed)


def _random_crop(pixels: "Pixels", image_size: int, seed: tuple[int, int]) -> NDArray[np.float32]:
    import tensorflow as tf

    from models.resize import scale

    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        pixels.shape,
        tf.zeros([1, 0, 4]),
        seed,
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(_SMALLEST_AREA, 1.0),
        use_image_if_no_bounding_boxes=True,
    )
    resized = tf.image.resize(tf.slice(pixels, begin, size), (image_size, image_size), antialias=False)
    images: NDArray[np.float32] = scale(tf.image.stateless_random_flip_left_right(resized, seed)).numpy()
    return images


def padded(inputs: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Return a batch `[n, ...]` of at most `size` inputs with its first one repeated to `size`.

    A model is compiled for each size of a batch, so the last one of a run gets the size of the others.
    """
    return np.concatenate([inputs, np.repeat(inputs[:1], size - len(inputs), axis=0)])


class Reader:
    """Reads crops with several threads, the next batch while one is in use."""

    def __init__(self, image_size: int) -> None:
        self._size = image_size
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def batches(self, batches: Iterable[Sequence[Crop]]) -> Iterator[NDArray[np.float32]]:
        """Yield the images `[batch, size, size, 3]` of each batch of crops, in order.

        Raises:
            PictureError: a picture cannot be read.
        """
        waiting = None
        for batch in batches:
            coming = [self._threads.submit(crop.read, self._size) for crop in batch]
            if waiting is not None:
                yield np.stack([one.result() for one in waiting])
            waiting = coming
        if waiting is not None:
            yield np.stack([one.result() for one in waiting])

    def check(self, paths: Sequence[Path], progress: Progress) -> None:
        """Read every picture once.

        Raises:
            PictureError: some cannot be read; the message names them.
        """
        problems = []
        for done, problem in enumerate(self._threads.map(self._problem, paths), 1):
            problems += [problem] if problem else []
            progress(done, len(paths))
        if problems:
            more = f"\n... and {len(problems) - _MOST_NAMED:,} more." if len(problems) > _MOST_NAMED else ""
            said = f"{len(problems):,} of {len(paths):,} pictures cannot be read: repair or remove them."
            raise PictureError("\n".join([said, *problems[:_MOST_NAMED]]) + more)

    def _problem(self, path: Path) -> str | None:
        try:
            Crop(path).read(self._size)
        except PictureError as error:
            return str(error)
        return None
