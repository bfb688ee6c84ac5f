"""Commands about the environments that a model runs in: matrix, doctor."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from convert.cli import options, show
from models.catalog import DEFAULT_VERSION, HANDLES, TESTING_HANDLES, Flavour, Handle, select_handles
from models.errors import MixerError, UsageError
from models.flavours import FLAVOURS
from models.paths import ModelPaths

if TYPE_CHECKING:
    from convert.cli.stages import Material, Source
    from validation.matrix import Matrix, Model

WHOLE = [name for name, handle in HANDLES.items() if handle.checkpoint.name == "b32_sam"]
"""The smallest of the whole-size models."""

Handles = Annotated[
    list[str] | None,
    typer.Argument(metavar="HANDLE", help=f"Models to run; none means {', '.join([*TESTING_HANDLES, *WHOLE])}."),
]
SeededOr = Annotated[
    str | None, typer.Option("--source", metavar="S", help="Read checkpoints from there, instead of seeding them.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(matrix)
    app.command()(doctor)


def matrix(
    handles: Handles = None,
    releases: Annotated[
        str | None, typer.Option(metavar="2.12,2.14", help="TensorFlow releases; default: all of the matrix.")
    ] = None,
    source: SeededOr = None,
    cache: options.Cache = None,
    flavour: options.FlavourOption = options.Flavour.both,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where matrix.json goes.")] = Path("build"),
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Run nothing; print what stands in DIR/matrix.json (the README's).")
    ] = False,
    json: options.Json = False,
) -> None:
    """Run models in one TensorFlow release after the other, each alone in an environment that is removed after."""
    from validation.matrix import Matrix, tabulate

    path = out / "matrix.json"
    if markdown:
        sys.stdout.write("".join(f"{line}\n" for line in markdown_lines(Matrix.read(path))))
        return
    chosen = select_handles(handles or [*TESTING_HANDLES, *WHOLE])
    names = [name.strip() for name in releases.split(",")] if releases else []
    try:
        earlier = _earlier(path, chosen, flavour.each)
    except MixerError:
        if names:
            raise
        earlier = None

    def keep(part: "Matrix") -> None:
        (earlier.renewed(part) if earlier else part).write(path)

    ran = _run(chosen, flavour.each, names, source, cache, keep)
    found = earlier.renewed(ran) if earlier and names else ran
    found.write(path)
    if json:
        show.print_json(found.model_dump(mode="json"))
    else:
        columns, rows = tabulate(found)
        show.print_table("largest difference from JAX, over the scale of an image's outputs", columns, rows)
        show.tell(f"written to {path}")
    if ran.problems:
        raise MixerError("\n".join(ran.problems))


def _earlier(path: Path, chosen: Sequence[Handle], flavours: Sequence[Flavour]) -> "Matrix | None":
    """Return the matrix that stands there, whose other releases are to be kept; None if there is none.

    Raises:
        UsageError: it is of other models or of another platform: one table could not hold both.
    """
    from validation.matrix import Matrix, describe_platform

    if not path.is_file():
        return None
    earlier = Matrix.read(path)
    models = {handle.in_flavour(flavour).name for handle in chosen for flavour in flavours}
    for what, found, wanted in (
        ("models", ", ".join(sorted(earlier.models)), ", ".join(sorted(models))),
        ("platform", earlier.platform, describe_platform()),
    ):
        if found and found != wanted:
            raise UsageError(
                f"{path} is of other {what}: found {found}, expected {wanted}, as its other releases are to be kept. "
                "Give another --out, or run all releases."
            )
    return earlier


def _run(
    chosen: Sequence[Handle],
    flavours: Sequence[Flavour],
    releases: Sequence[str],
    place: str | None,
    cache: Path | None,
    keep: "Callable[[Matrix], None]",
) -> "Matrix":
    from convert.cli.frameworks import import_frameworks
    from convert.fetch import parse_source
    from validation.environments import select_releases
    from validation.matrix import run_matrix

    rows = select_releases(releases)
    if place is not None:
        parse_source(place)
    import_frameworks()
    with (
        TemporaryDirectory(prefix="matrix-") as folder,
        show.steps(len(rows) * len(chosen) * len(flavours)) as on,
    ):
        on.start(f"making {len(chosen) * len(flavours)} models")
        models = list(_make(chosen, flavours, Path(folder), place, cache))
        return run_matrix(rows, models, started=on.start, finished=on.finish, keep=keep)


def _make(
    chosen: Sequence[Handle], flavours: Sequence[Flavour], folder: Path, place: str | None, cache: Path | None
) -> Iterator["Model"]:
    """Write each model in each flavour, with images and JAX's outputs for them, below `folder`."""
    from convert.cli.stages import Source
    from convert.seeded import write_seeded
    from models.digests import DigestTable

    digests = DigestTable.read()
    for checkpoint in dict.fromkeys(handle.checkpoint for handle in chosen):
        source = Source(place or "", cache, digests)
        if place is None or checkpoint.testing:  # no bucket has the tests' own
            source = Source(str(folder), cache, digests)
            write_seeded(checkpoint, folder)
        yield from _make_of(source, [one for one in chosen if one.checkpoint == checkpoint], flavours, folder)


