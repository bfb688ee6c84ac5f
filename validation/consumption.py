"""Run `validation/consumer.py` as its users do: by itself, in a process that has nothing of the project."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from validation.consumer import LIMIT, Outcome

FILE = Path(__file__).with_name("consumer.py").resolve()

LARGE = 8 << 20
"""Bytes of a block that glibc gives back as soon as it is freed; by itself it keeps up to 32 MiB, in each thread."""


def run_consumer(
    directory: Path, *, inputs: Path | None = None, expected: Path | None = None, limit: float = LIMIT,
    python: str = sys.executable, timeout: float = 1800.0,
) -> dict[str, Any]:  # fmt: skip
    """Run this file by itself, with nothing of the project to import, and return what it writes with `--json`.

    `inputs` and `expected` are `.npy` files, `timeout` is in seconds. A crash or a timeout is a failed check.
    """
    given = {"--inputs": inputs, "--expected": expected}
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
