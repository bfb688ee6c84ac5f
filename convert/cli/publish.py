"""Commands about publishing: package, card, verify, publish, outdated."""

import functools
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convert.cli import console, options
from models.catalog import BUCKET, DEFAULT_VERSION
from models.errors import DifferentError, MixerError, UsageError
from models.records.layout import ModelPaths
from models.selection import select_handles, split_custom
from models.storage.files import megabytes

if TYPE_CHECKING:
    from convert.pipeline.progress import Steps
    from export.publish.publish import Publication


def package(
    handles: options.Models = None,
    out: options.Out = Path("build"),
    version: options.Version = DEFAULT_VERSION,
    flavour: options.FlavourOption = options.Flavour.native,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing archives.")] = False,
    sign_key: options.SignKey = None,
    json: options.Json = False,
) -> None:
    """Pack models that passed their check as .tar.gz, each with its provenance."""
    from convert.pipeline.for_each import raise_problems
    from convert.pipeline.packages import package_models
    from convert.pipeline.selection import chosen_names

    names = chosen_names(handles or [], flavour.each, out, version)
    packed, problems = package_models(
        names, out, version, overwrite=overwrite, sign_key=sign_key, watch=console.progress_bar()
    )
    if json:
        done = [{name: _plain(value) for name, value in asdict(one).items()} | {"problems": []} for one in packed]
        console.print_json([*done, *(one.as_json() for one in problems)])
    else:
        rows = [(one.handle, str(one.archive), megabytes(one.size), one.sha256) for one in packed]
        console.print_table("", ("handle", "archive", "#size", "sha256"), rows, least=("sha256", "archive"))
    for one in packed:
        if one.note:
            console.tell(f"{one.handle} has no SBOM: {one.note}.")
    raise_problems(problems, len(names))


def card(
    publisher: options.Publisher,
    assets: options.Assets,
    handles: options.HandlesOrNames = None,
    out: options.Out = Path("build"),
    version: options.Version = DEFAULT_VERSION,
    flavour: options.FlavourOption = options.Flavour.native,
    json: options.Json = False,
) -> None:
    """Write the cards of models that passed their check, for TensorFlow Hub, Kaggle and Hugging Face.

    All figures come from the manifest and the report. Existing cards are replaced.

    Only a report of `validate --set full` says whether a model can be fine-tuned.
    """
    from convert.pipeline.cards import write_cards
    from convert.pipeline.selection import chosen_names
    from export.cards.publisher import Publisher

    where = Publisher(publisher, assets.rstrip("/"))
    names = chosen_names(handles or [], flavour.each, out, version)
    done, problems = write_cards(names, out, version, where, console.progress_bar())
    if json:
        written = [
            {"handle": one.name, "files": [*map(str, one.files)], "notes": one.notes, "problems": []} for one in done
        ]
        console.print_json([*written, *(one.as_json() for one in problems)])
    else:
        console.print_table("", ("handle", "file"), [(one.name, str(path)) for one in done for path in one.files])
    for note in (note for one in done for note in one.notes):
        console.tell(note)
    if problems:
        raise MixerError("\n".join(("not all cards could be written:", *map(str, problems))))


