"""Golden outputs: eight numbers a handle, from the float64 oracle, on fixed images and seeded checkpoints.

They stand in `golden.json`, so that a change in any library shows, even one that JAX, TensorFlow and the oracle of
the day share. A change of the file is a change of what the models compute, and needs a reason; it is written again by

    .venv/bin/python tests/golden.py build/demo/checkpoints

from the checkpoints of `make demo`, which are made where they are missing.
"""

import json
import math
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

from convert.checkpoints.synthetic import write_seeded
from models.catalog import HANDLES, SQUARE_HANDLES, TESTING_HANDLES, Checkpoint, Handle
from models.digests import DigestTable
from models.records.tolerances import TOLERANCES
from models.storage.files import write_atomically
from validation.parity.images import Inputs
from validation.parity.oracle import OracleOutputs

FILE = Path(__file__).with_name("golden.json")
IMAGES = ("noise", "blank", "binary noise", "checkerboard")
"""Those that NumPy alone makes: neither a photograph nor TensorFlow's way to resize one is in them."""
TINY_HANDLES = TESTING_HANDLES | SQUARE_HANDLES
DIGITS = 10
"""Significant ones that are written: more would depend on the machine, fewer would not tell float32 apart."""


@dataclass(frozen=True)
class Golden:
    """What a handle gives, by image and by index of the output, and the image's standard deviation of all outputs."""

    checkpoint_sha256: str
    inputs_sha256: str
    outputs: dict[str, dict[str, float]]
    spread: dict[str, float]


def read() -> dict[str, Golden]:
    """Return the golden outputs by handle."""
    return {handle: Golden(**one) for handle, one in json.loads(FILE.read_text(encoding="utf-8")).items()}


@cache
def inputs(image_size: int) -> Inputs:
    """Return the images."""
    every = Inputs.full(image_size)
    return Inputs(IMAGES, every.images[[every.names.index(name) for name in IMAGES]])


def compute(checkpoint: Checkpoint, path: Path) -> dict[str, Golden]:
    """Return the golden outputs of both handles of a seeded checkpoint, by handle."""
    entry = DigestTable.read().find(checkpoint.object, "seeded")
    given = inputs(checkpoint.architecture.image_size)
    truth = OracleOutputs.compute(path, given.images)
    made = {}
    for handle in (one for one in (HANDLES | TINY_HANDLES).values() if one.checkpoint == checkpoint):
        outputs = truth.logits if handle.head == "classification" else truth.features
        rows = dict(zip(IMAGES, outputs, strict=True))
        made[handle.name] = Golden(
            checkpoint_sha256=entry.sha256,
            inputs_sha256=given.sha256,
            outputs={name: {str(at): _rounded(row[at]) for at in places(handle)} for name, row in rows.items()},
            spread={name: _rounded(row.std()) for name, row in rows.items()},
        )
    return made


def places(handle: Handle) -> tuple[int, int]:
    """Return which two outputs of an image are golden: at a third and at two."""
    return handle.outputs // 3, 2 * handle.outputs // 3


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS - 1}e}")


def problems(golden: Golden, handle: Handle, outputs: np.ndarray) -> list[str]:
    """Return where outputs `[images, n]` of a model leave the golden ones by more than the tolerance of parity.

    Over their spread, which the scale of parity is for these seeded heads of many outputs.
    """
    limit = TOLERANCES["max_relative"].limit
    found = []
    for name, row in zip(IMAGES, outputs, strict=True):
        for at, expected in golden.outputs[name].items():
            off = abs(float(row[int(at)]) - expected) / golden.spread[name]
            if not off <= limit:  # NaN included
                found.append(
                    f"{handle.name}, {name}, output {at}: {row[int(at)]:.9g}, golden {expected:.9g}; {off:.1e} of the "
                    f"spread, allowed {limit:g}"
                )
    return found


def stale(golden: Mapping[str, Golden]) -> list[str]:
    """Return what golden outputs no longer belong to: other checkpoints or images, other handles or places."""
    table, found = DigestTable.read(), []
    handles = HANDLES | TINY_HANDLES
    if golden.keys() != handles.keys():
        found.append(f"golden handles differ from the catalog's: {sorted(golden.keys() ^ handles.keys())}")
    for name in golden.keys() & handles.keys():
        handle, one = handles[name], golden[name]
        entry = table.find(handle.checkpoint.object, "seeded")
        size = handle.checkpoint.architecture.image_size
        if entry is None or one.checkpoint_sha256 != entry.sha256:
            found.append(f"{name}: another checkpoint than the seeded one that models/digests.json records")
        if one.inputs_sha256 != inputs(size).sha256:
            found.append(f"{name}: other images than those that validation/parity/images.py makes")
        if {tuple(map(int, row)) for row in one.outputs.values()} != {places(handle)} or tuple(one.outputs) != IMAGES:
            found.append(f"{name}: other outputs than those that were chosen")
        if not all(math.isfinite(value) for row in one.outputs.values() for value in row.values()):
            found.append(f"{name}: not finite")
    return sorted(found)


def write(seeds: Path) -> None:
    """Compute all golden outputs and write them; a seeded checkpoint that is missing in `seeds` is made there."""
    made: dict[str, Golden] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for checkpoint in dict.fromkeys(handle.checkpoint for handle in (HANDLES | TINY_HANDLES).values()):
            path = write_seeded(checkpoint, Path(scratch) if checkpoint.testing else seeds)
            made |= compute(checkpoint, path)
            print(f"{checkpoint.name}: {len(made)} handles", file=sys.stderr)  # noqa: T201
    text = json.dumps({name: asdict(one) for name, one in made.items()}, indent=1)
    write_atomically(FILE, text.encode() + b"\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
