"""Pieces of HTML: text is escaped unless it is markup already."""

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from models.errors import printable

NOTHING = "\N{EN DASH}"
"""What stands where there is no figure."""


class Markup(str):
    """Text that is HTML already; every other string is plain and gets escaped."""

    __slots__ = ()


def escape(text: str) -> Markup:
    """Return text as HTML, what is not printable in it as in a Python literal; markup stays as it is."""
    return text if isinstance(text, Markup) else Markup(html.escape(printable(text)))


def join(*children: str) -> Markup:
    """Return the children one after the other, each escaped unless it is markup."""
    return Markup("".join(escape(child) for child in children))


def element(name: str, *children: str, **attributes: str | None) -> Markup:
    """Return an element around its children.

    Attributes are given in Python's spelling: `class_`, `aria_label`; those that are None are left out.
    """
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    inside = "".join(f' {key}="{escape(value)}"' for key, value in given.items())
    return Markup(f"<{name}{inside}>{join(*children)}</{name}>")


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and whether it holds numbers, which stand to the right."""

    heading: str
    numeric: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell, with what it is sorted by where that is not its text."""

    content: str
    order: float | None = None


def table(
    caption: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Cell | str]],
    *,
    id_: str | None = None,
) -> Markup:
    """Return a table whose rows start with their heading, in a box of its own that scrolls where it is too wide.

    Args:
        caption: what the table shows.
        columns: the first one holds the rows' headings.
        rows: as many cells as columns.
        id_: of the table.
    """
    headings = (element("th", column.heading, scope="col", class_=_number(column)) for column in columns)
    body = (_row(columns, row) for row in rows)
    parts = [
        element("caption", element("span", caption)),
        element("thead", element("tr", *headings)),
        element("tbody", *body),
    ]
    # Focusable, so that the keyboard can scroll it; a group, for so many regions would drown the page's landmarks.
    return element(
        "div", element("table", *parts, id=id_), class_="scroll", role="group", tabindex="0", aria_label=caption
    )


def _row(columns: Sequence[Column], row: Sequence[Cell | str]) -> Markup:
    cells = [cell if isinstance(cell, Cell) else Cell(cell) for cell in row]
    first, *others = (
        {"class_": _number(column), "data_order": None if cell.order is None else _order(cell.order)}
        for column, cell in zip(columns, cells, strict=True)
    )
    return element(
        "tr",
        element("th", cells[0].content, scope="row", **first),
        *(element("td", cell.content, **attributes) for cell, attributes in zip(cells[1:], others, strict=True)),
    )


def _number(column: Column) -> str | None:
    return "number" if column.numeric else None


def _order(value: float) -> str:
    # JavaScript reads "Infinity"; what is not a number counts as the worst of all.
    return repr(value) if math.isfinite(value) else "Infinity" if not value < 0 else "-Infinity"


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """Return a list of terms and what they are."""
    return element("dl", *(element("div", element("dt", term), element("dd", what)) for term, what in pairs))


def details(summary: str, *children: str) -> Markup:
    """Return a piece that opens on demand."""
    return element("details", element("summary", summary), *children)


def code(text: str) -> Markup:
    """Return text as it stands in a file or a program."""
    return element("code", text)


def link(target: str, text: str) -> Markup:
    """Return a link to a place of the page or to a page of the web; anything else stays text."""
    return element("a", text, href=target) if target.startswith(("#", "https://")) else escape(text)


def figure_of(value: float | None) -> str:
    """Return a measured number with three digits, NaN and infinity in words, a dash for None."""
    if value is None:
        return NOTHING
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    return f"{value:.3g}"


def share(value: float | None) -> str:
    """Return a share in percent, a dash for None."""
    return (
        figure_of(value)
        if value is None or not math.isfinite(value)
        else f"{value:.3g} %"
        if value < 1000
        else "> 1000 %"
    )
