"""Options and arguments that several commands take."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from models import catalog


def _complete(incomplete: str) -> list[str]:
    return [name for handles in catalog.COLLECTIONS.values() for name in handles if name.startswith(incomplete)]


def _names(metavar: str, help_text: str) -> typer.models.ArgumentInfo:
    """Return an argument that handles are completed for."""
    return typer.Argument(metavar=metavar, autocompletion=_complete, help=help_text)  # type: ignore[no-any-return]


Handles = Annotated[
    list[str] | None, _names("HANDLE", "Handles of the catalog, or quoted patterns: '*gsam*'. Default: all twelve.")
]
Patterns = Annotated[
    list[str] | None,
    _names("PATTERN", "Handles, or quoted patterns of handles: '*gsam*'. Default: the twelve of version 1."),
]
Models = Annotated[
    list[str] | None,
    _names(
        "HANDLE|NAME",
        "Handles of the catalog, quoted patterns ('*gsam*'), or names of other models below --out: custom ones, "
        "exports. Default: all twelve.",
    ),
]
CollectionOption = Annotated[
    catalog.Collection | None,
    typer.Option("--collection", help="All handles of a collection: the twelve of version 1, or those of GSAM."),
]
HandlesOrNames = Annotated[
    list[str] | None,
    _names(
        "HANDLE|NAME",
        "Handles of the catalog, quoted patterns ('*gsam*'), or names of custom models. Default: all twelve.",
    ),
]
Source = Annotated[
    str,
    typer.Option(
        metavar="S",
        envvar="MIXER_JAX2TF_SOURCE",
        help="Where to read checkpoints: gs://bucket, or a directory of its layout.",
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        envvar="MIXER_JAX2TF_CACHE",
        help="Directory of downloaded checkpoints and unpacked data sets.",
        show_default="the user's cache directory",
    ),
]
OUT_VARIABLE = "MIXER_JAX2TF_OUT"
Out = Annotated[
    Path,
    typer.Option(metavar="DIR", envvar=OUT_VARIABLE, help="Directory of the models: DIR/<handle>/<version>."),
]
Version = Annotated[int, typer.Option(metavar="N", min=1, max=999_999, help="Version number of the models.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing models.")]
Jobs = Annotated[
    int,
    typer.Option(metavar="J", min=1, help="Parallel processes, one checkpoint each; fewer if memory is short."),
]
Memory = Annotated[
    float | None,
    typer.Option(
        metavar="GIB",
        min=1,
        max=1 << 20,
        help="Memory that the processes of --jobs may need together; default: the machine's.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT|local",
        help="Distribute the pictures over a running Ray cluster, or over one that is started on this machine (local); "
        "needs the extra `ray`.",
    ),
]
NoGraphCache = Annotated[
    bool,
    typer.Option(
        "--no-graph-cache", help="Trace each graph, even if the cache has one of the same sources, libraries and sizes."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

Publisher = Annotated[str, typer.Option(metavar="P", help="Publisher on TensorFlow Hub, and owner on Kaggle.")]
Assets = Annotated[
    str,
    typer.Option(
        metavar="URL",
        help="Base URL of the published archives: https://..., followed by /<handle>/<version>.tar.gz.",
    ),
]


SignKey = Annotated[
    Path | None,
    typer.Option(
        metavar="KEY.pem", help="Sign the provenance with this private key (elliptic curve; needs the extra `sign`)."
    ),
]
AllowDirty = Annotated[bool, typer.Option("--allow-dirty", help="Publish models made from uncommitted sources.")]
CustomCheckpoint = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        metavar="FILE",
        help="Custom checkpoint: an .npz of HANDLE's architecture, with any number of classes. Needs --name, or the "
        "name of a converted custom model instead of HANDLE.",
    ),
]
CustomName = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the custom model.")]
Labels = Annotated[
    Path | None,
    typer.Option("--labels", metavar="FILE", help="Class list of the custom model: a text file, one line per class."),
]
About = Annotated[
    Path | None,
    typer.Option(
        "--about",
        metavar="FILE.toml",
        help="What the cards of the custom model are to say: license, training_data, description, [[accuracy]].",
    ),
]
StripPrefix = Annotated[
    str | None,
    typer.Option(
        "--strip-prefix",
        metavar="PREFIX",
        help="What the names of the arrays in --checkpoint begin with, such as params/; other arrays are ignored.",
    ),
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


InputsSetOption = Annotated[
    Literal["gate", "full"],
    typer.Option(
        "--set", help="gate: outputs and variables; full: also more inputs, gradients, and the ways users call a model."
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR|TAR.GZ",
        help="A published earlier version of HANDLE, to compare outputs, signatures and variables with; exit status 3 "
        "if they differ. A SavedModel is a program: give one that you trust.",
    ),
]
FlavourOption = Annotated[
    Flavour,
    typer.Option(
        "--flavour",
        help="native: JAX's lowering as one operation, for TensorFlow 2.13 or later; graph: plain operations, for "
        "TensorFlow 2.6 or later and for converters, named HANDLE-graph.",
    ),
]
