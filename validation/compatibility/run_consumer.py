"""Run `validation/consumer.py` as its users do: alone, in a process that uses nothing else of the project."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from models.records.check import Check, MadeOn
from models.records.layout import ModelPaths
from models.records.tolerances import TOLERANCES
from validation.consumer import CHECKS, LIMIT, OWN, Outcome
from validation.memory import LARGE
from validation.parity.images import Inputs
from validation.parity.outputs import Expected

IMAGES = ("noise", "chelsea.png")
"""Inputs that the consumer is run on; `check_parity` compares the outputs of all."""

FILE = Path(__file__).parent.with_name("consumer.py").resolve()
USES = FILE.with_name("uses.py")


def run_consumer(
    directory: Path, *, inputs: Path | None = None, expected: Path | None = None, scale: Path | None = None,
    limit: float = LIMIT, own: bool = False, uses: bool = False, python: str = sys.executable, timeout: float = 1800.0,
) -> dict[str, Any]:  # fmt: skip
    """Run `consumer.py` alone, without importing anything else of the project, and return what it writes with `--json`.

    `inputs`, `expected` and `scale` are `.npy` files, `timeout` is in seconds; with `own`, only the checks of the
    model's own variables and assets are made, and with `uses`, those of `uses.py` instead of `consumer.py`'s. A crash
    or timeout is a failed check.
    """
    given = {"--inputs": inputs, "--expected": expected, "--scale": scale}
    options = [f"--limit={limit}", *(f"{name}={path.resolve()}" for name, path in given.items() if path is not None)]
    options += ["--own"] * own
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "-I", str(USES if uses else FILE), str(directory.resolve()), *options, "--json=result"]
        env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(LARGE)}
        with Path(folder, "errors").open("w") as errors, contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(command, cwd=folder, env=env, stdout=errors, stderr=errors, timeout=timeout, check=False)
        if not Path(folder, "result").exists():
            outcome = Outcome(f"no result: {Path(folder, 'errors').read_text()[-300:]}", status="failed")
            return {"checks": [{"name": "start", **outcome._asdict()}]}
        return dict(json.loads(Path(folder, "result").read_text()))


OF_THE_GRAPH = tuple(name for name in CHECKS if name not in OWN)
"""The checks that depend on a model's `saved_model.pb` alone."""


def check_consumer(
    model: ModelPaths, inputs: Inputs, expected: Expected, made_on: MadeOn, known: tuple[Check, ...] = ()
) -> tuple[Check, ...]:
    """Run the consumer on some of these images, and return its results as checks.

    Args:
        model: the model.
        inputs: the images.
        expected: their outputs.
        made_on: the model and its graph, for those checks that depend on the graph alone.
        known: these checks, if they were made on another model with the same graph; the consumer then makes the others.
    """
    chosen = np.array([inputs.names.index(name) for name in IMAGES])
    with tempfile.TemporaryDirectory() as folder:
        images, outputs, scale = (Path(folder, f"{name}.npy") for name in ("inputs", "expected", "scale"))
        np.save(images, inputs.images[chosen])
        np.save(outputs, expected.jax[chosen])
        np.save(scale, expected.scale.of[chosen])
        result = run_consumer(model.directory, inputs=images, expected=outputs, scale=scale, own=bool(known))
    power = float(expected.scale.power[chosen].min())
    outcomes = {one["name"]: Outcome(one["detail"], one["worst"], one["status"]) for one in result["checks"]}
    found = (_check(outcome, name, power) for name, outcome in outcomes.items())
    marked = (check.model_copy(update={"made_on": made_on}) if check.on in OF_THE_GRAPH else check for check in found)
    order = {name: index for index, name in enumerate(CHECKS)}
    return tuple(sorted((*marked, *known), key=lambda check: order.get(check.on, -1)))


def _check(outcome: Outcome, name: str, power: float) -> Check:
    """Return a result of the consumer as a check, with the power of the outputs if it compares them."""
    failed = outcome.status == "failed"
    return Check(
        name="consumer",
        on=name,
        measured=outcome.worst,
        limit=None if outcome.worst is None else TOLERANCES["consumer"].limit,
        power=0 if outcome.status == "absent" else None if outcome.worst is None else power,
        problems=(f"consumer: {name}: {outcome.detail}",) if failed else (),
        detail=f"{outcome.status}: {outcome.detail}",
    )
