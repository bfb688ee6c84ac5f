"""The command republish: make, prove, pack and publish new versions of outdated models in one run."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convert.cli import console, options
from models.catalog import BUCKET
from models.selection import select_handles
from models.storage.files import megabytes

if TYPE_CHECKING:
    from convert.pipeline.republish import Republished


def republish(
    to: Annotated[
        str, typer.Option(metavar="DEST", help="Where the models are published: gs://bucket[/prefix] or a directory.")
    ],
    publisher: options.Publisher,
    assets: options.Assets,
    handles: options.Handles = None,
    source: options.Source = BUCKET,
    cache: options.Cache = None,
    out: options.Out = Path("build"),
    flavour: options.FlavourOption = options.Flavour.native,
    sign_key: options.SignKey = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show which models would be made, and why; make none.")
    ] = False,
    allow_dirty: options.AllowDirty = False,
    json: options.Json = False,
) -> None:
    """Convert, validate, pack and publish a new version of each model that is out of date, with its cards."""
    from convert.checkpoints.fetch import Source
    from convert.pipeline.for_each import Problem, raise_problems
    from convert.pipeline.republish import Work
    from convert.pipeline.selection import in_flavours
    from export.cards.publisher import Publisher
    from export.package.signing import signer
    from export.publish.destinations import opened_store
    from export.publish.policy import PublishPolicy

    place = Source(source, cache)
    place.check()
    models = in_flavours(select_handles(handles or ()), flavour.each)
    rules = PublishPolicy(place.digests, allow_dirty=allow_dirty)
    where = Publisher(publisher, assets.rstrip("/"))
    work = Work(models, place, out, rules, where, None if sign_key is None else signer(sign_key))
    with opened_store(to, out) as store:
        done = work.bring_up_to_date(store, dry_run=dry_run, watch=console.progress_bar())
    if json:
        console.print_json([_as_json(one) for one in done])
    else:
        columns = ("handle", "#published", "#new", "because", "#sent", "")
        console.print_table("", columns, [_cells(one) for one in done], prose=("because",), least=("sent",))
    raise_problems([Problem(one.handle, one.problem) for one in done if one.problem is not None], len(done))


def _as_json(one: "Republished") -> dict[str, object]:
    values = asdict(one)
    problem = values.pop("problem")
    return {**values, "problems": [] if problem is None else [problem]}


def _cells(one: "Republished") -> tuple[str, ...]:
    numbers = (str(one.published or "none"), str(one.version or ""))
    return (one.handle, *numbers, "\n".join(one.reasons), megabytes(one.sent), one.verdict)
