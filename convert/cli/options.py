"""Options and arguments that several commands take."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from models import catalog

Handles = Annotated[
    list[str] | None, typer.Argument(metavar="HANDLE", help="Handles of the catalog; none means all twelve.")
]
Source = Annotated[
    str, typer.Option(metavar="S", help="Bucket (gs://...) or directory of its layout to read checkpoints from.")
]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        envvar="MIXER_JAX2TF_CACHE",
        help="Where downloads are kept.",
        show_default="the user's cache directory",
    ),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where the models go: DIR/<handle>/<version>.")]
Version = Annotated[int, typer.Option(metavar="N", min=1, max=999_999, help="Version of the models.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace models that exist.")]
Jobs = Annotated[
    int,
    typer.Option(
        metavar="J", min=1, help="Processes at a time, each on a checkpoint; fewer where memory does not allow them."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

Publisher = Annotated[
    str, typer.Option(metavar="P", help="Who publishes: a publisher of TensorFlow Hub, an owner on Kaggle.")
]
Assets = Annotated[
    str,
    typer.Option(
        metavar="URL",
        help="Where published models are to be had: https://..., below which <handle>/<version>.tar.gz lies.",
    ),
]


SignKey = Annotated[
    Path | None,
    typer.Option(
        metavar="KEY.pem", help="Sign the provenance with this private key (elliptic curve; needs the extra `sign`)."
    ),
]
AllowDirty = Annotated[
    bool, typer.Option("--allow-dirty", help="Publish models made from sources that no commit names.")
]
CustomCheckpoint = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        metavar="FILE",
        help="One's own Mixer: an .npz of HANDLE's architecture; its head tells the classes. Needs --name.",
    ),
]
CustomName = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the model made from it.")]
Labels = Annotated[
    Path | None, typer.Option("--labels", metavar="FILE", help="Its class list: a text file, one line a class.")
]


class Flavour(StrEnum):
    """How the model is written in TensorFlow."""

    native = "native"
    graph = "graph"
    both = "both"

    @property
    def each(self) -> tuple[catalog.Flavour, ...]:
        """The chosen flavours."""
        meant: dict[Flavour, tuple[catalog.Flavour, ...]]
        meant = {Flavour.native: ("native",), Flavour.graph: ("graph",), Flavour.both: ("native", "graph")}
        return meant[self]


class InputsSet(StrEnum):
    """How much is checked."""

    gate = "gate"
    full = "full"


InputsSetOption = Annotated[
    InputsSet, typer.Option("--set", help="gate: outputs and variables; full: more inputs, gradients, consumers.")
]
Reference = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR|TAR.GZ",
        help="An earlier version of HANDLE, as published, to compare outputs, signatures and variables with; exit "
        "status 3 where they differ. A SavedModel is a program: give one that you trust.",
    ),
]
FlavourOption = Annotated[
    Flavour,
    typer.Option(
        "--flavour",
        help="native: JAX's own lowering as one operation, TensorFlow 2.13 or later; graph: plain operations, "
        "TensorFlow 2.6 or later and converters, named HANDLE-graph.",
    ),
]
