"""Commands that use models: classify."""

import csv
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convert.cli import console, options
from models.catalog import DEFAULT_VERSION
from models.errors import MixerError, UsageError, counted, each, shown
from models.preprocessing import Protocol

if TYPE_CHECKING:
    from convert.pipeline.classify import Classified
    from convert.pipeline.usable_model import UsableModel


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A classifier: its name below --out, the directory of a SavedModel, or an exported file.",
    ),
]
Images = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE",
        help="Picture files, folders of them, or - for standard input. A picture that does not exist or cannot be read "
        "is named, and the others go on (status 1).",
    ),
]
Top = Annotated[int, typer.Option(metavar="K", min=1, help="How many classes are shown for each picture.")]
ClassList = Annotated[
    Path | None,
    typer.Option("--labels", metavar="FILE", help="Class list, one line per class, instead of the model's own."),
]
ProtocolOption = Annotated[
    Protocol,
    typer.Option(
        "--protocol",
        help="paper: the smaller side resized, the middle cropped, as in the signature serving_bytes; hub: resized to "
        "the model's size, aspect ignored, as in the collection's notebooks.",
    ),
]
Exif = Annotated[bool, typer.Option("--exif/--no-exif", help="Turn pictures upright as their EXIF orientation says.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV, one line per class, instead of a table.")]


def classify(
    model: Model,
    images: Images,
    out: options.Out = Path("build"),
    version: options.Version = DEFAULT_VERSION,
    top: Top = 5,
    labels: ClassList = None,
    protocol: ProtocolOption = "paper",
    exif: Exif = True,
    ray: options.Ray = None,
    json: options.Json = False,
    as_csv: Csv = False,
) -> None:
    """Classify pictures: the likeliest classes of each, with their probabilities."""
    from convert.pipeline.classify import STDIN, classify_pictures, find_pictures
    from convert.pipeline.distributed import chosen_run, run_where
    from convert.pipeline.usable_model import UsableModel, find_model

    if json and as_csv:
        raise UsageError("--json and --csv exclude each other.")
    if ray and STDIN in images:
        raise UsageError("--ray reads pictures on the workers, which have no standard input: give files.")
    if STDIN in images and sys.stdin.isatty():
        raise UsageError("- is standard input, which is a terminal here: expected a picture, by a pipe or `< FILE`.")
    way = chosen_run(ray)
    watch, given, models = console.progress_bar(), dict[str, str | None](), list[UsableModel]()
    finding = lambda: models.append(find_model(model, out, version, labels=labels))  # noqa: E731
    each([finding, lambda: given.update(find_pictures(images, watch))])
    (found,) = models
    stdin = sys.stdin.buffer if STDIN in given else None
    work = partial(classify_pictures, found, given, top=top, protocol=protocol, exif=exif, stdin=stdin, run=way)
    results = run_where(ray, work, watch)
    if json:
        console.print_json(_as_json(found, results, protocol, exif=exif))
    elif as_csv:
        _print_csv(results)
    else:
        _print_table(found, results)
    for note in _notes(found, results, protocol, exif=exif):
        console.tell(note)
    _raise_unreadable(results)


def _raise_unreadable(results: Sequence["Classified"]) -> None:
    """Raise an error that names the pictures that could not be classified, if there are any.

    Raises:
        MixerError: some could not.
    """
    problems = [f"{one.picture}: {one.problem}" for one in results if one.problem]
    if problems:
        were = "was" if len(problems) == 1 else "were"
        total = counted(len(results), "picture")
        raise MixerError("\n".join((f"{len(problems):,} of {total} {were} not classified.", *problems)))


def _print_table(model: "UsableModel", results: Sequence["Classified"]) -> None:
    rows = []
    files = [Path(one.picture).name for one in results]
    short = len(set(files)) == len(files)
    for one, file in zip(results, files, strict=True):
        for rank, score in enumerate(one.scores):
            picture = shown(file if short else one.picture) if rank == 0 else ""
            rows.append((picture, str(rank + 1), score.name or "", str(score.index), f"{score.probability:.2%}"))
    if rows:
        console.print_table(model.name, ("picture", "#rank", "class", "#index", "#probability"), rows, prose=("class",))


def _print_csv(results: Sequence["Classified"]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("picture", "rank", "index", "name", "probability", "logit"))
    for one in results:
        for rank, score in enumerate(one.scores, 1):
            writer.writerow((one.picture, rank, score.index, score.name or "", score.probability, score.logit))


def _as_json(model: "UsableModel", results: Sequence["Classified"], protocol: str, *, exif: bool) -> dict[str, object]:
    return {
        "handle": model.name,
        "path": str(model.path),
        "origin": model.origin,
        "protocol": protocol,
        "exif": exif,
        "probability": _scores(model),
        "pictures": [
            {
                "picture": one.picture,
                "problems": [one.problem] if one.problem else [],
                "classes": [
                    {
                        "index": score.index,
                        "name": score.name,
                        "probability": score.probability,
                        "logit": score.logit,
                    }
                    for score in one.scores
                ],
            }
            for one in results
        ],
    }


def _scores(model: "UsableModel") -> str:
    return "sigmoid" if model.many_labels else "softmax"


def _notes(model: "UsableModel", results: Sequence["Classified"], protocol: str, *, exif: bool) -> list[str]:
    unknown = ["what the model was made from is not known: no manifest or model.json was found with it."]
    of_model = unknown if model.origin is None else []
    if not any(one.scores for one in results):
        return of_model
    turned = "turned upright by EXIF, then " if exif else ""
    resized = {
        "paper": "the smaller side resized and the middle cropped, as in the signature serving_bytes",
        "hub": "resized to the model's size, aspect ignored",
    }
    notes = [
        f"pictures: {turned}{resized[protocol]}; probabilities by {_scores(model)}, for display only.",
    ]
    if model.classes is None:
        notes.append("the classes have no names here: give a class list with --labels.")
    if model.origin == "seeded":
        notes.append("the weights are synthetic, never trained: these classes mean nothing.")
    return [*notes, *of_model]
