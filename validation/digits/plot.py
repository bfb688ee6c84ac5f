"""A picture of what a model finds in the held-out digits, for people."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.storage.files import written_whole
from validation.digits.pictures import Digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS, _ROWS = 12, 8
_SCALE = 0.9  # inches of a picture


def draw_predictions(digits: Digits, predicted: Sequence[int], probabilities: Sequence[float], path: Path) -> None:
    """Draw pictures with their predicted digits as a PNG file: the wrong ones first, in red, then right ones.

    Args:
        digits: the pictures and their labels.
        predicted: the likeliest class of each.
        probabilities: the probability of that class.
        path: the file to write.

    Raises:
        OSError: the file cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    right = np.asarray(predicted) == digits.labels
    shown = np.argsort(right, kind="stable")[: _COLUMNS * _ROWS]
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = Figure(figsize=(_COLUMNS * _SCALE, (_ROWS + 0.5) * _SCALE * 1.25), dpi=100, layout="constrained")
        figure.suptitle(f"{right.sum():,} of {len(right):,} pictures that were not trained on are right")
        grid = figure.subplots(_ROWS, _COLUMNS)
        for axes, index in zip(grid.flat, shown, strict=False):
            _draw(axes, digits.pictures[index], right=bool(right[index]))
            label = "" if right[index] else f", is {digits.labels[index]}"
            colour = "black" if right[index] else "red"
            axes.set_title(f"{predicted[index]}{label} ({probabilities[index]:.0%})", fontsize=7, color=colour)
        for axes in grid.flat[len(shown) :]:
            axes.set_axis_off()
        with written_whole(path) as file:
            figure.savefig(file, format="png")


def _draw(axes: "Axes", picture: NDArray[np.uint8], *, right: bool) -> None:
    axes.imshow(255 - picture)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("lightgray" if right else "red")
