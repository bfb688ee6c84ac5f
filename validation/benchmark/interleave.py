"""Measure sides in turn, so that other load on the machine affects all of them alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from validation.benchmark.records import Tell

Measured = TypeVar("Measured")


@dataclass(frozen=True)
class _Interleaved(Generic[Measured]):
    """The results of each side's runs, and why a side failed, by the side's name."""

    runs: Mapping[str, tuple[Measured, ...]]
    failures: Mapping[str, str]


def run_interleaved(
    sides: Mapping[str, Callable[[], Measured]],
    repeats: int,
    *,
    failing: tuple[type[Exception], ...],
    said: Callable[[Measured], str],
    started: Tell,
    finished: Tell,
) -> _Interleaved[Measured]:
    """Run all sides in turn, `repeats` times; a side that fails is not run again, and its failure is recorded.

    Args:
        sides: functions that run each side once, by name.
        repeats: number of runs of each side.
        failing: the exceptions that count as a side's failure.
        said: returns a run's result in words.
        started: called with the name and number of a run.
        finished: called with the result of a run in words.
    """
    runs: dict[str, list[Measured]] = {name: [] for name in sides}
    failures: dict[str, str] = {}
    for number in range(repeats):
        for name, run_once in sides.items():
            if name in failures:
                continue
            started(f"{name}, run {number + 1} of {repeats}")
            try:
                run = run_once()
                runs[name].append(run)
                finished(f"{name}: {said(run)}")
            except failing as error:
                failures[name] = str(error)
                finished(f"{name}: failed: {error}")
    return _Interleaved({name: tuple(made) for name, made in runs.items()}, failures)
