"""What the tables of the page hold, and numbers in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from models.errors import printable

NOTHING = "\N{EN DASH}"
"""Shown where there is no figure."""


@dataclass(frozen=True)
class Cell:
    """A cell, with the number that it is sorted by where that is not its text."""

    content: str
    order: float | None = None

    @property
    def data_order(self) -> str:
        """The number as JavaScript reads it; what is not a number counts as the worst of all."""
        value = math.nan if self.order is None else self.order
        return repr(value) if math.isfinite(value) else "Infinity" if not value < 0 else "-Infinity"


Row = Sequence[Cell | str]


@dataclass(frozen=True)
class Table:
    """A table whose rows begin with their heading; columns whose name begins with '#' hold numbers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def without_empty_columns(self) -> "Table":
        """Return it without the columns that have nothing in any row."""
        rows = [[cell if isinstance(cell, str) else cell.content for cell in row] for row in self.rows]
        kept = [at for at in range(len(self.columns)) if any(row[at] != NOTHING for row in rows)] or [0]
        columns = tuple(self.columns[at] for at in kept)
        return replace(self, columns=columns, rows=tuple(tuple(row[at] for at in kept) for row in self.rows))


def linked(address: str, name: str) -> Markup:
    """Return a link with a name that may be broken after an underscore, where a screen is narrow."""
    parts = Markup("_<wbr>").join(printable(name).split("_"))
    return Markup('<a href="{}">{}</a>').format(address, parts)


def figure_of(value: float | None, *, digits: int = 3) -> str:
    """Return a measured number with so many digits, NaN and infinity in words, a dash for None."""
    if value is None:
        return NOTHING
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    return f"{value:.{digits}g}"


def share(value: float | None) -> str:
    """Return a share in percent, a dash for None."""
    if value is None or not math.isfinite(value):
        return figure_of(value)
    return f"{value:.3g} %" if value < 1000 else "> 1000 %"
