"""The compatibility matrix as tables, for a terminal and for a page of documentation."""

import re
from collections.abc import Iterator, Sequence

from models.flavours import FLAVOURS
from models.markdown import markdown_table
from validation.compatibility.matrix import Cell, Matrix
from validation.consumer import LIMIT
from validation.uses import REMEDIES

_STATUSES = {"passed": "yes", "remedied": "remedy", "absent": "not installed", "refused": "no", "failed": "**failed**"}
"""What the table of uses says, the best first."""


def tabulate(matrix: Matrix) -> tuple[list[str], list[list[str]]]:
    """Return the columns of the table, and one row per release.

    A figure is the largest difference of all models of that flavour and architecture, in brackets if it was not
    promised that they run; `no` means that this was not promised, and that not all of them run.
    """
    kinds = list(dict.fromkeys((cell.flavour, cell.architecture) for row in matrix.rows for cell in row.cells))
    columns = ["TensorFlow", "Python", "NumPy", "Keras", *(f"{flavour}, {size}" for flavour, size in kinds)]
    rows = []
    for row in matrix.rows:
        versions = [row.tensorflow or row.release, row.python or "", row.numpy or "", row.keras or ""]
        found = [[cell for cell in row.cells if (cell.flavour, cell.architecture) == kind] for kind in kinds]
        rows.append([*versions, *("not run" if not row.cells else _summarise(cells) for cells in found)])
    return columns, rows


def _summarise(cells: Sequence[Cell]) -> str:
    if not cells:
        return ""
    if any(cell.problem for cell in cells):
        return "failed"
    if any(cell.failure for cell in cells):
        return "no"
    worst = f"{max(cell.worst or 0.0 for cell in cells):.1e}"
    return worst if all(cell.promised for cell in cells) else f"({worst})"


def markdown_lines(found: Matrix) -> Iterator[str]:
    """Yield the section of COMPATIBILITY.md."""
    columns, rows = tabulate(found)
    yield "<!-- made by: mixer-jax2tf matrix --markdown -->"
    yield ""
    yield f"Measured on {found.date} ({found.platform}, CPU) with seeded checkpoints. A number: every check passed, and"
    yield "this is the largest difference from JAX's outputs, over the scale of an image's outputs (allowed:"
    yield f"{LIMIT:g}); in brackets: the release is outside the flavour's range. No: outside it, and it does not run."
    yield ""
    yield from markdown_table([*columns[:4], *(f"#{column}" for column in columns[4:])], rows).splitlines()
    yield ""
    for kind in FLAVOURS.values():
        yield f"- `{kind.name}`: {kind.what}; TensorFlow {kind.lowest} to {kind.highest}, {kind.platforms}."
    for day, releases in _earlier_days(found).items():
        yield f"- {', '.join(releases)}: measured on {day}"
    for reason, where in _reasons(found).items():
        yield f"- {', '.join(where)}: {reason}"


def uses_in_markdown(found: Matrix) -> Iterator[str]:
    """Yield the section of COMPATIBILITY.md on training, distributing and converting; nothing if none was tried."""
    tried = [row for row in found.rows if any(cell.uses for cell in row.cells)]
    if not tried:
        return
    names = list(dict.fromkeys(use.name for row in tried for cell in row.cells for use in cell.uses))
    yield "<!-- made by: mixer-jax2tf matrix --markdown -->"
    yield ""
    yield f"Tried on {found.date} ({found.platform}, CPU) with tiny models in both flavours, classifier and feature"
    yield "extractor. Remedy: it fails as it is, for reasons of others, and not with the remedy below."
    yield ""
    rows = [[row.tensorflow or row.release, *(_use(row.cells, name) for name in names)] for row in tried]
    yield from markdown_table(["TensorFlow", *names], rows).splitlines()
    yield ""
    for remedy in dict.fromkeys(REMEDIES.values()):
        of = [name for name in names if REMEDIES[name] == remedy]
        if of:
            yield f"- {', '.join(of)}: {remedy}"
    for reason, where in _failed_uses(found).items():
        yield f"- {', '.join(where)}: {reason}"


def _use(cells: Sequence[Cell], name: str) -> str:
    """Return the worst status of a use, for each flavour unless they agree."""
    worst: dict[str, str] = {}
    for cell in cells:
        for use in cell.uses:
            if use.name == name:
                worst[cell.flavour] = max(worst.get(cell.flavour, "passed"), use.status, key=list(_STATUSES).index)
    shown = {flavour: _STATUSES[status] for flavour, status in worst.items()}
    if len(set(shown.values())) <= 1:
        return next(iter(shown.values()), "")
    return ", ".join(f"{flavour}: {status}" for flavour, status in shown.items())


def _failed_uses(found: Matrix) -> dict[str, list[str]]:
    """Return where a use failed even so, by the reason."""
    reasons: dict[str, list[str]] = {}
    for row in found.rows:
        for cell in row.cells:
            for use in cell.uses:
                where = f"{use.name}, {cell.flavour} in {row.tensorflow or row.release}"
                if use.status == "failed" and where not in reasons.setdefault(_gist(use.detail), []):
                    reasons[_gist(use.detail)].append(where)
    return reasons


def _earlier_days(found: Matrix) -> dict[str, list[str]]:
    """Return the releases that were run before the last day, by day."""
    days: dict[str, list[str]] = {}
    for row in found.rows:
        if row.date not in (None, found.date):
            days.setdefault(str(row.date), []).append(row.tensorflow or row.release)
    return dict(sorted(days.items()))


def _reasons(found: Matrix) -> dict[str, list[str]]:
    """Return where something does not run or was not run, by the reason."""
    reasons: dict[str, list[str]] = {}
    for row in found.rows:
        release = row.tensorflow or row.release
        said = [(release, f"not run, {row.not_run or row.broken}")] if row.not_run or row.broken else []
        said += [(f"{cell.flavour} in {release}", _gist(cell.failure)) for cell in row.cells if cell.failure]
        for where, reason in said:
            if where not in reasons.setdefault(reason, []):
                reasons[reason].append(where)
    return reasons


def _gist(failure: str) -> str:
    return f"`{re.split(' in binary running| from Op<', failure)[0][:100]}`"
