"""What the page shows of exports: a row for each file, with the figures of its report."""

from collections.abc import Iterator, Sequence
from urllib.parse import quote

from markupsafe import Markup

from models.errors import printable
from models.formats import FORMATS
from models.records.check import Check
from validation.views.cells import NOTHING, Cell, Row, Table, figure_of, linked
from validation.views.handle import badge
from validation.views.model_records import ExportRecords

_COLUMNS = (
    "Export", "Verdict", "#Error", "#Limit", "#On its own weights", "#With default settings", "Computed in",
    "Runtime", "Settings", "#MB", "Version",
)  # fmt: skip


def exports_table(exports: Sequence[ExportRecords]) -> Table:
    """Return the exports in a directory, each file with its figures."""
    caption = "Exports: largest difference from the float64 oracle, over the scale of the image's outputs"
    rows = tuple(row for export in exports for row in _rows(export))
    return Table(caption, _COLUMNS, rows).without_empty_columns()


def _rows(export: ExportRecords) -> Iterator[Row]:
    version = str(export.paths.version)
    name = linked(f"{quote(f'{export.name}/{export.paths.stem}')}/", export.name)
    if export.report is None:
        yield (name, badge(export.status), *[NOTHING] * (len(_COLUMNS) - 3), version)
        return
    settings = FORMATS[export.report.format].settings
    for file in export.report.files:
        default = file.default_settings
        yield (
            Markup("{}<br><code>{}</code>").format(name, printable(file.name)),
            badge(export.status),
            *_figures(file.error),
            _figures(file.own_weights)[0],
            _figures(default)[0],
            default.detail if default else NOTHING,
            export.report.runtime,
            ", ".join(f"{key}={value}" for key, value in settings.items()) or NOTHING,
            Cell(f"{file.size / 1e6:,.1f}", file.size),
            version,
        )


def _figures(check: Check | None) -> tuple[Cell, Cell]:
    measured, limit = (check.measured, check.limit) if check else (None, None)
    return Cell(figure_of(measured), measured), Cell(figure_of(limit), limit)
