"""The command republish: new versions of what is out of date, made, proven, packed and published in one go."""

import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from convert.cli import options, show
from convert.cli.publish_commands import AllowDirty, SignKey, for_each, look_at_published, opened_store, raise_problems
from export.destination import tidy
from models.catalog import BUCKET, Checkpoint, Handle, select_handles
from models.errors import MixerError, UsageError
from models.paths import ModelPaths

if TYPE_CHECKING:
    from convert.cli.batch import Batch
    from convert.cli.outcomes import Outcome
    from export.admission import Rules
    from export.outdated import SourceObject, Standing
    from export.publish import Publication
    from export.signature import Signer
    from export.stores import Store, Stored
    from export.subject import Where


@dataclass(frozen=True)
class Work:
    """What is to be republished, from what, and what is asked of it."""

    models: tuple[Handle, ...]
    """In their flavours."""
    source: str
    cache: Path | None
    out: Path
    rules: "Rules"
    where: "Where | None"
    """Who publishes and where models are to be had, for the cards; tests and measurements write none."""
    sign: "Signer | None" = None
    inputs_set: Literal["gate", "full"] = "full"
    """What they are checked with: cards say what only the full set finds out."""


@dataclass(frozen=True)
class Republished:
    """What becomes of one model."""

    handle: str
    published: int | None
    """The highest version before; None where there was none."""
    version: int | None
    """The new one; None where none is needed."""
    reasons: tuple[str, ...]
    verdict: Literal["up to date", "to be republished", "republished", "failed"]
    sent: int = 0
    """Bytes."""
    problem: str | None = None


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(republish)


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
    sign_key: SignKey = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be made and why; make nothing.")] = False,
    allow_dirty: AllowDirty = False,
    json: options.Json = False,
) -> None:
    """Make, prove, pack, describe and publish a new version of each model that is out of date, and of no other."""
    from convert.fetch import parse_source
    from export.admission import Rules
    from export.signature import signer
    from export.subject import Where
    from models.digests import DigestTable

    parse_source(source)
    models = tuple(made for one in select_handles(handles or ()) for made in map(one.in_flavour, flavour.each))
    rules = Rules(DigestTable.read(), allow_dirty=allow_dirty)
    where = Where(publisher, assets.rstrip("/"))
    work = Work(models, source, cache, out, rules, where, None if sign_key is None else signer(sign_key))
    with opened_store(to, out) as store:
        done = bring_up_to_date(work, store, dry_run=dry_run)
    if json:
        show.print_json([asdict(one) for one in done])
    else:
        columns = ("handle", "#published", "#new", "because", "#sent", "")
        show.print_table("", columns, [_cells(one) for one in done])
    raise_problems([f"{one.handle}: {one.problem}" for one in done if one.verdict == "failed"], len(done))


def _cells(one: Republished) -> tuple[str, ...]:
    numbers = (str(one.published or "none"), str(one.version or ""))
    return (one.handle, *numbers, "\n".join(one.reasons), show.megabytes(one.sent), one.verdict)


def bring_up_to_date(work: Work, store: "Store", *, dry_run: bool = False) -> list[Republished]:
    """Republish what is out of date, or say what would be; a model that fails ends only itself.

    Raises:
        MixerError: before any work: it cannot be told what is out of date, a checkpoint at the source is not the
            recorded one, or the sources are not those of a commit.
    """
    from convert.cli.frameworks import import_frameworks
    from convert.fetch import look

    looked = functools.cache(functools.partial(look, source=work.source, cache=work.cache))
    standings, problems = look_at_published(work.models, store, looked, work.rules.digests)
    raise_problems(problems, len(work.models))
    for note in dict.fromkeys(note for one in standings for note in one.unknown):
        show.tell(f"not compared: {note}")
    _refuse(work, looked)
    numbers = {one.handle: free_number(one, store, work.out) for one in standings if one.reasons}
    if dry_run or not numbers:
        return [_result(one, numbers, "to be republished") for one in standings]
    batches = list(_batches(work, numbers))
    import_frameworks()
    failed = _make(batches)
    left = [name for name in numbers if name not in failed]
    published, more = for_each(left, lambda name, steps: _publish(work, store, name, numbers[name], steps))
    _describe_collection(work, published)
    sent = {one.handle: one.sent for one in published}
    failed |= dict(problem.split(": ", 1) for problem in more)
    return [_result(one, numbers, "republished", failed.get(one.handle), sent.get(one.handle, 0)) for one in standings]


def _result(
    standing: "Standing",
    numbers: dict[str, int],
    verdict: Literal["to be republished", "republished"],
    problem: str | None = None,
    sent: int = 0,
) -> Republished:
    number = numbers.get(standing.handle)
    said: Literal["up to date", "failed", "to be republished", "republished"] = verdict
    if number is None:
        said = "up to date"
    elif problem is not None:
        said = "failed"
    return Republished(standing.handle, standing.published, number, standing.reasons, said, sent, problem)


# --- what is refused before any work ---


