"""The command accuracy."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convert.cli import classify, console, options
from models.catalog import BUCKET, DEFAULT_VERSION
from models.errors import MixerError, counted, each
from models.formats import BACKENDS
from validation.accuracy.counts import Share, mcnemar

if TYPE_CHECKING:
    from convert.pipeline.accuracy import AccuracyResult, Measured

_MOST_SHOWN = 10  # pictures on which two backends differ
_MOST_CLASSES = 12


Data = Annotated[
    Path,
    typer.Option(
        metavar="DIR|tfds:NAME",
        help="Labelled pictures: one folder per class (named by class name, class index or WordNet id), the flat "
        "folder of ImageNet's validation pictures, or a prepared data set (tfds:NAME:SPLIT).",
    ),
]
Backends = Annotated[
    list[str] | None,
    typer.Option(
        "--backend",
        metavar="|".join(BACKENDS),
        help="Run the model of this name in this backend (default: MODEL itself); give it several times to compare.",
    ),
]
Real = Annotated[
    Path | None,
    typer.Option("--real", metavar="FILE", help="Use the labels of ReaL, from its file real.json."),
]
Devkit = Annotated[
    Path | None,
    typer.Option(
        "--devkit", metavar="DIR", help="Take the labels of ImageNet's validation pictures from the development kit."
    ),
]
TensorBoard = Annotated[
    Path | None, typer.Option("--tensorboard", metavar="DIR", help="Write the running accuracies for TensorBoard.")
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The checkpoint of a custom model, for --backend jax."),
]
Csv = Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write one line for each picture and backend.")]
Confusion = Annotated[
    Path | None,
    typer.Option("--confusion", metavar="FILE.png", help="Draw which classes the (first) model takes for which."),
]
Record = Annotated[
    bool,
    typer.Option("--record", help="Write the accuracy beside each SavedModel's manifest, for card and publication."),
]


def accuracy(
    model: classify.Model,
    data: Data,
    backend: Backends = None,
    out: options.Out = Path("build"),
    version: options.Version = DEFAULT_VERSION,
    labels: classify.ClassList = None,
    real: Real = None,
    devkit: Devkit = None,
    protocol: classify.ProtocolOption = "paper",
    source: options.Source = BUCKET,
    cache: options.Cache = None,
    checkpoint: Checkpoint = None,
    strip_prefix: options.StripPrefix = None,
    csv_file: Csv = None,
    confusion: Confusion = None,
    tensorboard: TensorBoard = None,
    record: Record = False,
    ray: options.Ray = None,
    json: options.Json = False,
) -> None:
    """Measure top-1 and top-5 accuracy on labelled pictures, in one backend or several at once.

    After an interruption the same command resumes where it stopped.
    """
    from convert.checkpoints.fetch import Source
    from convert.pipeline.accuracy import find_pictures_of, measure_accuracy
    from convert.pipeline.accuracy_files import AccuracyFiles
    from convert.pipeline.accuracy_record import Recordable
    from convert.pipeline.contenders import Contender, find_contenders
    from convert.pipeline.distributed import chosen_run, run_where

    way, files = chosen_run(ray), AccuracyFiles(csv_file, confusion, tensorboard)
    place, prefix = Source(source, cache), strip_prefix or ""
    find = partial(find_contenders, model, backend or (), out, version, labels=labels, source=place)
    watch, contenders = console.progress_bar(), list[Contender]()
    finding = lambda: contenders.extend(find(checkpoint=checkpoint, strip_prefix=prefix))  # noqa: E731
    each([finding, lambda: _require_data(data), lambda: files.check(data)])
    dataset = find_pictures_of(contenders, data, watch, cache=cache, real=real, devkit=devkit)
    recordable = Recordable.of(contenders, labels=labels) if record else None
    console.tell(f"{data}: {dataset.layout}; {counted(len(dataset.pictures), 'picture')}.")
    measure = partial(measure_accuracy, contenders, dataset, protocol=protocol, cache=cache, run=way)
    result = run_where(ray, measure, watch)
    for path in files.write(result):
        console.tell(f"written: {path}")
    _print(result, protocol, json=json)
    for path in recordable.record(result, protocol) if recordable else ():
        console.tell(f"recorded in {path}")
    _raise_problems(result)


def _require_data(data: Path) -> None:
    """Refuse a directory of pictures that does not exist; a data set is looked for when it is unpacked.

    Raises:
        UsageError: there is no such directory.
    """
    from convert.pipeline.tfds_data import PREFIX
    from validation.accuracy.dataset import require_directory

    if not os.fspath(data).startswith(PREFIX):
        require_directory(data)


def _raise_problems(result: "AccuracyResult") -> None:
    if result.problems:
        said = f"{len(result.problems)} of {len(result.dataset.pictures)} pictures could not be read."
        raise MixerError("\n".join((said, *result.problems)))


def _print(result: "AccuracyResult", protocol: str, *, json: bool) -> None:
    if json:
        console.print_json(_as_json(result, protocol))
    else:
        _print_tables(result)
    for note in _notes(result):
        console.tell(note)


def _print_tables(result: "AccuracyResult") -> None:
    columns = ("backend", "#top-1", "#95 % interval", "#top-5", "#its interval", "#pictures", "#pictures/s")
    rows = []
    for one in result.measured:
        for name, answers in _countings(one):
            first, fifth = answers
            rows.append((name, *_share(first), *_share(fifth), f"{first.total:,}", f"{one.speed:,.0f}"))
    least = ("pictures/s", "pictures", "its interval", "top-5")
    console.print_table(result.measured[0].model.name, columns, rows, least=least)
    _print_classes(result.measured[0])


def _print_classes(one: "Measured") -> None:
    """Print the classes, or those with the lowest accuracy if there are many."""
    shares = sorted(Share.by_class(one.answers).items(), key=lambda entry: (entry[1].value, entry[0]))
    worst = shares[:_MOST_CLASSES]
    title = "lowest accuracy" if len(shares) > len(worst) else "accuracy"
    rows = [
        (one.model.classes[index] if one.model.classes else "", str(index), f"{share.total:,}", *_share(share))
        for index, share in worst
    ]
    columns = ("class", "#index", "#pictures", "#top-1", "#95 % interval")
    console.print_table(f"classes by {title} ({one.backend})", columns, rows, prose=("class",), least=("index",))


def _countings(one: "Measured") -> Iterator[tuple[str, tuple[Share, Share]]]:
    yield one.backend, (Share.of(one.answers, 1), Share.of(one.answers, 5))
    if one.within_subset is not None:
        among = (Share.of(one.within_subset, 1), Share.of(one.within_subset, 5))
        yield f"{one.backend}, among the classes that occur", among


def _share(share: Share) -> tuple[str, str]:
    low, high = share.interval
    return f"{share.value:.2%}", f"{low:.2%} to {high:.2%}"


def _notes(result: "AccuracyResult") -> Iterator[str]:
    yield from result.remarks
    for one in result.measured:
        classes = len(one.model.classes or ())
        low, high = Share.of(one.answers, 1).interval
        if classes > 1 and low <= 1 / classes and high <= 3 / classes + 0.01:
            yield f"{one.backend}: no better than guessing: check the labels, and that the class list is the model's."
        if one.model.origin == "seeded":
            yield f"{one.backend}: the weights are synthetic, never trained: the accuracy means nothing."
    for comparison in _comparisons(result):
        first, second, other = comparison["first"], comparison["second"], comparison["other_first_class"]
        yield (
            f"{first} and {second} differ in the first class of {counted(len(other), 'picture')}; only {first} is "
            f"right on {comparison['only_first_right']:,}, only {second} on {comparison['only_second_right']:,} "
            f"(McNemar's test: p = {comparison['p']:.2g})."
        )
        for picture in other[:_MOST_SHOWN]:
            yield f"  {picture}"
        if len(other) > _MOST_SHOWN:
            yield f"  and {len(other) - _MOST_SHOWN:,} more: --csv FILE writes all answers"


def _comparisons(result: "AccuracyResult") -> Iterator[dict[str, Any]]:
    """Compare the first backend with each of the others, as JSON values."""
    first, *others = result.measured
    for second in others:
        only_first, only_second, p = mcnemar(first.answers, second.answers)
        answers = zip(result.pictures, first.answers, second.answers, strict=True)
        yield {
            "first": first.backend,
            "second": second.backend,
            "only_first_right": only_first,
            "only_second_right": only_second,
            "p": p,
            "other_first_class": [str(picture.path) for picture, a, b in answers if a.top[0] != b.top[0]],
        }


def _as_json(result: "AccuracyResult", protocol: str) -> dict[str, object]:
    return {
        "data": str(result.dataset.directory),
        "data_sha256": result.data_sha256,
        "layout": result.dataset.layout,
        "protocol": protocol,
        "pictures": len(result.pictures),
        "problems": list(result.problems),
        "remarks": list(result.remarks),
        "reading_seconds": result.reading_seconds,
        "comparisons": list(_comparisons(result)),
        "backends": [
            {
                "backend": one.backend,
                "handle": one.model.name,
                "path": str(one.model.path),
                "origin": one.model.origin,
                "seconds": one.seconds,
                "pictures_per_second": one.speed,
                "countings": [
                    {"name": name, "top1": _share_as_json(first), "top5": _share_as_json(fifth)}
                    for name, (first, fifth) in _countings(one)
                ],
                "classes": [
                    {
                        "index": index,
                        "name": one.model.classes[index] if one.model.classes else None,
                        **_share_as_json(share),
                    }
                    for index, share in Share.by_class(one.answers).items()
                ],
            }
            for one in result.measured
        ],
    }


def _share_as_json(share: Share) -> dict[str, object]:
    return {"right": share.right, "total": share.total, "value": share.value, "interval": list(share.interval)}
