"""Pictures that even random features tell apart: three colours, with noise."""

import numpy as np
from PIL import Image

COLOURS = {"red": (230, 30, 30), "green": (30, 230, 30), "blue": (30, 30, 230)}
EACH = 12
"""Pictures of a colour."""


def write_colours(folder):
    """Write `<folder>/<colour>/<number>.png`, always alike."""
    rng = np.random.default_rng(5)
    for name, colour in COLOURS.items():
        (folder / name).mkdir()
        for number in range(EACH):
            noise = rng.integers(-25, 25, (40, 48, 3))
            Image.fromarray(np.uint8(noise + colour)).save(folder / name / f"{number}.png")
    return folder
