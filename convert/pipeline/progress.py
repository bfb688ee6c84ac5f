"""What the pipeline reports while it works: events, for a terminal, a log or a caller's function to show."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from models.progress import Progress


@dataclass(frozen=True)
class Event:
    """Something that happened in long work.

    Work is made of pieces. It begins with their number, has one piece in hand at a time, and finishes piece by piece.
    """

    kind: Literal["began", "started", "advanced", "finished", "noted", "ended"]
    """Work began; a step of a piece started, or advanced; a piece finished; something worth a line; work ended."""
    text: str = ""
    done: int = 0
    """Pieces of the work, or bytes of the step."""
    total: int = 0
    """Of the same."""


Watch = Callable[[Event], None]
"""Called with each event, in the process that the work was asked for in."""


class Steps:
    """Reports the steps of one piece of work after another."""

    def __init__(self, watch: Watch | None, total: int) -> None:
        self._watch: Watch = watch or (lambda event: None)
        self._done, self._total = 0, total

    def start(self, text: str) -> Progress:
        """Say which step is in hand now; the returned function takes its bytes done and in all."""
        self._watch(Event("started", text))
        return lambda done, total: self._watch(Event("advanced", text, done, total))

    def finish(self, text: str) -> None:
        """Count one piece as done, and say what became of it."""
        self._done += 1
        self._watch(Event("finished", text, self._done, self._total))

    def note(self, text: str) -> None:
        """Say something worth a line, and count nothing."""
        self._watch(Event("noted", text))


@contextmanager
def steps(watch: Watch | None, total: int) -> Iterator[Steps]:
    """Report work of `total` pieces for as long as the block runs."""
    on = Steps(watch, total)
    if watch is None:
        yield on
        return
    watch(Event("began", total=total))
    try:
        yield on
    finally:
        watch(Event("ended"))
