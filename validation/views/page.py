"""The page that a person looks at: `<out>/index.html`, made of the records beside the models, by Jinja2 templates."""

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import jinja2
from markupsafe import Markup

from models.catalog import Handle
from models.errors import printable
from models.records.report import ZERO_HEAD, Report
from models.storage.files import write_atomically
from validation.views.cells import NOTHING, Cell, Table, figure_of, share
from validation.views.handle import ORIGINS, HandleView, badge
from validation.views.model_records import ModelRecords, Status
from validation.views.plots import Margin, Picture, draw_margins

TEMPLATE = Path(__file__).with_suffix(".html")


def write_page(out: Path, version: int, handles: Sequence[Handle]) -> Path:
    """Write `<out>/index.html` about this version of the handles, one self-contained file, and return its path.

    Whatever is missing or damaged is named on the page; the same records give the same bytes.
    """
    models = [ModelRecords.read(out, version, handle) for handle in handles]
    views = [HandleView(model, anchor) for model, anchor in zip(models, _anchors(handles), strict=True)]
    statuses = Counter(model.status for model in models)
    origins = Counter(model.manifest.checkpoint.origin for model in models if model.manifest)
    page = (
        _environment()
        .get_template(TEMPLATE.name)
        .render(
            policy=_policy(TEMPLATE.read_text(encoding="utf-8")),
            title=f"Mixers in TensorFlow, version {version}",
            views=views,
            account=", ".join(f"{statuses[status]} {status}" for status in get_args(Status) if statuses[status]),
            full=sum(model.report is not None and model.report.inputs_set == "full" for model in models),
            void=statuses["void"],
            origins=origins.most_common(),
            overview=_overview(views),
            margins=_margins(models),
        )
    )
    out.mkdir(parents=True, exist_ok=True)
    path = out / "index.html"
    write_atomically(path, page.encode())
    return path


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
    environment.globals.update(badge=badge, meanings=ORIGINS, zero_head=ZERO_HEAD, counted=_counted)
    return environment


def _shown(value: Any) -> Any:  # noqa: ANN401 (whatever a template holds)
    """Return foreign text with what is not printable escaped; markup and numbers as they are."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _counted(handles: int | Sequence[Any]) -> str:
    count = handles if isinstance(handles, int) else len(handles)
    return f"{count} handle{'s' * (count != 1)}"


def _policy(template: str) -> str:
    """Return a policy under which the page loads nothing and runs only its own style and script, known by digest."""
    allowed = ["default-src 'none'", "base-uri 'none'", "form-action 'none'"]
    for name in ("style", "script"):
        found = re.search(rf"<{name}>{{% raw %}}(.*?){{% endraw %}}</{name}>", template, re.DOTALL)
        digest = hashlib.sha256(found[1].encode()).digest() if found else b""
        allowed.append(f"{name}-src 'sha256-{base64.b64encode(digest).decode()}'")
    return "; ".join(allowed)


def _anchors(handles: Sequence[Handle]) -> list[str]:
    """Return an id for each handle: its name, where that can be one and is no other's."""
    names = [handle.name for handle in handles]
    good = {name for name in names if re.fullmatch(r"mixer_[a-z0-9_-]+", name) and names.count(name) == 1}
    return [name if name in good else f"handle-{index}" for index, name in enumerate(names)]


_COLUMNS = (
    "Handle", "Verdict", "Set", "Origin", "Mixer", "Trained on", "Made from", "#Outputs", "#Parameters", "#MB",
    "#Worst difference", "#Of the limit", "Fine-tunable",
)  # fmt: skip


def _overview(views: Sequence[HandleView]) -> Table:
    caption = "The handles: largest difference between SavedModel and JAX, over the scale of the image's outputs"
    return Table(caption, _COLUMNS, tuple(tuple(_row(view)) for view in views))


def _row(view: HandleView) -> Iterator[Cell | str]:
    handle, manifest, report = view.model.handle, view.model.manifest, view.model.report
    training = handle.checkpoint.training
    worst, limit = (report.figure("max_relative"), _limit(report)) if report else (None, None)
    part = None if worst is None or limit is None else 100 * worst / limit
    yield Markup('<a href="#{}">{}</a>').format(view.anchor, printable(view.name))
    yield badge(view.model.status)
    yield report.inputs_set if report else NOTHING
    yield manifest.checkpoint.origin if manifest else NOTHING
    yield handle.checkpoint.architecture.name
    yield training.data + (" (SAM)" if training.name == "sam" else "")
    yield handle.checkpoint.object
    yield Cell(f"{handle.outputs:,}", handle.outputs)
    yield Cell(f"{handle.parameters:,}", handle.parameters)
    yield Cell(f"{manifest.size / 1e6:,.1f}" if manifest else NOTHING, manifest.size if manifest else None)
    yield Cell(figure_of(worst), worst)
    yield Cell(share(part), part)
    yield {True: "yes", False: "no", None: NOTHING}[report.fine_tunable if report else None]


def _limit(report: Report) -> float | None:
    tolerance = report.tolerances.get("max_relative")
    return tolerance.limit if tolerance and tolerance.limit > 0 else None


def _margins(models: Sequence[ModelRecords]) -> Picture | None:
    margins = [
        Margin(model.handle.name, worst, *_oracle_distances(model.report), limit)
        for model in models
        if model.report
        and (worst := model.report.figure("max_relative")) is not None
        and (limit := _limit(model.report)) is not None
    ]
    return draw_margins(margins, "margins") if margins else None


def _oracle_distances(report: Report) -> tuple[float | None, float | None]:
    """Return the worst distance from the oracle: the SavedModel's and JAX's."""
    return report.figure("saved_model_oracle_relative"), report.figure("jax_oracle_relative")
