"""Commands about formats beyond TensorFlow: export."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from convert.cli import options
from models.catalog import BUCKET, DEFAULT_VERSION, select_handles
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
        help="Where the models are: from DIR/<handle>-graph/<version> to DIR/<handle>-<format>/<version>.",
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
    json: options.Json = False,
) -> None:
    """Write graph SavedModels in a format beyond TensorFlow, and hold each file against a float64 oracle."""
    from convert.cli import exporting, stages
    from convert.cli.frameworks import import_frameworks
    from convert.fetch import parse_source
    from models.digests import DigestTable

    parse_source(source)
    work = exporting.Exports(
        FORMATS[to.value],
        tuple(select_handles(handles or ())),
        stages.Source(source, cache, DigestTable.read()),
        out,
        version,
        overwrite=overwrite,
    )
    work.format.require()
    exporting.check_exports(work)
    import_frameworks()
    exporting.print_outcomes(exporting.run_exports(work), json=json)
