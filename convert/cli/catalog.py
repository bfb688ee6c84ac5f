"""Commands about checkpoints: list, seed, fetch."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convert.cli import console, options
from convert.pipeline.progress import Steps
from models.catalog import BUCKET, CHECKPOINTS, Checkpoint, Handle
from models.errors import MixerError
from models.markdown import markdown_table
from models.selection import select_handles, select_named
from models.storage.files import megabytes

if TYPE_CHECKING:
    from convert.checkpoints.fetch import FetchedFile


def list_handles(
    handles: options.Patterns = None,
    collection: options.CollectionOption = None,
    json: options.Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
) -> None:
    """List the handles of the catalog: the twelve of version 1, or those named, matched or of a collection."""
    chosen = select_handles(select_named(handles, collection))
    if json:
        console.print_json([_describe(handle) for handle in chosen])
        return
    columns = ("handle", "architecture", "trained on", "output", "#parameters", "object")
    rows = [_row(handle) for handle in chosen]
    if markdown:
        sys.stdout.write(markdown_table(columns, rows))
    else:
        console.print_table("", columns, rows, least=("object", "parameters", "trained on"))


def _describe(handle: Handle) -> dict[str, object]:
    """Return the catalog's facts about a handle, as JSON values."""
    checkpoint, training = handle.checkpoint, handle.checkpoint.training
    return {
        "handle": handle.name,
        "head": handle.head,
        "outputs": handle.outputs,
        "parameters": handle.parameters,
        "image_size": checkpoint.architecture.image_size,
        "labels": asdict(handle.labels) if handle.labels else None,
        "architecture": asdict(checkpoint.architecture),
        "checkpoint": {
            "name": checkpoint.name,
            "url": checkpoint.url,
            "expected_size": checkpoint.size,
            "parameters": checkpoint.parameters,
            "num_classes": checkpoint.num_classes,
        },
        "training_data": training.data,
        "training_method": training.method,
        "papers": training.papers,
        "source": training.source,
        "license": training.license,
    }


def _row(handle: Handle) -> tuple[str, ...]:
    checkpoint = handle.checkpoint
    kind = "logits" if handle.head == "classification" else "features"
    method = checkpoint.training.name
    data = checkpoint.training.data + (f" ({method.upper()})" if method in ("sam", "gsam") else "")
    return (
        handle.name,
        checkpoint.architecture.name,
        data,
        f"{handle.outputs} {kind}",
        f"{handle.parameters:,}",
        checkpoint.object,
    )


def seed(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory to write to, in the bucket's layout.")],
    collection: options.CollectionOption = None,
) -> None:
    """Write full-size synthetic checkpoints: the originals' names and shapes, with generated weights.

    Without --collection these are the six of the twelve handles.
    """
    from convert.checkpoints.synthetic import write_seeded
    from export.install import prepare_out

    prepare_out(directory)
    chosen = CHECKPOINTS[collection or "mixer"]
    with Steps(console.progress_bar(), len(chosen)) as on:
        for checkpoint in chosen.values():
            progress = on.start(f"seeding {checkpoint.object}")
            path = write_seeded(checkpoint, directory, progress=progress)
            on.finish(f"{path}  {megabytes(path.stat().st_size)}")


def fetch(
    handles: options.Handles = None,
    collection: options.CollectionOption = None,
    source: options.Source = BUCKET,
    cache: options.Cache = None,
    record: Annotated[
        bool, typer.Option("--record", help=f"Record the digests of {BUCKET} in models/digests.json.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Fetch the checkpoints of the handles into the cache."""
    named = select_named(handles, collection)
    chosen = {handle.checkpoint.object: handle.checkpoint for handle in select_handles(named)}
    if record:
        _record(list(chosen.values()), source, cache, json=json)
        return
    from convert.checkpoints.fetch import Source
    from convert.pipeline.for_each import for_each

    place = Source(source, cache)
    place.check()

    def work(name: str, on: Steps) -> "FetchedFile":
        return place.fetch(chosen[name], progress=on.start(f"fetching {name}"))

    found, problems = for_each(list(chosen), work, console.progress_bar())
    rows = [{**asdict(file), "path": str(file.path)} for file in found]
    if json:
        done = [{**row, "problems": []} for row in rows]
        console.print_json([*done, *(one.as_json("object") for one in problems)])
    else:
        columns = ("object", "file", "#size", "#transferred")
        cells = [(r["object"], r["path"], *(megabytes(r[key]) for key in ("size", "transferred"))) for r in rows]
        console.print_table("", columns, cells, least=("transferred", "size"))
    if problems:
        raise MixerError("\n".join(map(str, problems)))


def _record(checkpoints: list[Checkpoint], source: str, cache: Path | None, *, json: bool) -> None:
    from convert.checkpoints.fetch import record
    from models.digests import DIGESTS_FILE, DigestTable
    from models.errors import UsageError

    if source != BUCKET:
        raise UsageError(f"--record reads the originals, from {BUCKET} only; --source is {source}.")
    rows = []
    with Steps(console.progress_bar(), len(checkpoints)) as on:
        for checkpoint in checkpoints:
            progress = on.start(f"recording {checkpoint.object}")
            table = DigestTable.read()
            old, new = record(checkpoint, cache=cache, digests=table, progress=progress)
            table.with_entry(new).write()
            was = "no entry" if old is None else old.sha256
            rows.append((new.object, was, new.sha256, "unchanged" if old == new else "recorded"))
            on.finish(f"{new.object}: {new.sha256}")
    if json:
        names = ("object", "old_sha256", "new_sha256", "verdict")
        console.print_json([dict(zip(names, row, strict=True)) for row in rows])
    else:
        console.print_table(f"written to {DIGESTS_FILE}", ("object", "old sha256", "new sha256", ""), rows)
