"""Commands about models: convert, validate, convert-all."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convert.cli import options
from models.catalog import BUCKET, DEFAULT_VERSION, Handle, own_handle, select_handles
from models.errors import UsageError

if TYPE_CHECKING:
    from convert.cli.batch import Task
    from convert.cli.stages import OwnFile

OwnCheckpoint = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        metavar="FILE",
        help="One's own Mixer: an .npz of HANDLE's architecture; its head tells the classes. Needs --name.",
    ),
]
OwnName = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the model made from it.")]
OwnLabels = Annotated[
    Path | None, typer.Option("--labels", metavar="FILE", help="Its class list: a text file, one line a class.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(convert)
    app.command()(validate)
    app.command("convert-all")(convert_all)


def convert(
    handles: options.Handles = None,
    source: options.Source = BUCKET,
    cache: options.Cache = None,
    out: options.Out = Path("build"),
    version: options.Version = DEFAULT_VERSION,
    flavour: options.FlavourOption = options.Flavour.native,
    overwrite: options.Overwrite = False,
    checkpoint: OwnCheckpoint = None,
    name: OwnName = None,
    labels: OwnLabels = None,
    jobs: options.Jobs = 1,
    json: options.Json = False,
) -> None:
    """Write SavedModels with their manifests; checks nothing yet (see validate)."""
    own = own_file(checkpoint, name, labels)
    _run("convert", handles, (source, cache, out), version, flavour, own, overwrite=overwrite, jobs=jobs, json=json)


def validate(
    handles: options.Handles = None,
    source: options.Source = BUCKET,
    cache: options.Cache = None,
    out: options.Out = Path("build"),
    version: options.Version = DEFAULT_VERSION,
    flavour: options.FlavourOption = options.Flavour.native,
    inputs_set: options.InputsSetOption = options.InputsSet.gate,
    reference: options.Reference = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show where along the depth errors arise.")] = False,
    checkpoint: OwnCheckpoint = None,
    name: OwnName = None,
    json: options.Json = False,
) -> None:
    """Hold SavedModels against JAX and their checkpoints, and write their reports."""
    own = own_file(checkpoint, name)
    _run(
        "validate",
        handles,
        (source, cache, out),
        version,
        flavour,
        own,
        inputs_set=inputs_set,
        reference=reference,
        explain=explain,
        json=json,
    )


def convert_all(
    handles: options.Handles = None,
    source: options.Source = BUCKET,
    cache: options.Cache = None,
    out: options.Out = Path("build"),
    version: options.Version = DEFAULT_VERSION,
    flavour: options.FlavourOption = options.Flavour.native,
    overwrite: options.Overwrite = False,
    checkpoint: OwnCheckpoint = None,
    name: OwnName = None,
    labels: OwnLabels = None,
    jobs: options.Jobs = 1,
    json: options.Json = False,
) -> None:
    """Fetch, convert and check; what stands complete and proven already is kept."""
    own = own_file(checkpoint, name, labels)
    _run("convert-all", handles, (source, cache, out), version, flavour, own, overwrite=overwrite, jobs=jobs, json=json)


def _run(
    task: "Task",
    handles: list[str] | None,
    places: tuple[str, Path | None, Path],
    version: int,
    flavour: options.Flavour,
    own: "OwnFile | None",
    *,
    overwrite: bool = False,
    jobs: int = 1,
    inputs_set: options.InputsSet = options.InputsSet.gate,
    reference: Path | None = None,
    explain: bool = False,
    json: bool,
) -> None:
    from convert.cli import batch, outcomes, stages
    from convert.cli.parity_summary import summarise
    from models.digests import DigestTable
    from validation.published import opened

    source, cache, out = places
    chosen = choose(handles or [], source, own)
    if reference is not None and (not handles or len(chosen) * len(flavour.each) != 1):
        raise UsageError("--reference takes one HANDLE in one flavour: the one that it is an earlier version of.")
    work = batch.Batch(
        task,
        tuple(handle.in_flavour(one) for handle in chosen for one in flavour.each),
        stages.Source(source, cache, DigestTable.read()),
        out,
        version,
        overwrite=overwrite,
        jobs=jobs,
        own=own,
        inputs_set=inputs_set.value,
        explain=explain,
    )
    batch.check_batch(work)
    with ExitStack() as stack:
        published = None if reference is None else stack.enter_context(opened(reference))
        done = batch.run_batch(replace(work, published=published))
    if explain and not json:
        outcomes.print_depth(done)
    if work.inputs_set == "full" and out.is_dir():
        outcomes.write_for_people(done, out, version, batch.made_handles(work))
    outcomes.print_outcomes(done, json=json, markdown=summarise(done) if work.inputs_set == "full" else None)


def choose(handles: list[str], source: str, own: "OwnFile | None") -> tuple[Handle, ...]:
    """Return the handles that are meant, or the one that one's own Mixer takes after.

    Raises:
        UsageError: a handle, the source or the name will not do.
    """
    from convert.fetch import parse_source

    chosen = tuple(select_handles(handles))
    if own is None:
        parse_source(source)
    elif not handles or len(chosen) != 1:
        raise UsageError("--checkpoint takes one HANDLE, which gives the architecture and the head.")
    else:
        own_handle(chosen[0], own.name, 1)  # refuses a name that will not do before any work
        if own.labels is not None and chosen[0].head == "fe":
            raise UsageError(f"--labels is for classifiers: {chosen[0].name} gives features, which have no classes.")
    return chosen


def own_file(checkpoint: Path | None, name: str | None, labels: Path | None = None) -> "OwnFile | None":
    """Return one's own Mixer; None where a handle of the catalog is meant.

    Raises:
        UsageError: the name or the checkpoint is missing, or the class list.
    """
    from convert.cli.stages import OwnFile

    if checkpoint is None and name is None and labels is None:
        return None
    if checkpoint is None or name is None:
        raise UsageError("one's own Mixer needs both --checkpoint FILE and --name NAME (--labels FILE is optional).")
    if labels is not None and not labels.is_file():
        raise UsageError(f"--labels {labels} is not a file: expected a text file, one line a class.")
    return OwnFile(checkpoint, name, labels)