def _make_of(
    source: "Source", handles: Sequence[Handle], flavours: Sequence[Flavour], folder: Path
) -> "Iterator[Model]":
    import numpy as np

    from convert.cli import stages
    from validation.images import gate_inputs
    from validation.matrix import Model
    from validation.reference import apply_both
    from validation.scale import measure_scale

    checkpoint = handles[0].checkpoint
    material: Material = stages.bring(checkpoint, source, fetching=_silent, reading=_silent)
    inputs = folder / f"{checkpoint.name}.npy"
    images = gate_inputs(checkpoint.architecture.image_size).images
    np.save(inputs, images)
    logits, features = apply_both(checkpoint, material.loaded.params, images)
    for handle in handles:
        expected, scale = folder / f"{handle.name}.npy", folder / f"{handle.name}.scale.npy"
        outputs, head = (logits, material.loaded.params["head"]) if handle.num_classes else (features, None)
        np.save(expected, outputs)
        np.save(scale, measure_scale(outputs, features, head).of)
        labels = handle.labels.checked_path() if handle.labels else None
        for flavour in flavours:
            made = handle.in_flavour(flavour)
            destination = ModelPaths.of(folder / "models", made.name, DEFAULT_VERSION)
            stages.write(made, material, destination, labels=labels, overwrite=False)
            yield Model(
                made.name, checkpoint.architecture.name, flavour, destination.directory, inputs, expected, scale
            )


def _silent(done: int, total: int) -> None:
    pass


def markdown_lines(found: "Matrix") -> Iterator[str]:
    """Yield the README's part about the matrix."""
    from validation.consumer import LIMIT
    from validation.matrix import tabulate

    columns, rows = tabulate(found)
    yield "<!-- made by: mixer-jax2tf matrix --markdown -->"
    yield ""
    yield f"Measured on {found.date} ({found.platform}, CPU) with seeded checkpoints. A figure: every check passed, and"
    yield "by that much the outputs differ from JAX's at most, over the scale of an image's outputs (allowed:"
    yield f"{LIMIT:g}); in brackets where the flavour promises nothing. No: it promises nothing, and does not run."
    yield ""
    yield from show.markdown_table([*columns[:4], *(f"#{column}" for column in columns[4:])], rows).splitlines()
    yield ""
    for kind in FLAVOURS.values():
        yield f"- `{kind.name}`: {kind.what}; TensorFlow {kind.lowest} to {kind.highest}, {kind.platforms}."
    for day, releases in _earlier_days(found).items():
        yield f"- {', '.join(releases)}: measured on {day}"
    for reason, where in _reasons(found).items():
        yield f"- {', '.join(where)}: {reason}"


def _earlier_days(found: "Matrix") -> dict[str, list[str]]:
    """Return which releases were run before the last day, by the day."""
    days: dict[str, list[str]] = {}
    for row in found.rows:
        if row.date not in (None, found.date):
            days.setdefault(str(row.date), []).append(row.tensorflow or row.release)
    return dict(sorted(days.items()))


def _reasons(found: "Matrix") -> dict[str, list[str]]:
    """Return why something does not run or was not run, and where."""
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


def doctor(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A SavedModel.")],
    python: Annotated[
        str, typer.Option(metavar="PYTHON", help="Ask the environment of this Python.", show_default="this one")
    ] = sys.executable,
    json: options.Json = False,
) -> None:
    """Say whether an environment can run a model, and what to do if not; exit status 1 if it cannot."""
    from validation import doctor as file

    command = [python, str(Path(file.__file__).resolve()), str(directory), *["--json"] * json]
    try:
        done = subprocess.run(command, check=False)
    except OSError as error:
        raise UsageError(f"--python {python} cannot be started ({error.strerror}): expected a Python.") from error
    raise typer.Exit(done.returncode)
