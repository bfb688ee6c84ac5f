"""What a person sees: tables, and progress of long work."""

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from models.errors import UsageError, printable, shown
from models.progress import Progress

WIDE = 160
"""Columns of a table that goes to a file or pipe, where nobody's window cuts it."""

_LONGEST = 4000
"""Characters of a cell or line of Markdown."""

_ENTITIES = str.maketrans({"<": "&lt;", "|": "&#124;", "[": "&#91;"})


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table to standard output; columns whose name starts with '#' hold numbers and stand to the right."""
    table = Table(title=printable(title), title_justify="left", header_style="bold")
    for column in columns:
        numeric = column.startswith("#")
        table.add_column(column.removeprefix("#"), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))
    console = _console()
    if not console.is_terminal:
        console = _console(width=WIDE)
    console.print(table)


def print_json(value: object) -> None:
    """Print one JSON value to standard output; what JSON has no number for (infinity) becomes text."""
    strict = json.loads(json.dumps(value), parse_constant=str)
    sys.stdout.write(json.dumps(strict, indent=1) + "\n")


def megabytes(size: int) -> str:
    """Return a number of bytes in MB (10^6)."""
    return f"{size / 1e6:,.1f} MB"


def tell(message: str) -> None:
    """Print one line to standard error."""
    _console(stderr=True).print(printable(message), highlight=False, soft_wrap=True)


def require_room(out: Path, needed: int, advice: str) -> None:
    """Tell how many bytes are needed in a directory, and how many are free.

    Raises:
        UsageError: more are needed; ends with the advice.
    """
    free = shutil.disk_usage(out).free
    tell(f"{megabytes(needed)} of disk needed in {out}, {megabytes(free)} free")
    if needed > free:
        raise UsageError(f"{out} has {megabytes(free)} free, {megabytes(needed)} are needed: {advice}")


def add_to_job_summary(markdown: str) -> None:
    """Append Markdown to the summary of a GitHub job, where this runs in one."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if path:
        with Path(path).open("a", encoding="utf-8") as summary:
            summary.write(markdown)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; columns as in `print_table`."""
    rule = ["--:" if column.startswith("#") else ":--" for column in columns]
    lines = [[column.removeprefix("#") for column in columns], rule, *([_cell(one) for one in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def markdown_bullets(lines: Iterable[str]) -> str:
    """Return a Markdown list, a line each."""
    return "".join(f"- {_cell(line)}\n" for line in lines)


def _cell(text: str) -> str:
    """Return foreign text as Markdown on one line, in which nothing begins a tag, a link, an image or another cell."""
    return shown(" ".join(text.split()), _LONGEST).translate(_ENTITIES)


class Steps:
    """Progress on standard error: how many pieces are done, and how far the one in hand is."""

    def __init__(self, progress: Bars, total: int) -> None:
        self._progress = progress
        self._done, self._total = 0, total
        self._all: TaskID = progress.add_task("all", total=total, amount=f"0/{total}")
        self._now: TaskID = progress.add_task("", total=None, visible=False, amount="")

    def start(self, text: str) -> Progress:
        """Show what is in hand now; the returned function takes bytes done and bytes in all."""
        text = printable(text)
        self._progress.reset(self._now, total=None, description=text, visible=True, amount="")
        if not self._progress.console.is_terminal:
            self._progress.console.print(f"{text} ...", highlight=False, soft_wrap=True)

        def advance(done: int, total: int) -> None:
            amount = f"{megabytes(done)} of {megabytes(total)}"
            self._progress.update(self._now, completed=done, total=total, amount=amount)

        return advance

    def finish(self, text: str) -> None:
        """Count one piece as done, and leave a line about it."""
        self._done += 1
        self._progress.update(self._now, visible=False)
        self._progress.update(self._all, completed=self._done, amount=f"{self._done}/{self._total}")
        self.note(text)

    def note(self, text: str) -> None:
        """Leave a line, and count nothing."""
        self._progress.console.print(printable(text), highlight=False, soft_wrap=True)


@contextmanager
def steps(total: int) -> Iterator[Steps]:
    """Show progress over `total` pieces for as long as the block runs."""
    console = _console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
    )
    # On a pipe the bars would only be noise: there, each piece leaves its line.
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Steps(progress, total)


@contextmanager
def no_steps() -> Iterator[Steps]:
    """Show nothing: another process shows what is done."""
    with Bars(console=Console(quiet=True), disable=True) as progress:
        yield Steps(progress, 0)


def _console(*, stderr: bool = False, width: int | None = None) -> Console:
    """Return a console that shows text letter by letter: `[b]` and `:heart:` in a path are no markup."""
    return Console(stderr=stderr, width=width, markup=False, emoji=False)
