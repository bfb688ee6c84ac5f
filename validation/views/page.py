"""The page that a person looks at: `<out>/index.html`, made of the records beside the models, by Jinja2 templates."""

import base64
import functools
import hashlib
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from models.catalog import GRAPH_SUFFIX, HANDLES, Handle
from models.errors import counted, printable
from models.records.report import ZERO_HEAD, Report
from models.selection import is_catalogued
from models.storage.files import write_atomically
from models.storage.temporary import locked
from validation.views.cells import NOTHING, Cell, Table, figure_of, linked, share
from validation.views.exports import exports_table
from validation.views.handle import ORIGINS, HandleView, badge, project
from validation.views.inputs import Album, Input
from validation.views.model_records import ExportRecords, ModelRecords, Status, read_all
from validation.views.plots import Margin, Picture, draw_margins

TEMPLATE = Path(__file__).with_suffix(".html")


def write_page(out: Path) -> Path | None:
    """Write `<out>/index.html` about all models and exports in `out`, one self-contained file, and return its path.

    Whatever is damaged is named on the page; the same records give the same bytes, which are not written again. One
    process writes it at a time, so that none replaces a later page by one of earlier records. Return None, and write
    nothing, if nothing is in `out`, and no page either.

    Raises:
        OSError: it cannot be written.
    """
    path = out / "index.html"
    with locked(path.with_name(f".{path.name}.lock"), bool, needed=False):
        models, exports = read_all(out)
        if not (models or exports or path.is_file()):
            return None
        content = _render(models, exports).encode()
        if not path.is_file() or path.read_bytes() != content:
            write_atomically(path, content)
    return path


def _render(models: Sequence[ModelRecords], exports: Sequence[ExportRecords]) -> str:
    album, anchors = Album(), _anchors([model.name for model in models])
    views = [HandleView(*of_one, Input.all_of(of_one[0], album)) for of_one in zip(models, anchors, strict=True)]
    statuses = Counter(model.status for model in models)
    origins = Counter(model.manifest.checkpoint.origin for model in models if model.manifest)
    return (
        _environment()
        .get_template(TEMPLATE.name)
        .render(
            policy=_policy(TEMPLATE.read_text(encoding="utf-8")),
            title="Mixers in TensorFlow",
            views=views,
            account=", ".join(f"{statuses[status]} {status}" for status in get_args(Status) if statuses[status]),
            full=sum(model.report is not None and model.report.inputs_set == "full" for model in models),
            void=statuses["void"],
            origins=origins.most_common(),
            made=list(_made([*models, *exports])),
            missing=_missing({model.name for model in models}),
            overview=_overview(views),
            margins=_margins(models),
            exports=exports_table(exports),
            export_reasons=[(one.name, reason) for one in exports for reason in one.problems],
            album=album.pictures,
        )
    )


def _made(records: Sequence[ModelRecords | ExportRecords]) -> Iterator[tuple[str, str]]:
    """Yield what made and checked the models, each value once, and when."""
    manifests = [one.manifest for one in records if one.manifest]
    reports = [one.report for one in records if one.report]
    values: dict[str, Sequence[str]] = {
        "Project": [Markup(" or ").join(dict.fromkeys(project(manifest, letters=12) for manifest in manifests))],
        "Made with": _all_versions(manifest.libraries for manifest in manifests),
        "Checked with": _all_versions(report.libraries for report in reports),
        "Newest record": [f"{max(one.day for one in records)} (UTC)"] if records else [],
    }
    yield from ((term, Markup(", ").join(found)) for term, found in values.items() if any(found))


def _all_versions(records: Iterable[Mapping[str, str]]) -> list[str]:
    """Return each library with all its versions in these records."""
    found: dict[str, dict[str, None]] = {}
    for name, version in (pair for record in records for pair in record.items()):
        found.setdefault(name, {})[version] = None
    return [f"{name} {' or '.join(map(printable, known))}" for name, known in found.items()]


def _missing(names: Container[str]) -> list[str]:
    """Return the twelve handles that are not there, if any of them is."""
    missing = [name for name in HANDLES if not (name in names or f"{name}{GRAPH_SUFFIX}" in names)]
    return missing if len(missing) < len(HANDLES) else []


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_shown,
    )
    environment.globals.update(
        badge=badge, meanings=ORIGINS, zero_head=ZERO_HEAD, counted=counted, files=_files, folded=_folded
    )
    return environment


