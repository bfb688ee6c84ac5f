"""The inputs of the checks as the page shows them: the picture, and the first five classes of both sides."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from models.errors import printable
from validation.views.cells import figure_of
from validation.views.model_records import ModelRecords

FIRST = 5
_QUALITY = 80


@dataclass(frozen=True)
class _Ranked:
    """A class at one rank, and its logit, in words."""

    name: str
    logit: str


@dataclass
class Album:
    """The pictures of a page, each kept once however many models were run on it."""

    _ids: dict[bytes, str] = field(default_factory=dict)
    _addresses: list[Markup] = field(default_factory=list)

    def add(self, pixels: NDArray[np.uint8]) -> str:
        """Return the id of a picture `[side, side, 3]`, which is added if it is new."""
        key = repr(pixels.shape).encode() + pixels.tobytes()
        if key not in self._ids:
            self._ids[key] = f"input-{len(self._ids)}"
            self._addresses.append(_address(pixels))
        return self._ids[key]

    @property
    def pictures(self) -> list[tuple[str, Markup]]:
        """The ids, each with its picture as a `data:` address."""
        return list(zip(self._ids.values(), self._addresses, strict=True))


@dataclass(frozen=True)
class Input:
    """An image, and the first classes that each side gives it, best first."""

    name: str
    picture: str
    """Its id in the album."""
    ranks: tuple[tuple[_Ranked, _Ranked], ...]
    """JAX's and the SavedModel's class at each rank."""

    @classmethod
    def all_of(cls, model: ModelRecords, album: Album) -> list[Self]:
        """Return the inputs of a classifier whose outputs were saved; none of a feature extractor."""
        saved, classes = model.evidence, model.classes
        if saved is None or model.handle is None or model.handle.head != "classification":
            return []
        return [
            cls(name, album.add(pixels), tuple(zip(_first(jax, classes), _first(ours, classes), strict=True)))
            for name, pixels, jax, ours in zip(saved.names, saved.images, saved.jax, saved.saved_model, strict=True)
        ]

    @property
    def is_photograph(self) -> bool:
        """Whether it was read from a file, and not generated."""
        return "." in self.name


def _first(logits: NDArray[np.float32], classes: tuple[str, ...]) -> Iterator[_Ranked]:
    for index in np.argsort(-logits, kind="stable")[:FIRST]:
        name = classes[index].partition(",")[0] if index < len(classes) else ""
        yield _Ranked(printable(name) or f"class {index}", figure_of(float(logits[index]), digits=5))


def _address(pixels: NDArray[np.uint8]) -> Markup:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "WEBP", quality=_QUALITY)
    return Markup("data:image/webp;base64,") + base64.b64encode(content.getvalue()).decode()