def _refuse(work: Work, looked: "Callable[[Checkpoint], SourceObject]") -> None:
    from models.provenance import git_state

    checkpoints = dict.fromkeys(one.checkpoint for one in work.models)
    problems = [problem for one in checkpoints for problem in _changes(one, work, looked)]
    commit, dirty = git_state()
    if not work.rules.allow_dirty and (commit is None or dirty):
        found = "no git commit names these sources" if commit is None else f"the sources differ from commit {commit}"
        problems.append(f"{found}: commit them, or give --allow-dirty")
    if problems:
        said = "".join(f"\n  {problem}" for problem in problems)
        raise MixerError(f"nothing was made or published:{said}")


def _changes(checkpoint: Checkpoint, work: Work, looked: "Callable[[Checkpoint], SourceObject]") -> Iterator[str]:
    """Say in what the source's file differs from what is recorded, or that nothing is."""
    digests, origins = work.rules.digests, sorted(work.rules.origins)
    accept = "accept it with `mixer-jax2tf fetch --record`, look at the change of models/digests.json, and commit it"
    entries = [entry for origin in origins if (entry := digests.find(checkpoint.object, origin)) is not None]
    if not entries:
        yield f"models/digests.json has no {' or '.join(origins)} {checkpoint.object}: {accept}"
        return
    found = looked(checkpoint)
    for entry in entries:
        pairs = (
            ("size", found.size, entry.size),
            ("sha256", found.sha256, entry.sha256),
            ("md5", found.md5, entry.md5),
        )
        for what, is_now, recorded in pairs:
            if None not in (is_now, recorded) and is_now != recorded:
                yield (
                    f"{checkpoint.object} changed: its {what} at {work.source} is {is_now}, recorded is {recorded}; "
                    f"{accept}"
                )
                break


# --- the new versions ---


def free_number(standing: "Standing", store: "Store", out: Path) -> int:
    """Return the number of a new version: the next one, above what an unfinished publication left, unless of these.

    Files of a version that the index does not list are in the way of any other that bears its number. Where they equal
    what stands in `out`, that publication is finished instead.
    """
    files = store.files(standing.handle)
    left = {name: int(found[1]) for name in files if (found := re.match(r"(\d+)\.", name))}
    highest = max((number for number in left.values() if number >= standing.next), default=None)
    if highest is None:
        return standing.next
    mine = {name: files[name] for name, number in left.items() if number == highest}
    made = ModelPaths.of(out, standing.handle, highest)
    tidy(made)
    return highest if _same(mine, made.folder) else highest + 1


def _same(stored: Mapping[str, "Stored"], folder: Path) -> bool:
    from models.files import hash_file

    def same(path: Path, there: "Stored") -> bool:
        return path.is_file() and path.stat().st_size == there.size and hash_file(path).md5 == there.md5

    return all(same(folder / name, one) for name, one in stored.items())


def _batches(work: Work, numbers: dict[str, int]) -> Iterator["Batch"]:
    """Return what is to be made, number by number.

    Raises:
        UsageError: something of the user's is in the way, or the models would not fit on the disk.
    """
    from convert.cli.batch import Batch, check_batch
    from convert.cli.stages import Source

    places = [ModelPaths.of(work.out, name, number) for name, number in numbers.items()]
    for one in places:
        tidy(one)
    foreign = [str(one.directory) for one in places if os.path.lexists(one.directory) and not one.manifest.is_file()]
    if foreign:
        raise UsageError(
            f"{', '.join(foreign)} has no manifest, so it is left alone: move it away, or give another --out."
        )
    source = Source(work.source, work.cache, work.rules.digests)
    for number in sorted(set(numbers.values())):
        models = tuple(one for one in work.models if numbers.get(one.name) == number)
        batch = Batch("convert-all", models, source, work.out, number, inputs_set=work.inputs_set)
        check_batch(batch)
        yield batch


def _make(batches: Iterable["Batch"]) -> dict[str, str]:
    """Convert and check; return what failed and why. What stands proven already by the same set is kept."""
    from convert.cli.batch import run_batch

    failed: dict[str, str] = {}
    for batch in batches:
        made = run_batch(batch)
        failed |= _failures(made)
        less = [one.handle for one in made if one.report is not None and one.report.inputs_set == "gate"]
        if less and batch.inputs_set == "full":  # proven earlier, by the gate set only
            again = tuple(handle for handle in batch.handles if handle.name in less)
            failed |= _failures(run_batch(replace(batch, task="validate", handles=again)))
    return failed


def _failures(outcomes: Iterable["Outcome"]) -> dict[str, str]:
    return {one.handle: "; ".join(one.problems) for one in outcomes if one.verdict == "failed"}


def _publish(work: Work, store: "Store", name: str, number: int, steps: show.Steps) -> "Publication":
    from export.cards import write_model_cards
    from export.package import package_model
    from export.publish import publish

    destination = ModelPaths.of(work.out, name, number)
    if work.where is not None:
        write_model_cards(destination, work.where)
    package_model(destination, overwrite=True, sign=work.sign, progress=steps.start(f"packing {name}"))
    return publish(destination, store, work.rules, progress=steps.start(f"publishing {name}"))


def _describe_collection(work: Work, published: Sequence["Publication"]) -> None:
    """Write the cards of the collection, which name the new versions; what was published stays published."""
    from export.cards import write_collection_cards

    if work.where is None or not published:
        return
    try:
        written = write_collection_cards(work.out, work.where)
    except MixerError as error:
        show.tell(f"the cards of the collection could not be written: {error}")
    else:
        for path in written.files if written else ():
            show.tell(f"written: {path}")