def _shown(value: Any) -> Any:  # noqa: ANN401 (whatever a template holds)
    """Return foreign text with what is not printable escaped; markup and numbers as they are."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _files(records: ModelRecords) -> list[tuple[str, str]]:
    """Return names and relative addresses of the files beside a model, and of its folder."""
    paths = records.paths
    found = {
        "manifest": paths.manifest,
        "report": paths.report,
        "accuracy": paths.accuracy,
        "card": paths.card,
        "archive": paths.archive,
        "provenance": paths.provenance,
        "folder": paths.directory,
    }
    return [
        (name, quote(f"{records.name}/{path.name}") + "/" * path.is_dir())
        for name, path in found.items()
        if path.exists()
    ]


_LONG = 240
"""Characters from which on a message is folded."""


def _folded(message: str) -> tuple[str, str]:
    """Return a message, and the rest of it that is folded if it is long."""
    shown = printable(message)
    if len(shown) <= _LONG:
        return shown, ""
    cut = shown.rfind(" ", _LONG // 4, _LONG // 2)
    return (shown[:cut], shown[cut:]) if cut > 0 else (shown[: _LONG // 2], shown[_LONG // 2 :])


def _policy(template: str) -> str:
    """Return a policy under which the page loads nothing and runs only its own style and script, known by digest."""
    allowed = ["default-src 'none'", "img-src data:", "base-uri 'none'", "form-action 'none'"]
    for name in ("style", "script"):
        found = re.search(rf"<{name}>{{% raw %}}(.*?){{% endraw %}}</{name}>", template, re.DOTALL)
        digest = hashlib.sha256(found[1].encode()).digest() if found else b""
        allowed.append(f"{name}-src 'sha256-{base64.b64encode(digest).decode()}'")
    return "; ".join(allowed)


def _anchors(names: Sequence[str]) -> list[str]:
    """Return an id for each model: its name, where that can be one and is no other's."""
    good = {name for name in names if re.fullmatch(r"mixer_[a-z0-9_-]+", name) and names.count(name) == 1}
    return [name if name in good else f"handle-{index}" for index, name in enumerate(names)]


_COLUMNS = (
    "Handle", "Verdict", "#Worst difference", "#Of the limit", "#Top-1", "Set", "Fine-tunable", "Origin", "Mixer",
    "Trained on", "#Outputs", "#Parameters", "#MB", "Version",
)  # fmt: skip


def _overview(views: Sequence[HandleView]) -> Table:
    caption = "The handles: largest difference between SavedModel and JAX, over the scale of the image's outputs"
    several = len({view.model.paths.version for view in views}) > 1
    rows = tuple((*_row(view), str(view.model.paths.version) if several else NOTHING) for view in views)
    return Table(caption, _COLUMNS, rows).without_empty_columns()


def _row(view: HandleView) -> Iterator[Cell | str]:
    handle, manifest, report = view.model.handle, view.model.manifest, view.model.report
    worst, limit = (report.figure("max_relative"), _limit(report)) if report else (None, None)
    part = None if worst is None or limit is None else 100 * worst / limit
    yield linked(f"#{view.anchor}", view.name)
    yield badge(view.model.status)
    yield Cell(figure_of(worst), worst)
    yield Cell(share(part), part)
    yield _top1(view.model)
    yield report.inputs_set if report else NOTHING
    yield {True: "yes", False: "no", None: NOTHING}[report.fine_tunable if report else None]
    yield manifest.checkpoint.origin if manifest else NOTHING
    yield handle.checkpoint.architecture.name if handle else NOTHING
    yield _trained_on(handle) if handle else NOTHING
    yield Cell(f"{handle.outputs:,}", handle.outputs) if handle else NOTHING
    yield Cell(f"{handle.parameters:,}", handle.parameters) if handle else NOTHING
    yield Cell(f"{manifest.size / 1e6:,.1f}" if manifest else NOTHING, manifest.size if manifest else None)


def _trained_on(handle: Handle) -> str:
    training = handle.checkpoint.training
    return training.data + (" (SAM)" if training.name == "sam" and is_catalogued(handle.name) else "")


def _top1(model: ModelRecords) -> Cell | str:
    """Return the accuracy that was measured last."""
    if model.accuracy is None:
        return NOTHING
    last = model.accuracy.measurements[-1]
    return Cell(f"{(percent := 100 * last.top1 / last.pictures):.2f} %", percent)


def _limit(report: Report) -> float | None:
    tolerance = report.tolerances.get("max_relative")
    return tolerance.limit if tolerance and tolerance.limit > 0 else None


def _margins(models: Sequence[ModelRecords]) -> Picture | None:
    margins = [
        Margin(model.name, worst, *_oracle_distances(model.report), limit)
        for model in models
        if model.report
        and (worst := model.report.figure("max_relative")) is not None
        and (limit := _limit(model.report)) is not None
    ]
    return draw_margins(margins, "margins") if margins else None


def _oracle_distances(report: Report) -> tuple[float | None, float | None]:
    """Return the worst distance from the oracle: the SavedModel's and JAX's."""
    return report.figure("saved_model_oracle_relative"), report.figure("jax_oracle_relative")
