"""Console output: tables, and the progress of long work."""

import json
import os
import sys
import time
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.constrain import Constrain
from rich.progress import BarColumn, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table
from rich.text import Text

from convert.pipeline.process import before_ending
from convert.pipeline.progress import Event, Watch
from models.errors import printable
from models.storage.files import megabytes

WIDE = 160
"""Width in columns of a table that goes to a file or pipe, where no terminal cuts it."""

_SILENCE = 60.0
"""Seconds after which a long piece says on a pipe how far it is."""

_ROOMY = 100
"""Width in columns from which a progress bar is long."""

_SHORT = 16
"""Width in columns below which prose is not squeezed."""


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    prose: Container[str] = (),
    least: Sequence[str] = (),
) -> None:
    """Print a table to standard output, one line per row unless a cell contains prose; nothing if there are no rows.

    Columns that are empty in all rows are left out. On a narrow terminal, columns are dropped rather than names broken;
    a message says which.

    Args:
        title: above the table.
        columns: their names; those that start with '#' contain numbers and are right-aligned.
        rows: the cells of each row.
        prose: names of columns whose cells may be broken between words.
        least: names of columns that are dropped first, in this order; then come the others, from the right, except the
            first, the last and prose.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    every = [
        _Column(name.removeprefix("#"), [row[index] for row in cells], name.startswith("#"), name in prose)
        for index, name in enumerate(columns)
        if any(row[index] for row in cells)
    ]
    order = [column for name in least for column in every if column.name == name]
    order += [column for column in reversed(every[1:-1]) if not (column in order or column.prose)]
    shown, console = list(every), _console()
    if not every:
        return
    if not console.is_terminal:
        console = _console(width=max(WIDE, _width(every, bordered=True)))
    while order and _width(shown, bordered=False) > console.width:
        name = order[0].name  # columns of one name, as of several groups, go together
        order, shown = ([column for column in those if column.name != name] for those in (order, shown))
    if title:
        console.print(printable(title), style="italic", highlight=False, soft_wrap=True)
    if _width(shown, bordered=False) > console.width:  # the terminal breaks lines: what is copied from it is whole
        for row in zip(*(column.cells for column in every), strict=True):
            line = "  ".join("; ".join(cell.split("\n")) for cell in row if cell)
            console.print(line, highlight=False, soft_wrap=True)
        return
    console.print(_table(shown, bordered=_width(shown, bordered=True) <= console.width))
    dropped = dict.fromkeys(column.name for column in every if column not in shown)
    if dropped:
        tell(f"the terminal is too narrow to show: {', '.join(dropped)}")


@dataclass(frozen=True, eq=False)
class _Column:
    """A column of a table that is not empty."""

    name: str
    cells: Sequence[str]
    numeric: bool
    prose: bool

    @property
    def width(self) -> int:
        """The least width: of the longest line or, for prose, of the longest word or a short line."""
        lines = [line for cell in self.cells for line in cell.split("\n")]
        if self.prose:
            lines = [*(word for line in lines for word in line.split()), max(lines, key=cell_len)[:_SHORT]]
        return max(map(cell_len, lines))


def _width(columns: Sequence[_Column], *, bordered: bool) -> int:
    words = [cell_len(column.name if bordered else max(column.name.split() or [""], key=len)) for column in columns]
    needed = sum(max(column.width, word) for column, word in zip(columns, words, strict=True))
    return needed + (3 * len(columns) + 1 if bordered else 2 * (len(columns) - 1))


def _table(columns: Sequence[_Column], *, bordered: bool) -> Table:
    table = Table(
        header_style="bold",
        box=box.HEAVY_HEAD if bordered else None,
        padding=(0, 1) if bordered else (0, 2, 0, 0),
        pad_edge=bordered,
    )
    for column in columns:
        fits = bordered or column.prose or cell_len(column.name) <= column.width
        table.add_column(
            column.name if fits else "\n".join(column.name.split()),
            justify="right" if column.numeric else "left",
            overflow="fold",
            no_wrap=not column.prose,
            min_width=column.width,
        )
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*row)
    return table


def is_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return _console().is_terminal


_documents: list[None] = []


def documents_printed() -> int:
    """Return how many JSON values this process has printed."""
    return len(_documents)


def print_json(value: object) -> None:
    """Print one JSON value to standard output; infinity and NaN, which JSON lacks, become text."""
    _documents.append(None)
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


class _Description(TextColumn):
    """What is done, on one line, cut where the terminal is too narrow."""

    def render(self, task: Task) -> Text:
        """Return the text of a row."""
        text = super().render(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


@dataclass(frozen=True)
class _Rows:
    """Rows that leave room for the `^C` that a terminal echoes behind the last one, which would else begin a line."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[RenderableType]:
        yield Constrain(self.table, max(1, options.max_width - 3))


