"""The preprocessing of images for a Mixer: the range of the pixels, and the evaluation of the paper.

Range: `vit_jax` and `big_vision` both scale RGB to [-1, 1]. Evaluation: `big_vision/configs/mlp_mixer_i1k.py`
(https://github.com/google-research/big_vision) resizes the smaller side to 256, crops 224 from the middle.
"""

from dataclasses import dataclass
from typing import Literal

HALF_RANGE = 127.5
"""Pixels 0 to 255 become `(pixel - 127.5) / 127.5`, so -1 to 1."""

SCALING = "RGB, (pixel - 127.5) / 127.5 of pixels from 0 to 255"


Protocol = Literal["paper", "hub"]
"""`paper`: the paper's evaluation, as in `serving_bytes`; `hub`: the resize of the collection's notebooks."""


@dataclass(frozen=True)
class Evaluation:
    """The evaluation's preprocessing for a model of `image_size`."""

    image_size: int

    @property
    def smaller_side(self) -> int:
        """Pixels of the smaller side before the crop: 256 for 224, in proportion for others."""
        return round(self.image_size * 256 / 224)

    @property
    def what(self) -> str:
        """The steps in words."""
        return (
            f"the smaller side resized to {self.smaller_side} (by area, no antialiasing, values truncated to "
            f"integers), then a central crop of {self.image_size} x {self.image_size}"
        )
