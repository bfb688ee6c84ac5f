"""Measure how long models take from process start to first outputs, interleaved; see `startup_probe.py`."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from models.catalog import Handle
from models.errors import MixerError
from validation.benchmark import startup_probe
from validation.benchmark.inference import QUIET
from validation.benchmark.interleave import run_interleaved
from validation.benchmark.records import Start, StartSide, Tell

TIMEOUT = 600.0
"""Seconds that one start may take."""


@dataclass(frozen=True)
class Starter:
    """A SavedModel whose start is timed: the handle in its flavour, and its directory."""

    handle: Handle
    directory: Path

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"start of {self.handle.name}"


def measure_starts(
    starters: Sequence[Starter], repeats: int, *, started: Tell, finished: Tell
) -> tuple[StartSide, ...]:
    """Start all models in turn, `repeats` times; one that fails is not started again, and its failure is recorded."""
    turns = run_interleaved(
        {one.name: partial(_start_once, one) for one in starters},
        repeats,
        failing=(MixerError,),
        said=lambda run: f"{run.total:.1f} s",
        started=started,
        finished=finished,
    )
    return tuple(
        StartSide(
            handle=one.handle.in_flavour("native").name,
            architecture=one.handle.checkpoint.architecture.name,
            flavour=one.handle.flavour,
            runs=turns.runs[one.name],
            failure=turns.failures.get(one.name),
        )
        for one in starters
    )


def _start_once(one: Starter) -> Start:
    """Start a model in a process of its own.

    Raises:
        MixerError: it returns no outputs.
    """
    size = one.handle.checkpoint.architecture.image_size
    file = str(Path(startup_probe.__file__).resolve())
    command = [sys.executable, "-I", file, str(one.directory.resolve()), str(size)]
    begin = time.monotonic()
    try:
        done = subprocess.run(
            [*command, repr(begin)],
            env=os.environ | QUIET, capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        return Start.model_validate_json(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise MixerError(f"{one.directory} gave no outputs within {TIMEOUT:g} s") from error
    except ValueError as error:
        said = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise MixerError(f"{one.directory} gave no outputs (status {done.returncode}): {said[:400]}") from error