def verify(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="The directory of a SavedModel or an export, or its .tar.gz.")
    ],
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="KEY.pub", help="The publisher's public key (PEM): check the signature too."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Check a model against its manifest, report and provenance; needs neither JAX nor TensorFlow."""
    from convert.pipeline.progress import Steps
    from export.package.verify import verify as verify_model

    with Steps(console.progress_bar(), 1) as on:
        on.start(f"reading {path}")
        found = verify_model(path, check_signature=None if key is None else functools.partial(_check_signature, key))
    if json:
        values = {name: _plain(value) for name, value in asdict(found).items()}
        console.print_json(values | {"verdict": found.verdict})
    else:
        lines = [*((one, "same") for one in found.checked), *((one, "not checked") for one in found.not_checked)]
        lines += [(one, "different") for one in found.differences]
        console.print_table(
            f"{found.handle or path} version {found.version or '?'}", ("what", ""), lines, prose=("what",)
        )
    if found.differences:
        said = "".join(f"\n  {difference}" for difference in found.differences)
        raise DifferentError(
            f"{path} differs from its records:{said}\nDownload it again from where it was published, or, if it was "
            "made here, make it again with convert-all."
        )


def publish(
    to: Annotated[
        str,
        typer.Option(
            metavar="DEST",
            help="Destination: gs://bucket[/prefix], a directory (a mirror), kaggle:owner/model or hf:owner/repo.",
        ),
    ],
    handles: options.HandlesOrNames = None,
    out: options.Out = Path("build"),
    version: options.Version = DEFAULT_VERSION,
    flavour: options.FlavourOption = options.Flavour.native,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent; send nothing.")] = False,
    allow_dirty: options.AllowDirty = False,
    json: options.Json = False,
) -> None:
    """Publish packed models; published versions are never overwritten."""
    from convert.pipeline.for_each import for_each, raise_problems
    from convert.pipeline.selection import chosen_names
    from export.install import kept
    from export.publish.destinations import opened_place
    from export.publish.policy import PublishPolicy
    from models.digests import DigestTable

    names = chosen_names(handles or [], flavour.each, out, version)
    rules = PublishPolicy(DigestTable.read(), allow_dirty=allow_dirty)
    with opened_place(to, out) as send:

        def work(name: str, on: "Steps") -> "Publication":
            progress, destination = on.start(f"publishing {name}"), ModelPaths.of(out, name, version)
            with kept(destination):
                return send(destination, rules=rules, dry_run=dry_run, progress=progress)

        done, problems = for_each(names, work, console.progress_bar())
    if json:
        sent = [{**asdict(one), "sent": one.sent, "problems": []} for one in done]
        console.print_json([*sent, *(one.as_json() for one in problems)])
    else:
        rows = [(item.address, f"{item.size:,}", item.action) for one in done for item in one.items]
        console.print_table("", ("address", "#bytes", ""), rows)
    if done and not json:
        size = sum(one.sent for one in done)
        console.tell(f"{megabytes(size)} were sent." if size else "nothing was sent.")
    raise_problems(problems, len(names))


def outdated(
    published: Annotated[
        str, typer.Option(metavar="DEST", help="Where the models are published: gs://bucket[/prefix] or a directory.")
    ],
    handles: options.HandlesOrNames = None,
    source: options.Source = BUCKET,
    cache: options.Cache = None,
    flavour: options.FlavourOption = options.Flavour.native,
    json: options.Json = False,
) -> None:
    """List which published models need a new version, and why; downloads no checkpoints."""
    from convert.checkpoints.fetch import Source
    from convert.pipeline.for_each import raise_problems
    from convert.pipeline.outdated import compare_all_with_published
    from convert.pipeline.selection import in_flavours
    from export.publish.destinations import opened_store

    place = Source(source, cache)
    place.check()
    looked = functools.cache(place.probe)
    known, custom = split_custom(handles or ())
    models = in_flavours(select_handles(known), flavour.each) if known or not custom else ()
    with opened_store(published) as store:
        watch = console.progress_bar()
        found, problems = compare_all_with_published(models, store, looked, place.digests, watch, custom=custom)
    if json:
        console.print_json([*({**asdict(one), "problems": []} for one in found), *(one.as_json() for one in problems)])
    else:
        rows = [(one.handle, str(one.published or "none"), "\n".join(one.reasons) or "up to date") for one in found]
        console.print_table(
            "", ("handle", "#published", "needs a new version because"), rows, prose=("needs a new version because",)
        )
    for note in dict.fromkeys(note for one in found for note in one.unknown):
        console.tell(f"not compared: {note}")
    raise_problems(problems, len(models) + len(custom))
    old = [one.handle for one in found if one.reasons]
    if old:
        raise DifferentError(f"{len(old)} of {len(models) + len(custom)} handles are out of date: {', '.join(old)}.")


def _check_signature(key: Path, statement: Path, bundle: Path) -> str | None:
    """Return what is wrong with a signature, in words of the file that others check it with; None if nothing is."""
    from validation import verify as alone

    try:
        return alone.check_signature(statement, bundle, key)
    except alone.UsageError as error:
        raise UsageError(str(error)) from error


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value
