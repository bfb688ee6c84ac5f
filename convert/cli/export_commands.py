"""Commands about formats beyond TensorFlow: export."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from convert.cli import options
from convert.cli.model_commands import OwnCheckpoint, OwnName, choose, own_file
from models.catalog import BUCKET, DEFAULT_VERSION
from models.formats import FORMATS


class FormatChoice(StrEnum):
    """The formats beyond TensorFlow."""

    litert = "litert"
    onnx = "onnx"
    openvino = "openvino"


To = Annotated[
    FormatChoice,
    typer.Option(
        "--to",
        help="litert: float32, float16 and int8 weights; onnx, openvino: float32. Each needs the extra of its name.",
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        metavar="DIR",
        help="Where the models are: in DIR/<handle>-graph; they go to DIR/<handle>-<format>.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(export)


def export(
    to: To,
    handles: options.Handles = None,
    source: options.Source = BUCKET,
    cache: options.Cache = None,
    out: Out = Path("build"),
    version: options.Version = DEFAULT_VERSION,
    overwrite: options.Overwrite = False,
    checkpoint: OwnCheckpoint = None,
    name: OwnName = None,
    json: options.Json = False,
) -> None:
    """Write graph SavedModels in a format beyond TensorFlow, and hold each file against a float64 oracle."""
    from convert.cli import exporting, stages
    from convert.cli.frameworks import import_frameworks
    from models.digests import DigestTable

    own = own_file(checkpoint, name)
    work = exporting.Exports(
        FORMATS[to.value],
        choose(handles or [], source, own),
        stages.Source(source, cache, DigestTable.read()),
        out,
        version,
        own=own,
        overwrite=overwrite,
    )
    work.format.require()
    exporting.check_exports(work)
    import_frameworks()
    exporting.print_outcomes(exporting.run_exports(work), json=json)