class _Bars(Bars):
    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield all rows."""
        yield _Rows(self.make_tasks_table(self.tasks))


class _ProgressBar:
    """Progress on standard error: how many pieces are done, and how far each process is."""

    def __init__(self) -> None:
        self._progress: Bars | None = None
        self._all = TaskID(0)
        self._now = dict[int, TaskID]()  # the row of each process
        self._told = dict[int, float]()  # when each last printed a line
        before_ending(self._end)

    def __call__(self, event: Event) -> None:
        text = printable(event.text)
        if event.kind == "began":
            self._begin(event.total)
        elif self._progress is None:
            tell(text)
        elif event.kind == "started":
            self._told[event.worker] = time.monotonic()
            if event.worker not in self._now:
                self._now[event.worker] = self._progress.add_task("", total=None, amount="")
            self._progress.reset(self._now[event.worker], total=None, description=text, visible=True, amount="")
            if not self._progress.console.is_terminal:
                self._print(f"{text} ...")
        elif event.kind == "advanced":
            if event.unit == "bytes":
                amount = f"{megabytes(event.done)} of {megabytes(event.total)}"
            else:
                amount = f"{event.done:,} of {event.total:,} {event.unit}"
            now = self._now[event.worker]
            self._progress.update(now, completed=event.done, total=event.total, amount=amount)
            self._tell_now_and_then(f"  {text}: {amount}" if event.worker else f"  {amount}", event.worker)
        elif event.kind == "finished":
            if event.worker in self._now:
                self._progress.update(self._now[event.worker], visible=False)
            self._progress.update(self._all, completed=event.done, amount=f"{event.done}/{event.total}")
            self._print(text)
        elif event.kind == "noted":
            self._print(text)
        else:
            self._end()

    def _end(self) -> None:
        """Remove the rows from the terminal."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _begin(self, total: int) -> None:
        console = _console(stderr=True)
        columns = (
            SpinnerColumn(),
            _Description("{task.description}", markup=False),
            BarColumn(8 if console.width < _ROOMY else 40),
            TextColumn("{task.fields[amount]}", table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
        )
        # On a pipe the bars would only be noise, so each piece prints a line instead.
        self._progress = _Bars(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._now.clear()
        self._all = self._progress.add_task("all", total=total, amount=f"0/{total}")
        self._progress.start()

    def _tell_now_and_then(self, text: str, worker: int) -> None:
        """On a pipe, print a line for each minute of a long piece."""
        now, on = time.monotonic(), self._progress
        if on is not None and not on.console.is_terminal and now - self._told[worker] >= _SILENCE:
            self._told[worker] = now
            self._print(text)

    def _print(self, text: str) -> None:
        if self._progress is not None and text:
            self._progress.console.print(text, highlight=False, soft_wrap=True)


def progress_bar() -> Watch:
    """Return a function that shows the events of long work on standard error."""
    return _ProgressBar()


def _console(*, stderr: bool = False, width: int | None = None) -> Console:
    """Return a console that prints text literally: `[b]` and `:heart:` in a path are not markup."""
    return Console(stderr=stderr, width=width, markup=False, emoji=False)
