"""The Python interface: what the commands of the same names do, for programs.

    from convert.pipeline.interface import convert_all, package

    for outcome in convert_all(out="build"):
        print(outcome.handle, outcome.verdict, outcome.worst)
    package(out="build")

Results are returned, problems are raised, and nothing is printed. Work that needs JAX and TensorFlow runs in a separate
process, so that the caller's imports, environment, streams and signal handlers are unchanged.

Every function takes a list of handles of the catalog (none means all twelve) and, by name:

- `source`: `gs://bucket` or a directory of the bucket's layout, to read checkpoints from; `cache`: where downloads are
  kept, by default the user's cache directory.
- `out`, `version`: models are in `out/<handle>/<version>`. `flavours`: "native", "graph" or both.
- `custom`: a custom checkpoint, with the architecture and head of the one handle that is given with it.
- `progress`: called with an `Event` (`convert.pipeline.progress`) for each step; if it raises, the work ends.

Each raises `UsageError` before any work for what cannot succeed, arguments of another type and empty ones included, and
`HandlesFailedError` at the end if handles failed; both are `MixerError`.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from convert.checkpoints.fetch import Source
from convert.checkpoints.open import CustomCheckpoint
from convert.pipeline.accuracy import AccuracyResult, find_pictures_of, measure_accuracy
from convert.pipeline.accuracy_record import Recordable
from convert.pipeline.arguments import checked
from convert.pipeline.batch import check_batch, run_batch
from convert.pipeline.classify import Classified, classify_pictures, find_pictures
from convert.pipeline.contenders import find_contenders
from convert.pipeline.distributed import chosen_run
from convert.pipeline.export_formats import ExportOutcome, Exports
from convert.pipeline.fine_tuning import FineTuning
from convert.pipeline.finetune import FineTuningResult, run_finetune
from convert.pipeline.job import Batch
from convert.pipeline.outcome import Outcome
from convert.pipeline.packages import package_models
from convert.pipeline.page import refresh_page
from convert.pipeline.processes import Result, run_apart
from convert.pipeline.progress import Watch
from convert.pipeline.selection import choose, chosen_names, select_batch
from convert.pipeline.usable_model import find_model
from export.package.archive import Package
from models.catalog import BUCKET, DEFAULT_VERSION, Flavour
from models.errors import MixerError, UsageError
from models.formats import FORMATS, Backend, FormatName
from validation.previous.open import Published

_Word = Annotated[str, Field(min_length=1)]
AnyPath = _Word | PathLike[str]  # an empty one would be the working directory
_Flavours = Annotated[Sequence[Flavour], Field(min_length=1)]
_Count = Annotated[int, Field(ge=1)]
_Version = Annotated[int, Field(ge=1, le=999_999)]


class HandlesFailedError(MixerError):
    """Some handles failed; the text says which and why."""

    def __init__(self, problems: Sequence[str], outcomes: Sequence[Outcome | ExportOutcome | Package]) -> None:
        super().__init__("\n".join(problems))
        self.outcomes = tuple(outcomes)
        """The results for all handles; for `package`, only those that were packed."""


@checked
def convert_all(
    handles: Sequence[str] = (),
    *,
    source: AnyPath = BUCKET,
    cache: AnyPath | None = None,
    out: AnyPath,
    version: _Version = DEFAULT_VERSION,
    flavours: _Flavours = ("native",),
    overwrite: bool = False,
    jobs: _Count = 1,
    custom: CustomCheckpoint | None = None,
    progress: Watch | None = None,
) -> list[Outcome]:
    """Fetch, convert and check; skip models that are already complete and proven.

    - `overwrite`: replace models of other checkpoints, and make the others again.
    - `jobs`: processes at a time, each on a checkpoint.
    """
    batch = select_batch(
        "convert-all", handles, source=fspath(source), cache=_path(cache), out=Path(out), version=version,
        flavours=flavours, custom=custom,
    )  # fmt: skip
    return _run(replace(batch, overwrite=overwrite, jobs=jobs), progress)


@checked
def validate(
    handles: Sequence[str] = (),
    *,
    source: AnyPath = BUCKET,
    cache: AnyPath | None = None,
    out: AnyPath,
    version: _Version = DEFAULT_VERSION,
    flavours: _Flavours = ("native",),
    inputs_set: Literal["gate", "full"] = "gate",
    reference: AnyPath | None = None,
    custom: CustomCheckpoint | None = None,
    jobs: _Count = 1,
    progress: Watch | None = None,
) -> list[Outcome]:
    """Compare SavedModels with JAX and a float64 oracle, and write their reports.

    - `inputs_set`: "gate": outputs and variables; "full": more inputs, gradients, consumers.
    - `reference`: an earlier version of the only handle, to compare with: a SavedModel's directory or its `.tar.gz`.
      Differences from it are in the outcome's report (`report.reference`) and fail nothing.
    - `jobs`: processes at a time, each on a checkpoint.
    """
    batch = select_batch(
        "validate", handles, source=fspath(source), cache=_path(cache), out=Path(out), version=version,
        flavours=flavours, custom=custom,
    )  # fmt: skip
    if reference is not None and len(batch.handles) != 1:
        raise UsageError("reference takes one handle in one flavour: the model that it is an earlier version of.")
    with ExitStack() as stack:
        published = None if reference is None else stack.enter_context(Published.opened(Path(reference)))
        return _run(replace(batch, inputs_set=inputs_set, published=published, jobs=jobs), progress)


@checked
def export_to(
    format_name: FormatName,
    handles: Sequence[str] = (),
    *,
    source: AnyPath = BUCKET,
    cache: AnyPath | None = None,
    out: AnyPath,
    version: _Version = DEFAULT_VERSION,
    overwrite: bool = False,
    custom: CustomCheckpoint | None = None,
    progress: Watch | None = None,
) -> list[ExportOutcome]:
    """Write SavedModels of the graph flavour as LiteRT, ONNX or OpenVINO files, and compare each with the oracle.

    - `format_name`: "litert", "onnx" or "openvino".
    - `overwrite`: replace exports that exist.
    """
    place = Source(fspath(source), _path(cache))
    chosen, custom = choose(handles, place, custom, Path(out), version)
    work = Exports(FORMATS[format_name], chosen, place, Path(out), version, custom=custom, overwrite=overwrite)
    work.check()
    outcomes = run_apart(partial(_with_page, work.run, work.out), progress)
    _raise_failures([(one.name, one.problems) for one in outcomes], outcomes)
    return outcomes


@checked
def package(
    handles: Sequence[str] = (),
    *,
    out: AnyPath,
    version: _Version = DEFAULT_VERSION,
    flavours: _Flavours = ("native",),
    overwrite: bool = False,
    sign_key: AnyPath | None = None,
    progress: Watch | None = None,
) -> list[Package]:
    """Pack proven models as `.tar.gz`, each with its provenance; in this process, as it needs neither framework.

    - `handles`: of the catalog, or names of custom models in `out`; the other parameters are described above.
    - `overwrite`: replace archives that exist.
    - `sign_key`: a private key (elliptic curve, PEM) to sign the provenance with; needs the extra `sign`.
    """
    names = chosen_names(handles, flavours, Path(out), version)
    packed, problems = package_models(
        names, Path(out), version, overwrite=overwrite, sign_key=_path(sign_key), watch=progress
    )
    if problems:
        raise HandlesFailedError([*map(str, problems)], packed)
    return packed


@checked
def classify(
    model: AnyPath,
    pictures: Annotated[Sequence[AnyPath], Field(min_length=1)],
    *,
    out: AnyPath = "build",
    version: _Version = DEFAULT_VERSION,
    top: _Count = 5,
    labels: AnyPath | None = None,
    protocol: Literal["paper", "hub"] = "paper",
    exif: bool = True,
    ray: _Word | None = None,
    progress: Watch | None = None,
) -> list[Classified]:
    """Classify pictures; the result of one that does not exist or cannot be read has a `problem` instead of `scores`.

    - `model`: a classifier: its name below `out`, the directory of a SavedModel, or an exported file.
    - `pictures`: files, and folders of them.
    - `top`: the most classes of a result; `labels`: a class list, one line per class, instead of the model's own.
    - `protocol`: "paper" resizes as the signature `serving_bytes` does, "hub" as the collection's notebooks.
    - `exif`: turn pictures upright as their EXIF orientation says.
    - `ray`: HOST:PORT of a running Ray cluster to compute on, or "local" for one that is started on this machine.
    """
    run = chosen_run(ray)
    found = find_pictures([str(one) for one in pictures], progress)
    classifier = find_model(str(model), Path(out), version, labels=_path(labels))
    call = partial(classify_pictures, classifier, found, top=top, protocol=protocol, exif=exif, run=run)
    return run_apart(call, progress)


@checked
def accuracy(
    model: AnyPath,
    data: AnyPath,
    *,
    backends: Sequence[Backend] = (),
    out: AnyPath = "build",
    version: _Version = DEFAULT_VERSION,
    labels: AnyPath | None = None,
    real: AnyPath | None = None,
    devkit: AnyPath | None = None,
    protocol: Literal["paper", "hub"] = "paper",
    source: AnyPath = BUCKET,
    cache: AnyPath | None = None,
    checkpoint: AnyPath | None = None,
    record: bool = False,
    ray: _Word | None = None,
    progress: Watch | None = None,
) -> AccuracyResult:
    """Measure a classifier on labelled pictures; `validation.accuracy.counts` counts the answers.

    - `model`: its name below `out`, the directory of a SavedModel, or an exported file.
    - `data`: one folder per class (named by class name, class index or WordNet id), or the flat folder of ImageNet's
      validation pictures, or `tfds:NAME:SPLIT`; `real`: `real.json` of ReaL, `devkit`: that of ILSVRC 2012.
    - `backends`: of "jax", "native", "graph", "litert", "onnx" and "openvino", all on the same decoded pictures.
    - `labels`: a class list instead of the model's own; `protocol`, `ray`: as for `classify`.
    - `checkpoint`: what a custom model was made from, for the backend "jax".
    - `record`: write the accuracy beside the manifest of each SavedModel, for its card and publication.
    """
    run = chosen_run(ray)
    place = Source(fspath(source), _path(cache))
    contenders = find_contenders(
        str(model), backends, Path(out), version, labels=_path(labels), source=place, checkpoint=_path(checkpoint)
    )
    dataset = find_pictures_of(
        contenders, Path(data), progress, cache=_path(cache), real=_path(real), devkit=_path(devkit)
    )
    recordable = Recordable.of(contenders, labels=_path(labels)) if record else None
    call = partial(measure_accuracy, contenders, dataset, protocol=protocol, cache=_path(cache), run=run)
    result = run_apart(call, progress)
    if recordable is not None:
        recordable.record(result, protocol)
    return result


@checked
def finetune(tuning: FineTuning, *, progress: Watch | None = None) -> FineTuningResult:
    """Fine-tune a feature extractor on labelled pictures; convert and check the result.

    `tuning` is `FineTuning(base=..., data=..., name=..., out=...)`; `help(FineTuning)` lists its fields. After an
    interruption the same call goes on where it stopped.
    """
    result = run_apart(partial(run_finetune, tuning), progress)
    _raise_failures([(one.handle, one.problems) for one in result.outcomes if one.problems], result.outcomes)
    return result


def _run(batch: Batch, progress: Watch | None) -> list[Outcome]:
    check_batch(batch, progress)
    outcomes = run_apart(partial(_with_page, partial(run_batch, batch), batch.out), progress)
    _raise_failures([(one.handle, one.problems) for one in outcomes if one.verdict == "failed"], outcomes)
    return outcomes


def _with_page(work: Callable[[Watch], Result], out: Path, watch: Watch) -> Result:
    """Do work on the models in `out`, then write their page."""
    result = work(watch)
    refresh_page(out, watch)
    return result


def _raise_failures(failed: Sequence[tuple[str, Sequence[str]]], outcomes: Sequence[Outcome | ExportOutcome]) -> None:
    if problems := [f"{name}: {'; '.join(said)}" for name, said in failed if said]:
        raise HandlesFailedError([f"{len(problems)} of {len(outcomes)} handles failed.", *problems], outcomes)


def _path(path: AnyPath | None) -> Path | None:
    return None if path is None else Path(path)
