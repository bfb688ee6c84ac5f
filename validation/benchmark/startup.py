"""Measure how long models take from process start to first outputs, interleaved; see `startup_probe.py`."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
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


def measure_starts(
    models: Mapping[Handle, Path], repeats: int, *, started: Tell, finished: Tell
) -> tuple[StartSide, ...]:
    """Start all models in turn, `repeats` times; one that fails is not started again, and its failure is recorded.

    Args:
        models: the directories of the SavedModels, by the handles in their flavours.
        repeats: number of starts of each model.
        started: called with the name and number of a start.
        finished: called with the result of a start in words.
    """
    names = {one: f"start of {one.name}" for one in models}
    turns = run_interleaved(
        {names[one]: partial(_start_once, one, directory) for one, directory in models.items()},
        repeats,
        failing=(MixerError,),
        said=lambda run: f"{run.total:.1f} s",
        started=started,
        finished=finished,
    )
    return tuple(
        StartSide(
            handle=one.in_flavour("native").name,
            architecture=one.checkpoint.architecture.name,
            flavour=one.flavour,
            runs=turns.runs[names[one]],
            failure=turns.failures.get(names[one]),
        )
        for one in models
    )


def _start_once(one: Handle, directory: Path) -> Start:
    """Start a model in a process of its own.

    Raises:
        MixerError: it returns no outputs.
    """
    size = one.checkpoint.architecture.image_size
    file = str(Path(startup_probe.__file__).resolve())
    command = [sys.executable, "-I", file, str(directory.resolve()), str(size)]
    begin = time.monotonic()
    try:
        done = subprocess.run(
            [*command, repr(begin)],
            env=os.environ | QUIET, capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        return Start.model_validate_json(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise MixerError(f"{directory} gave no outputs within {TIMEOUT:g} s") from error
    except ValueError as error:
        said = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise MixerError(f"{directory} gave no outputs (status {done.returncode}): {said[:400]}") from error
