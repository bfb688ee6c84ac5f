"""The handwritten digits of scikit-learn as RGB pictures, divided into those to train on and those held out.

They are the test set of "Optical Recognition of Handwritten Digits" (https://doi.org/10.24432/C50P49), which
scikit-learn ships: 1,797 pictures of 8 x 8 pixels with 17 shades of gray, written by 13 people.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.errors import UsageError
from models.preprocessing import Evaluation
from models.storage.files import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""The class list: the name of each digit, in order."""

HELD_OUT = 1000
"""Number of pictures that are not trained on."""

_SEED = 20210504
_SHIFT, _ANGLE, _ZOOM = 3.0, 0.25, 0.15  # at most: pixels, radians, share of the size
_SHADES = 16
_COLUMNS, _ROWS = 12, 8  # of a drawing
_SCALE = 0.9  # inches of a picture in it


@dataclass(frozen=True)
class Digits:
    """Pictures `[n, size, size, 3]`, uint8, with their labels `[n]`, 0 to 9."""

    pictures: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @classmethod
    def load(cls, image_size: int) -> tuple[Self, Self]:
        """Return the pictures to train on and the `HELD_OUT` others, always divided alike.

        Args:
            image_size: height and width of the pictures in pixels; the 8 x 8 original pixels are interpolated.

        Raises:
            UsageError: scikit-learn is not installed; the message names the extra that installs it.
        """
        if find_spec("sklearn") is None:
            raise UsageError(
                "the digits come with scikit-learn, which this environment does not have: install the extra digits of "
                "this project, for instance `pip install --editable '.[digits]'`."
            )
        from sklearn.datasets import load_digits

        found = load_digits()
        gray = np.round(found.images * (255 / _SHADES)).astype(np.uint8)
        larger = [Image.fromarray(one).resize((image_size, image_size), Image.Resampling.BILINEAR) for one in gray]
        pictures = np.repeat(np.stack([np.asarray(one) for one in larger])[..., np.newaxis], 3, axis=-1)
        order = np.random.default_rng(_SEED).permutation(len(pictures))
        held, trained = order[:HELD_OUT], order[HELD_OUT:]
        labels = found.target.astype(np.int64)
        return cls(pictures[trained], labels[trained]), cls(pictures[held], labels[held])

    def varied(self, copies: int) -> "Digits":
        """Return changed copies of each picture: shifted, turned and zoomed at random, always alike."""
        rng = np.random.default_rng(_SEED)
        changed = [_change(picture, rng) for picture in np.tile(self.pictures, (copies, 1, 1, 1))]
        return Digits(np.stack(changed), np.tile(self.labels, copies))

    def paths(self, directory: Path) -> list[Path]:
        """Return the path of each picture, `<directory>/<class name>/<number>.png`, in order."""
        return [directory / NAMES[label] / f"{number:04}.png" for number, label in enumerate(self.labels)]

    def save(self, directory: Path) -> list[Path]:
        """Write each picture at its path in the directory and return the paths in order.

        A margin is added, which the preprocessing of the paper's evaluation crops again, so that a model sees exactly
        these pixels.
        """
        size = self.pictures.shape[1]
        before = (Evaluation(size).smaller_side - size) // 2
        after = Evaluation(size).smaller_side - size - before
        paths = self.paths(directory)
        for name in NAMES:
            (directory / name).mkdir(parents=True, exist_ok=True)
        for picture, path in zip(self.pictures, paths, strict=True):
            Image.fromarray(np.pad(picture, ((before, after), (before, after), (0, 0)))).save(path)
        return paths

    def draw(self, predicted: Sequence[int], probabilities: Sequence[float], path: Path) -> None:
        """Draw the pictures with their predicted digits as a PNG file: the wrong ones first, in red, then right ones.

        Args:
            predicted: the likeliest class of each.
            probabilities: the probability of that class.
            path: the file to write.

        Raises:
            OSError: the file cannot be written.
        """
        import matplotlib
        from matplotlib.figure import Figure

        right = np.asarray(predicted) == self.labels
        shown = np.argsort(right, kind="stable")[: _COLUMNS * _ROWS]
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            figure = Figure(figsize=(_COLUMNS * _SCALE, (_ROWS + 0.5) * _SCALE * 1.25), dpi=100, layout="constrained")
            figure.suptitle(f"{right.sum():,} of {len(right):,} pictures that were not trained on are right")
            grid = figure.subplots(_ROWS, _COLUMNS)
            for axes, index in zip(grid.flat, shown, strict=False):
                _draw(axes, self.pictures[index], right=bool(right[index]))
                label = "" if right[index] else f", is {self.labels[index]}"
                colour = "black" if right[index] else "red"
                axes.set_title(f"{predicted[index]}{label} ({probabilities[index]:.0%})", fontsize=7, color=colour)
            for axes in grid.flat[len(shown) :]:
                axes.set_axis_off()
            with written_whole(path) as file:
                figure.savefig(file, format="png")


def _change(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Shift, turn and zoom a picture a little; what comes into view is black."""
    down, right = rng.uniform(-_SHIFT, _SHIFT, 2)
    angle, zoom = rng.uniform(-_ANGLE, _ANGLE), rng.uniform(1 - _ZOOM, 1 + _ZOOM)
    cosine, sine = zoom * np.cos(angle), zoom * np.sin(angle)
    middle = picture.shape[0] / 2
    # Pillow maps each place (x, y) of the result to (a x + b y + c, d x + e y + f) of the picture.
    across = (cosine, -sine, middle - middle * (cosine - sine) + right)
    along = (sine, cosine, middle - middle * (sine + cosine) + down)
    image = Image.fromarray(picture)
    changed = image.transform(image.size, Image.Transform.AFFINE, (*across, *along), Image.Resampling.BILINEAR)
    return np.asarray(changed)


def _draw(axes: "Axes", picture: NDArray[np.uint8], *, right: bool) -> None:
    axes.imshow(255 - picture)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("lightgray" if right else "red")
