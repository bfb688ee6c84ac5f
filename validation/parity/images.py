"""Inputs of the parity checks: generated images and photographs, always the same."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from models.errors import MixerError

Images = NDArray[np.float32]

NOISE_SEED = 20210504
GATE_PHOTOGRAPHS = ("chelsea.png", "coffee.png")
PHOTOGRAPHS = (*GATE_PHOTOGRAPHS, "astronaut.png", "rocket.jpg")
"""A cat, a cup, an astronaut, a rocket; `photographs/README.md` names their sources and licences."""

_FOLDER = Path(__file__).parent / "photographs"


@dataclass(frozen=True)
class Inputs:
    """Named images `[n, size, size, 3]`, float32, in [-1, 1]."""

    names: tuple[str, ...]
    images: Images

    @classmethod
    def gate(cls, image_size: int) -> "Inputs":
        """Return the inputs of the gate set: noise, a blank image and two photographs.

        The blank image is zero throughout: its tokens are the stem's bias, whose variance is so small that the epsilon
        of the first layer norms changes the outputs.
        """
        drawn = {"noise": _noise(image_size, 0), "blank": np.zeros((image_size, image_size, 3), np.float32)}
        return _inputs(drawn | _photographs(GATE_PHOTOGRAPHS, image_size))

    @classmethod
    def full(cls, image_size: int) -> "Inputs":
        """Return the inputs of the full set except the near tie, which depends on the checkpoint.

        Those of the gate set come first; then more noise (only -1 and 1), the constants -1 and 1, a checkerboard of
        single pixels, one hot pixel on black, and more photographs.
        """
        grid = np.indices((image_size, image_size)).sum(axis=0)[..., np.newaxis] % 2
        black = np.full((image_size, image_size, 3), -1, np.float32)
        hot = black.copy()
        hot[image_size // 3, image_size // 2] = 1
        drawn = {
            "binary noise": np.sign(_noise(image_size, 1)),
            "black": black,
            "white": -black,
            "checkerboard": np.broadcast_to(grid * 2 - 1, black.shape).astype(np.float32),
            "hot pixel": hot,
        }
        return cls.gate(image_size) + _inputs(drawn | _photographs(PHOTOGRAPHS[2:], image_size))

    @property
    def sha256(self) -> str:
        """Digest of names, shape and values."""
        head = repr((self.names, self.images.shape)).encode()
        return hashlib.sha256(head + np.ascontiguousarray(self.images, "<f4").tobytes()).hexdigest()

    def __add__(self, other: "Inputs") -> "Inputs":
        """Return the images of both, in order."""
        return Inputs(self.names + other.names, np.concatenate([self.images, other.images]))


def _inputs(images: dict[str, Images]) -> Inputs:
    return Inputs(tuple(images), np.stack(list(images.values())))


def _noise(image_size: int, number: int) -> Images:
    generator = np.random.default_rng(NOISE_SEED + number)
    return generator.uniform(-1, 1, (image_size, image_size, 3)).astype(np.float32)


def _photographs(names: tuple[str, ...], image_size: int) -> dict[str, Images]:
    return {name: _preprocess(_read_photograph(name), image_size) for name in names}


def _read_photograph(name: str) -> NDArray[np.uint8]:
    """Return a photograph as RGB `[height, width, 3]`, uint8.

    Raises:
        MixerError: its file is missing.
    """
    path = _FOLDER / name
    if not path.is_file():
        raise MixerError(f"the photograph {path} is missing: restore it (git checkout).")
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _preprocess(pixels: NDArray[np.uint8], image_size: int) -> Images:
    """Resize as the collection does (bilinear, no antialias, aspect ignored) and scale to [-1, 1]."""
    resized: Images = tf.image.resize(pixels, (image_size, image_size), method="bilinear", antialias=False).numpy()
    return (resized - np.float32(127.5)) / np.float32(127.5)
