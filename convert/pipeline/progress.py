"""The events by which the pipeline reports its progress, for a terminal, a log or a caller's function."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Self

from models.progress import Progress


@dataclass(frozen=True)
class Event:
    """An event of long-running work.

    Work consists of pieces. It begins with their number, works on one piece at a time, or on one in each of several
    processes, and finishes them one by one.
    """

    kind: Literal["began", "started", "advanced", "finished", "noted", "ended"]
    """Work began; a step of a piece started, or advanced; a piece finished; a message; work ended."""
    text: str = ""
    done: int = 0
    """Pieces of the work, or bytes (or another unit) of the step."""
    total: int = 0
    """Number of all pieces, or all bytes of the step."""
    unit: str = "bytes"
    """What `done` and `total` of a step count."""
    worker: int = 0
    """Which of several processes works on the step or finished the piece, from 1; 0 if there is one."""


Watch = Callable[[Event], None]
"""Called with each event, in the process that asked for the work."""


class Steps:
    """Reports the steps of one piece of work after another, of `total` pieces; a `with` block is all of the work."""

    def __init__(self, watch: Watch | None, total: int) -> None:
        self._watch: Watch = watch or (lambda event: None)
        self._done, self._total = 0, total

    def __enter__(self) -> Self:
        self._watch(Event("began", total=self._total))
        return self

    def __exit__(self, *_: object) -> None:
        self._watch(Event("ended"))

    def start(self, text: str, unit: str = "bytes") -> Progress:
        """Report that a step starts; the returned function takes its bytes (or another unit) done and in all."""
        self._watch(Event("started", text))
        return lambda done, total: self._watch(Event("advanced", text, done, total, unit))

    def forward(self, event: Event, worker: int) -> None:
        """Report an event of a process, by its number from 1."""
        self._watch(replace(event, worker=worker))

    def finish(self, text: str, worker: int = 0) -> None:
        """Count one piece as done, and report its result, and which of several processes finished it."""
        self._done += 1
        self._watch(Event("finished", text, self._done, self._total, worker=worker))

    def note(self, text: str) -> None:
        """Report a message, without counting a piece."""
        self._watch(Event("noted", text))
