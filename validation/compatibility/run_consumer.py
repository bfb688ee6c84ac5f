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

from models.records.report import Check
from models.records.tolerances import TOLERANCES
from validation.consumer import LIMIT, Outcome
from validation.memory import LARGE
from validation.parity.images import Inputs
from validation.parity.outputs import Expected

FILE = Path(__file__).parent.with_name("consumer.py").resolve()


def run_consumer(
    directory: Path, *, inputs: Path | None = None, expected: Path | None = None, scale: Path | None = None,
    limit: float = LIMIT, python: str = sys.executable, timeout: float = 1800.0,
) -> dict[str, Any]:  # fmt: skip
    """Run `consumer.py` alone, without importing anything else of the project, and return what it writes with `--json`.

    `inputs`, `expected` and `scale` are `.npy` files, `timeout` is in seconds. A crash or timeout is a failed check.
    """
    given = {"--inputs": inputs, "--expected": expected, "--scale": scale}
    options = [f"--limit={limit}", *(f"{name}={path.resolve()}" for name, path in given.items() if path is not None)]
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "-I", str(FILE), str(directory.resolve()), *options, "--json=result"]
        env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(LARGE)}
        with Path(folder, "errors").open("w") as errors, contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(command, cwd=folder, env=env, stdout=errors, stderr=errors, timeout=timeout, check=False)
        if not Path(folder, "result").exists():
            outcome = Outcome(f"no result: {Path(folder, 'errors').read_text()[-300:]}", status="failed")
            return {"checks": [{"name": "start", **outcome._asdict()}]}
        return dict(json.loads(Path(folder, "result").read_text()))


def check_consumer(directory: Path, inputs: Inputs, expected: Expected) -> tuple[Check, ...]:
    """Run the consumer on these images, and return its results as checks."""
    with tempfile.TemporaryDirectory() as folder:
        images, outputs, scale = (Path(folder, f"{name}.npy") for name in ("inputs", "expected", "scale"))
        np.save(images, inputs.images)
        np.save(outputs, expected.jax)
        np.save(scale, expected.scale.of)
        result = run_consumer(directory, inputs=images, expected=outputs, scale=scale)
    power = float(expected.scale.power.min())
    outcomes = {one["name"]: Outcome(one["detail"], one["worst"], one["status"]) for one in result["checks"]}
    return tuple(_check(outcome, name, power) for name, outcome in outcomes.items())


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
