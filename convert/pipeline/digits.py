"""Train a small Mixer on real pictures and take it the whole way: converted, checked, exported, and classifying."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convert.checkpoints.open import CustomCheckpoint
from convert.pipeline.batch import check_batch, run_batch
from convert.pipeline.classify import classify_pictures, softmax
from convert.pipeline.export_formats import Exports, check_exports, run_exports
from convert.pipeline.frameworks import import_frameworks
from convert.pipeline.progress import Watch, steps
from convert.pipeline.selection import select_batch
from convert.pipeline.usable_model import find_model
from models.catalog import BUCKET, DEFAULT_VERSION, GRAPH_SUFFIX, TESTING_HANDLES, Handle
from models.errors import MixerError, UsageError, counted
from models.formats import FORMATS, Format
from models.params import save_params
from models.storage.files import write_atomically

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from validation.digits.pictures import Digits

NAME = "digits"
"""Name of the model."""

NEAR_TIE = 1e-3
"""Two logits that are closer than this, in units of the standard deviation of a picture's logits, are a near tie."""


@dataclass(frozen=True)
class Disagreement:
    """A picture of which a model finds another class than JAX does."""

    picture: str
    label: int
    jax: int
    found: int
    gap: float
    """JAX's first logit less its second, in units of the standard deviation of the picture's logits."""

    @property
    def near_tie(self) -> bool:
        """Whether JAX's first two logits are so close that rounding may exchange them."""
        return self.gap < NEAR_TIE


@dataclass(frozen=True)
class Accuracy:
    """How one model does on the held-out pictures."""

    model: str
    right: int
    total: int
    disagreements: tuple[Disagreement, ...] = ()
    """Where its first class is not JAX's."""


@dataclass(frozen=True)
class DigitsResult:
    """The result of the whole way."""

    checkpoint: Path
    pictures: Path
    """A folder of the held-out pictures, with a subfolder for each class."""
    drawing: Path
    seconds: float
    """Seconds that training took."""
    accuracies: tuple[Accuracy, ...]
    """Of JAX, then of each model."""
    left_out: tuple[str, ...]
    """Formats whose libraries are not installed."""


def run_digits(out: Path, watch: Watch | None = None, *, overwrite: bool = False) -> DigitsResult:
    """Train a Mixer on digits, convert, check and export it, and classify the held-out pictures with each model.

    Args:
        out: where everything is written: `digits.npz`, `labels.txt`, `pictures/`, `models/`, `digits.png`.
        watch: called with the progress.
        overwrite: replace what an earlier run wrote.

    Raises:
        UsageError: scikit-learn is missing, or the output exists.
        MixerError: a model does not pass its checks.
    """
    from validation.digits.pictures import NAMES, load_digits, require_digits

    require_digits()
    handle = next(one for one in TESTING_HANDLES.values() if one.head == "classification")
    custom = CustomCheckpoint(out / f"{NAME}.npz", NAME, out / "labels.txt")
    if custom.path.exists() and not overwrite:
        raise UsageError(f"{custom.path} exists already: give another --out, or --overwrite to replace it.")
    import_frameworks()
    from validation.digits.plot import draw_predictions
    from validation.digits.train import predict, train

    architecture = handle.checkpoint.architecture
    trained, held = load_digits(architecture.image_size)
    begin = time.perf_counter()
    trained_on = counted(len(trained.labels), "picture")
    with steps(watch, 1) as on:
        params = train(architecture, trained, progress=on.start(f"training on {trained_on}", "steps"))
        seconds = time.perf_counter() - begin
        on.finish(f"trained on {trained_on} in {seconds:.0f} s")
    save_params(params, custom.path)
    write_atomically(out / "labels.txt", "".join(f"{name}\n" for name in NAMES).encode())
    pictures = held.save(out / "pictures")
    left_out = _convert(handle, custom, out / "models", overwrite=overwrite, watch=watch)
    logits = predict(architecture, params, held.pictures)
    found = list(_classify(out / "models", pictures, held, logits, left_out, watch))
    best = logits.argmax(-1)
    probabilities = softmax(logits)[range(len(best)), best]
    draw_predictions(held, best.tolist(), probabilities.tolist(), out / "digits.png")
    return DigitsResult(
        custom.path, out / "pictures", out / "digits.png", seconds, tuple(found), tuple(one.title for one in left_out)
    )


def _convert(
    handle: Handle, custom: CustomCheckpoint, out: Path, *, overwrite: bool, watch: Watch | None
) -> list[Format]:
    """Convert, check and export the model; return the formats whose libraries are missing."""
    batch = select_batch(
        "convert-all",
        [handle.name],
        source=BUCKET,
        cache=None,
        out=out,
        version=DEFAULT_VERSION,
        flavours=("native", "graph"),
        custom=custom,
    )
    check_batch(batch, watch)
    outcomes = run_batch(batch, watch)
    problems = [f"{one.handle}: {'; '.join(one.problems)}" for one in outcomes if one.problems]
    left_out = []
    for kind in FORMATS.values():
        try:
            kind.require()
        except UsageError:
            left_out.append(kind)
            continue
        work = Exports(kind, (handle,), batch.source, out, DEFAULT_VERSION, custom=custom, overwrite=overwrite)
        check_exports(work)
        problems += [f"{one.name}: {'; '.join(one.problems)}" for one in run_exports(work, watch) if one.problems]
    if problems:
        raise MixerError("\n".join(problems))
    return left_out


def _classify(
    out: Path,
    pictures: Sequence[Path],
    held: "Digits",
    logits: "NDArray[np.float32]",
    left_out: Sequence[Format],
    watch: Watch | None,
) -> Iterator[Accuracy]:
    """Classify the held-out pictures with JAX's logits, and with each model as a user of `classify` would."""
    import numpy as np

    names = [str(picture) for picture in pictures]
    ordered = np.sort(logits.astype(np.float64), axis=-1)
    gaps = (ordered[:, -1] - ordered[:, -2]) / ordered.std(axis=-1)
    best = logits.argmax(-1)
    yield Accuracy("JAX", int((best == held.labels).sum()), len(best))
    exported = [
        str(out / kind.named(NAME) / str(DEFAULT_VERSION) / file)
        for kind in FORMATS.values()
        if kind not in left_out
        for file in kind.models
    ]
    for given in (NAME, NAME + GRAPH_SUFFIX, *exported):
        results = classify_pictures(find_model(given, out, DEFAULT_VERSION), names, watch, top=1)
        problems = [f"{one.picture}: {one.problem}" for one in results if one.problem]
        if problems:
            raise MixerError("\n".join(problems))
        found = np.array([one.scores[0].index for one in results])
        disagreements = tuple(
            Disagreement(names[index], int(held.labels[index]), int(best[index]), int(found[index]), float(gaps[index]))
            for index in np.flatnonzero(found != best)
        )
        model = given if given in (NAME, NAME + GRAPH_SUFFIX) else f"{Path(given).parts[-3]}/{Path(given).name}"
        yield Accuracy(model, int((found == held.labels).sum()), len(found), disagreements)
