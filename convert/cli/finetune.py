"""The command finetune."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from convert.cli import console, options
from models.catalog import DEFAULT_VERSION
from models.errors import MixerError, UsageError, counted

if TYPE_CHECKING:
    from convert.pipeline.fine_tuning import FineTuning
    from convert.pipeline.finetune import FineTuningResult
    from export.cards.publisher import Publisher

_MOST_SCORES = 12  # lines of the table


Base = Annotated[
    str,
    typer.Argument(
        metavar="HANDLE", help="A feature extractor below --out: a handle of the catalog, or the name of a custom one."
    ),
]
Data = Annotated[
    Path,
    typer.Option(
        metavar="DIR|tfds:NAME", help="One folder of pictures per class, or a prepared data set (tfds:NAME:SPLIT)."
    ),
]
Name = Annotated[str, typer.Option(metavar="NAME", help="Name of the new model.")]
RecipeOption = Annotated[
    Literal["collection", "bit"],
    typer.Option(
        help="collection: the notebook's (8 epochs, rate 0.03, each gradient clipped); bit: steps and rate by the "
        "number of pictures, momentum, gradients clipped together, a head of zeros."
    ),
]
Whole = Annotated[
    bool,
    typer.Option(
        "--whole", help="Train all params, on random crops. Default: the head alone, on features computed once."
    ),
]
Crops = Annotated[
    int, typer.Option(metavar="N", help="Without --whole: crops of each picture; the first is the central one.")
]
StepsOption = Annotated[int | None, typer.Option(metavar="N", help="Training steps.", show_default="the recipe's")]
Rate = Annotated[float | None, typer.Option(metavar="R", help="Highest learning rate.", show_default="the recipe's")]
BatchSize = Annotated[int, typer.Option(metavar="N", help="Pictures in a step.")]
HeldOut = Annotated[
    float, typer.Option(metavar="SHARE", help="Share of each class that is not trained on, to find the best step.")
]
Patience = Annotated[
    int | None,
    typer.Option(metavar="N", help="Stop after N evaluations without a better result.", show_default="take all steps"),
]
SaveEvery = Annotated[
    int, typer.Option(metavar="N", help="Steps between two saved states; there is one after each evaluation too.")
]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of the split, the order, the crops and the first head.")]
CardPublisher = Annotated[
    str | None,
    typer.Option(
        "--publisher", metavar="P", help="Run the full set of checks and write the card: its publisher. Needs --assets."
    ),
]
CardAssets = Annotated[
    str | None, typer.Option("--assets", metavar="URL", help="Base URL of the published archives, for the card.")
]
VersionOption = Annotated[
    int, typer.Option(metavar="N", min=1, max=999_999, help="Version number of HANDLE and of the new model.")
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Start from the first step again, replacing the earlier run and its model."),
]


def finetune(
    base: Base,
    data: Data,
    name: Name,
    out: options.Out = Path("build"),
    version: VersionOption = DEFAULT_VERSION,
    flavour: options.FlavourOption = options.Flavour.native,
    recipe: RecipeOption = "collection",
    whole: Whole = False,
    crops: Crops = 1,
    steps: StepsOption = None,
    rate: Rate = None,
    batch_size: BatchSize = 64,
    held_out: HeldOut = 0.1,
    patience: Patience = None,
    save_every: SaveEvery = 100,
    seed: Seed = 0,
    about: options.About = None,
    cache: options.Cache = None,
    publisher: CardPublisher = None,
    assets: CardAssets = None,
    overwrite: Overwrite = False,
    json: options.Json = False,
) -> None:
    """Fine-tune a feature extractor on labelled pictures; convert and check the result. The same command resumes."""
    from convert.pipeline.fine_tuning import FineTuning

    tuning = FineTuning(
        base=base,
        name=name,
        data=data,
        out=out,
        version=version,
        flavours=flavour.each,
        recipe=recipe,
        whole=whole,
        crops=crops,
        steps=steps,
        rate=rate,
        batch_size=batch_size,
        held_out=held_out,
        patience=patience,
        save_every=save_every,
        seed=seed,
        about=about,
        cache=cache,
        overwrite=overwrite,
    )
    _run(tuning, _publisher(publisher, assets), json=json)


def _run(tuning: "FineTuning", publisher: "Publisher | None", *, json: bool) -> None:
    from convert.pipeline.finetune import run_finetune

    result = run_finetune(tuning, console.progress_bar(), publisher=publisher)
    if json:
        console.print_json(_as_json(result))
    else:
        _print(result, tuning.out)
    problems = [f"{one.handle}: {'; '.join(one.problems)}" for one in result.outcomes if one.verdict == "failed"]
    if problems:
        raise MixerError("\n".join(problems))


def _publisher(publisher: str | None, assets: str | None) -> "Publisher | None":
    from export.cards.publisher import Publisher

    if (publisher is None) != (assets is None):
        raise UsageError("a card needs both --publisher and --assets.")
    return Publisher(publisher, assets.rstrip("/")) if publisher and assets else None


def _loss(value: float) -> str:
    return f"{value:.4f}" if value < 1e4 else f"{value:.1e}"


def _print(result: "FineTuningResult", out: Path) -> None:
    scores = result.state.scores
    every = max(1, -(-len(scores) // _MOST_SCORES))
    best = result.state.best
    shown = [
        score for index, score in enumerate(scores, 1) if index % every == 0 or score is best or score is scores[-1]
    ]
    rows = [
        (
            f"{score.step:,}{' (best)' if score is best else ''}",
            _loss(score.train_loss),
            _loss(score.loss),
            f"{score.right:,} of {score.total:,}",
            f"{score.right / score.total:.2%}",
        )
        for score in shown
    ]
    data = f"{counted(len(result.classes), 'class')}, {counted(result.trained_on, 'picture')}"
    columns = ("#step", "#loss", "#held-out loss", "#right", "#accuracy")
    console.print_table(f"{data}, recipe {result.recipe.name}", columns, rows)
    guessing = math.log(len(result.classes))
    if best is not None and best.loss > 2 * guessing:
        console.tell(
            f"the best held-out loss, {_loss(best.loss)}, is far above that of guessing, {guessing:.4f}: give a lower "
            "--rate, and check the labels."
        )
    console.tell(f"the checkpoint: {result.checkpoint}")
    for one in result.outcomes:
        console.tell(f"{out / one.handle}: {one.verdict}")
    for path in result.cards:
        console.tell(f"card: {path}")


def _as_json(result: "FineTuningResult") -> dict[str, object]:
    best = result.state.best
    return {
        "checkpoint": str(result.checkpoint),
        "recipe": asdict(result.recipe),
        "classes": list(result.classes),
        "trained_on": result.trained_on,
        "scores": [asdict(score) for score in result.state.scores],
        "best_step": best.step if best else None,
        "models": [
            {"handle": one.handle, "verdict": one.verdict, "problems": list(one.problems)} for one in result.outcomes
        ],
        "cards": [str(path) for path in result.cards],
    }
