"""Console output: tables, and the progress of long work."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from convert.pipeline.progress import Event, Watch
from models.errors import printable
from models.storage.files import megabytes

WIDE = 160
"""Width in columns of a table that goes to a file or pipe, where no terminal cuts it."""


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table to standard output; columns whose name starts with '#' contain numbers and are right-aligned."""
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
    """Print one JSON value to standard output; infinity and NaN, which JSON lacks, become text."""
    strict = json.loads(json.dumps(value), parse_constant=str)
    sys.stdout.write(json.dumps(strict, indent=1) + "\n")


def tell(message: str) -> None:
    """Print one line to standard error."""
    _console(stderr=True).print(printable(message), highlight=False, soft_wrap=True)


def add_to_job_summary(markdown: str) -> None:
    """Append Markdown to the summary of a GitHub job, if this runs in one."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if path:
        with Path(path).open("a", encoding="utf-8") as summary:
            summary.write(markdown)


class _ProgressBar:
    """Progress on standard error: how many pieces are done, and how far the current one is."""

    def __init__(self) -> None:
        self._progress: Bars | None = None
        self._all = self._now = TaskID(0)

    def __call__(self, event: Event) -> None:
        text = printable(event.text)
        if event.kind == "began":
            self._begin(event.total)
        elif self._progress is None:
            tell(text)
        elif event.kind == "started":
            self._progress.reset(self._now, total=None, description=text, visible=True, amount="")
            if not self._progress.console.is_terminal:
                self._print(f"{text} ...")
        elif event.kind == "advanced":
            if event.unit == "bytes":
                amount = f"{megabytes(event.done)} of {megabytes(event.total)}"
            else:
                amount = f"{event.done:,} of {event.total:,} {event.unit}"
            self._progress.update(self._now, completed=event.done, total=event.total, amount=amount)
        elif event.kind == "finished":
            self._progress.update(self._now, visible=False)
            self._progress.update(self._all, completed=event.done, amount=f"{event.done}/{event.total}")
            self._print(text)
        elif event.kind == "noted":
            self._print(text)
        else:
            self._progress.stop()
            self._progress = None

    def _begin(self, total: int) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
        )
        console = _console(stderr=True)
        # On a pipe the bars would only be noise, so each piece prints a line instead.
        self._progress = Bars(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._all = self._progress.add_task("all", total=total, amount=f"0/{total}")
        self._now = self._progress.add_task("", total=None, visible=False, amount="")
        self._progress.start()

    def _print(self, text: str) -> None:
        if self._progress is not None and text:
            self._progress.console.print(text, highlight=False, soft_wrap=True)


def progress_bar() -> Watch:
    """Return a function that shows the events of long work on standard error."""
    return _ProgressBar()


def _console(*, stderr: bool = False, width: int | None = None) -> Console:
    """Return a console that prints text literally: `[b]` and `:heart:` in a path are not markup."""
    return Console(stderr=stderr, width=width, markup=False, emoji=False)
