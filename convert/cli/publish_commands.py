"""Commands about what leaves this machine: package, verify, publish, outdated."""

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from convert.cli import options, show
from export.destination import held, tidy
from models.catalog import BUCKET, DEFAULT_VERSION, GRAPH_SUFFIX, Checkpoint, Handle, select_handles
from models.errors import DifferentError, MixerError, UsageError
from models.paths import ModelPaths

if TYPE_CHECKING:
    from export.outdated import SourceObject, Standing
    from export.publish import Publication
    from export.stores import Store
    from models.digests import DigestTable

LOG = logging.getLogger(__name__)

Done = TypeVar("Done")

SignKey = Annotated[
    Path | None,
    typer.Option(
        metavar="KEY.pem", help="Sign the provenance with this private key (elliptic curve; needs the extra `sign`)."
    ),
]
AllowDirty = Annotated[
    bool, typer.Option("--allow-dirty", help="Publish models made from sources that no commit names.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(package)
    app.command()(verify)
    app.command()(publish)
    app.command()(outdated)


def package(
    handles: options.Handles = None,
    out: options.Out = Path("build"),
    version: options.Version = DEFAULT_VERSION,
    flavour: options.FlavourOption = options.Flavour.native,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace archives that exist.")] = False,
    sign_key: SignKey = None,
    json: options.Json = False,
) -> None:
    """Pack proven models as .tar.gz, each with its provenance."""
    from export.package import Package, package_model, refuse_packaged
    from export.signature import signer

    names = chosen_names(handles or [], flavour, out, version)
    sign = None if sign_key is None else signer(sign_key)
    destinations = {name: ModelPaths.of(out, name, version) for name in names}
    if not overwrite:
        refuse_packaged(*destinations.values())

    def work(name: str, steps: show.Steps) -> Package:
        progress = steps.start(f"packing {name}")
        with held(destinations[name]):
            return package_model(destinations[name], overwrite=overwrite, sign=sign, progress=progress)

    packed, problems = for_each(names, work)
    if json:
        show.print_json([{name: _plain(value) for name, value in asdict(one).items()} for one in packed])
    else:
        rows = [(one.handle, str(one.archive), show.megabytes(one.size), one.sha256) for one in packed]
        show.print_table("", ("handle", "archive", "#size", "sha256"), rows)
    raise_problems(problems, len(names))


def verify(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A SavedModel's directory, or its .tar.gz.")],
    json: options.Json = False,
) -> None:
    """Check a model against its manifest, report and provenance; needs neither JAX nor TensorFlow."""
    from export.verify import verify as verify_model

    with show.steps(1) as steps:
        steps.start(f"reading {path}")
        found = verify_model(path)
    if json:
        values = {name: _plain(value) for name, value in asdict(found).items()}
        show.print_json(values | {"verdict": found.verdict})
    else:
        lines = [*((one, "same") for one in found.checked), *((one, "not checked") for one in found.not_checked)]
        lines += [(one, "different") for one in found.differences]
        show.print_table(f"{found.handle or path} version {found.version or '?'}", ("what", ""), lines)
    if found.differences:
        said = "".join(f"\n  {difference}" for difference in found.differences)
        raise DifferentError(f"{path} is not as it should be:{said}\nGet it again from where it was published.")


def publish(
    to: Annotated[
        str,
        typer.Option(
            metavar="DEST",
            help="Where to: gs://bucket[/prefix], a directory (a mirror), kaggle:owner/model or hf:owner/repo.",
        ),
    ],
    handles: options.Handles = None,
    out: options.Out = Path("build"),
    version: options.Version = DEFAULT_VERSION,
    flavour: options.FlavourOption = options.Flavour.native,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go where; send nothing.")] = False,
    allow_dirty: AllowDirty = False,
    json: options.Json = False,
) -> None:
    """Publish packed models; what is published is never overwritten."""
    from export.admission import Rules
    from models.digests import DigestTable

    names = chosen_names(handles or [], flavour, out, version)
    rules = Rules(DigestTable.read(), allow_dirty=allow_dirty)
    with opened_place(to, out) as send:

        def work(name: str, steps: show.Steps) -> "Publication":
            progress = steps.start(f"publishing {name}")
            return send(ModelPaths.of(out, name, version), rules=rules, dry_run=dry_run, progress=progress)

        done, problems = for_each(names, work)
    if json:
        show.print_json([{**asdict(one), "sent": one.sent} for one in done])
    else:
        rows = [(item.address, f"{item.size:,}", item.action) for one in done for item in one.items]
        show.print_table("", ("address", "#bytes", ""), rows)
        show.tell(f"{show.megabytes(sum(one.sent for one in done))} were sent.")
    raise_problems(problems, len(names))


def outdated(
    published: Annotated[str, typer.Option(metavar="DEST", help="Where the models are published: as --to of publish.")],
    handles: options.Handles = None,
    source: options.Source = BUCKET,
    cache: options.Cache = None,
    flavour: options.FlavourOption = options.Flavour.native,
    json: options.Json = False,
) -> None:
    """Say which published models need a new version, and why; downloads no checkpoint."""
    from convert.fetch import look, parse_source
    from models.digests import DigestTable

    parse_source(source)
    looked = functools.cache(functools.partial(look, source=source, cache=cache))
    models = [made for one in select_handles(handles or ()) for made in map(one.in_flavour, flavour.each)]
    with opened_store(published) as store:
        found, problems = look_at_published(models, store, looked, DigestTable.read())
    if json:
        show.print_json([asdict(one) for one in found])
    else:
        rows = [(one.handle, str(one.published or "none"), "\n".join(one.reasons) or "up to date") for one in found]
        show.print_table("", ("handle", "#published", "needs a new version because"), rows)
    for note in dict.fromkeys(note for one in found for note in one.unknown):
        show.tell(f"not compared: {note}")
    raise_problems(problems, len(models))
    old = [one.handle for one in found if one.reasons]
    if old:
        raise DifferentError(f"{len(old)} of {len(models)} handles are out of date: {', '.join(old)}.")


def look_at_published(
    models: Sequence[Handle],
    store: "Store",
    looked: Callable[[Checkpoint], "SourceObject"],
    digests: "DigestTable",
) -> tuple[list["Standing"], list[str]]:
    """Return how published models stand against what would be made now, and where that could not be told and why.

    `looked` says what the source has of a checkpoint.
    """
    from export.outdated import Now, compare_with_published
    from models.provenance import library_versions, pipeline_version

    checkpoints = {made.name: made.checkpoint for made in models}
    now = Now(library_versions(), pipeline_version(), digests)

    def work(name: str, steps: show.Steps) -> "Standing":
        steps.start(f"looking at {name}")
        return compare_with_published(name, store, looked(checkpoints[name]), now)

    return for_each(list(checkpoints), work)


@contextmanager
def opened_place(to: str, out: Path) -> Iterator[Callable[..., "Publication"]]:
    """Give what publishes a model at the place that `--to` names: a bucket, a directory or a hub.

    Raises:
        UsageError: it names none, or the client of a hub is not installed.
    """
    from export import hugging_face, kaggle
    from export.publish import publish as publish_model

    if to.startswith(kaggle.PREFIX):
        yield kaggle.KaggleModel.parse(to).publish
    elif to.startswith(hugging_face.PREFIX):
        yield hugging_face.HuggingFaceRepository.parse(to).publish
    else:
        with opened_store(to, out) as store:
            yield functools.partial(publish_model, store=store)


@contextmanager
def opened_store(to: str, out: Path | None = None) -> Iterator["Store"]:
    """Give the place that `--to` names.

    Raises:
        UsageError: it names none, or the directory in which the models are made.
    """
    from convert.upload import bucket, parse_destination
    from export import hugging_face, kaggle
    from export.stores import Mirror

    if to.startswith((kaggle.PREFIX, hugging_face.PREFIX)):
        raise UsageError(
            f"{to}: only publish sends there; here expected gs://bucket, gs://bucket/prefix or a directory."
        )
    place = parse_destination(to)
    if isinstance(place, str):
        with bucket(place) as store:
            yield store
        return
    if out is not None and place.resolve() == out.resolve():
        raise UsageError(f"--to {to} is where the models are made (--out): give another directory.")
    yield Mirror(place)


def chosen_names(handles: Sequence[str], flavour: options.Flavour, out: Path, version: int) -> list[str]:
    """Return the names of the models that are meant: of the catalog in these flavours, or one's own as they stand.

    Raises:
        UsageError: a name is neither of the catalog nor that of a model in `out`.
    """
    own = [name for name in handles if _is_own(name, flavour, out, version)]
    known = {handle.name: handle for handle in select_handles([name for name in handles if name not in own])}
    names = []
    for name in handles or known:
        template = known.get(name)
        for one in flavour.each:
            if template is not None:
                names.append(template.in_flavour(one).name)
            else:
                names.append(name.removesuffix(GRAPH_SUFFIX) + GRAPH_SUFFIX if one == "graph" else name)
    for name in names:
        tidy(ModelPaths.of(out, name, version))  # what an ended process left aside comes back
    return list(dict.fromkeys(names))


def _is_own(name: str, flavour: options.Flavour, out: Path, version: int) -> bool:
    try:
        select_handles([name])
    except UsageError:
        stems = {name, name.removesuffix(GRAPH_SUFFIX) + GRAPH_SUFFIX} if "graph" in flavour.each else {name}
        models = [ModelPaths.of(out, stem, version) for stem in stems if "/" not in name]
        for model in models:
            tidy(model)
        return any(model.manifest.is_file() for model in models)
    return False


def for_each(names: Sequence[str], work: Callable[[str, show.Steps], Done]) -> tuple[list[Done], list[str]]:
    """Do the work for each name; a failure ends that one only. Return what was done, and what failed and why."""
    done, problems = [], []
    with show.steps(len(names)) as steps:
        for name in names:
            try:
                done.append(work(name, steps))
            except Exception as error:  # the others are still done; --debug shows where
                LOG.debug("failed", exc_info=True)
                ours = isinstance(error, MixerError)
                problems.append(f"{name}: {error}" if ours else f"{name}: unexpected {type(error).__name__}: {error}")
                steps.finish(f"{name}: failed")
            else:
                steps.finish(f"{name}: done")
    return done, problems


def raise_problems(problems: Sequence[str], total: int) -> None:
    """Say what failed.

    Raises:
        MixerError: something did.
    """
    if problems:
        raise MixerError("\n".join((f"{len(problems)} of {total} handles failed.", *problems)))


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value
