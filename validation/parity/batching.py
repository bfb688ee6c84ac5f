"""Check that the outputs of an image do not depend on the other images in its batch."""

from collections.abc import Iterator, Sequence

import numpy as np

from models.records.check import Check
from models.records.tolerances import TOLERANCES
from validation.parity.outputs import Expected, Outputs, limited

_NAME = "batch_relative"


def check_batching(batches: Sequence[tuple[Sequence[str], Outputs]], expected: Expected) -> Iterator[Check]:
    """Yield a check of how much an image's outputs differ between batches; nothing if no image was in two batches.

    Args:
        batches: the names of the images of each batch, and their outputs `[n, k]`, float32.
        expected: the names of all images and the scale of their outputs.
    """
    found: dict[str, list[Outputs]] = {}
    for names, outputs in batches:
        for name, row in zip(names, outputs, strict=True):
            found.setdefault(name, []).append(row)
    repeated = [name for name, rows in found.items() if len(rows) > 1]
    if not repeated:
        return
    scale = expected.scale[np.array([expected.names.index(name) for name in repeated])]
    worst = float((np.array([_apart(found[name]) for name in repeated]) / scale.of).max())
    on = f"{', '.join(repeated)} in different batches"
    yield limited(_NAME, on, worst, TOLERANCES[_NAME].limit, power=float(scale.power.min()))


def _apart(rows: Sequence[Outputs]) -> float:
    values = np.asarray(rows, np.float64)
    return float(np.ptp(values, axis=0).max()) if np.isfinite(values).all() else float("inf")
