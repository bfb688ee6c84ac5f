"""Commands about the environments that a model runs in: matrix, doctor."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convert.cli import console, options
from models.catalog import HANDLES, TESTING_HANDLES, Flavour, Handle
from models.errors import MixerError, UsageError
from models.selection import select_handles

if TYPE_CHECKING:
    from validation.compatibility.matrix import Matrix

WHOLE = [name for name, handle in HANDLES.items() if handle.checkpoint.name == "b32_sam"]
"""The smallest of the full-size models."""

Handles = Annotated[
    list[str] | None,
    typer.Argument(metavar="HANDLE", help=f"Models to run. Default: {', '.join([*TESTING_HANDLES, *WHOLE])}."),
]
SeededOr = Annotated[
    str | None,
    typer.Option("--source", metavar="S", help="Where to read checkpoints. Default: synthetic ones are made."),
]


def matrix(
    handles: Handles = None,
    releases: Annotated[
        str | None, typer.Option(metavar="2.12,2.14", help="TensorFlow releases. Default: all of the matrix.")
    ] = None,
    source: SeededOr = None,
    cache: options.Cache = None,
    flavour: options.FlavourOption = options.Flavour.both,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory of matrix.json.")] = Path("build"),
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Run nothing; print DIR/matrix.json as Markdown, as in its page.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Run models in each TensorFlow release, each in a temporary environment."""
    from convert.checkpoints.fetch import Source
    from convert.pipeline.matrix import make_and_run
    from validation.compatibility.matrix import Matrix
    from validation.compatibility.tables import markdown_lines, tabulate, uses_in_markdown

    path = out / "matrix.json"
    if markdown:
        read = Matrix.read(path)
        sys.stdout.write("".join(f"{line}\n" for line in (*markdown_lines(read), "", *uses_in_markdown(read))))
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

    place = None if source is None else Source(source, cache)
    ran = make_and_run(chosen, flavour.each, names, place, keep, console.progress_bar())
    found = earlier.renewed(ran) if earlier and names else ran
    found.write(path)
    if json:
        console.print_json(found.model_dump(mode="json"))
    else:
        columns, rows = tabulate(found)
        title = "largest difference from JAX, over the scale of an image's outputs"
        console.print_table(title, columns, rows, least=("Keras", "NumPy", "Python"))
        console.tell(f"written to {path}")
    if ran.problems:
        raise MixerError("\n".join(ran.problems))


def _earlier(path: Path, chosen: Sequence[Handle], flavours: Sequence[Flavour]) -> "Matrix | None":
    """Return the existing matrix, whose other releases are kept; None if there is none.

    Raises:
        UsageError: it is of other models or another platform, which one table cannot contain.
    """
    from validation.compatibility.matrix import Matrix, describe_platform

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
                f"{path} is of other {what}, so its results cannot be combined with these: found {found}, expected "
                f"{wanted}. Give another --out, or run all releases."
            )
    return earlier


def doctor(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory of a SavedModel.")],
    python: Annotated[
        str, typer.Option(metavar="PYTHON", help="Check the environment of this Python.", show_default="this one")
    ] = sys.executable,
    json: options.Json = False,
) -> None:
    """Check whether an environment can run a model, and say what to do if not.

    The exit status is 1 if it cannot, and 2 if DIR is not a model.
    """
    from validation import doctor as file

    command = [python, str(Path(file.__file__).resolve()), str(directory), *["--json"] * json]
    try:
        done = subprocess.run(command, check=False)
    except OSError as error:
        raise UsageError(
            f"--python {python} cannot be started ({error.strerror}): expected a Python interpreter."
        ) from error
    raise typer.Exit(done.returncode)
