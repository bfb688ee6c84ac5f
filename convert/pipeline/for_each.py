"""Do many pieces of work; if one fails, the others go on."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from convert.pipeline.progress import Steps, Watch
from models.errors import MixerError, reason_of

_LOG = logging.getLogger(__name__)

Done = TypeVar("Done")


@dataclass(frozen=True)
class Failure:
    """Why a piece of work failed."""

    reason: str


@dataclass(frozen=True)
class Problem:
    """Which piece of work failed, and why."""

    handle: str
    reason: str

    def __str__(self) -> str:
        """Return both on one line."""
        return f"{self.handle}: {self.reason}"

    def as_json(self, key: str = "handle") -> dict[str, object]:
        """Return an entry for a list of results in JSON; each result in it has `problems` too, empty."""
        return {key: self.handle, "problems": [self.reason]}


def attempt(work: Callable[[], Done]) -> Done | Failure:
    """Do one piece of work; an exception ends that piece only. Its traceback goes to the log, which --debug shows."""
    try:
        return work()
    except Exception as error:
        _LOG.debug("failed", exc_info=True)
        return Failure(reason_of(error))


def for_each(
    names: Sequence[str], work: Callable[[str, Steps], Done], watch: Watch | None = None
) -> tuple[list[Done], list[Problem]]:
    """Do the work for each name; return the results, and the name and reason of each failure."""
    done, problems = [], []
    with Steps(watch, len(names)) as on:
        for name in names:
            found = attempt(lambda name=name: work(name, on))  # type: ignore[misc]
            if isinstance(found, Failure):
                problems.append(Problem(name, found.reason))
                on.finish(f"{name}: failed")
            else:
                done.append(found)
                on.finish(f"{name}: done")
    return done, problems


def raise_problems(problems: Sequence[Problem], total: int) -> None:
    """Raise an error that lists what failed, if anything did.

    Raises:
        MixerError: something failed.
    """
    if problems:
        raise MixerError("\n".join((f"{len(problems)} of {total} handles failed.", *map(str, problems))))
