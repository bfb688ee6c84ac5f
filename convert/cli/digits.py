"""The command digits: a small Mixer trained on real pictures, converted, exported, fine-tuned and compared with JAX."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convert.cli import console, options

if TYPE_CHECKING:
    from convert.pipeline.digits import DigitsResult


def digits(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where everything is written.")] = Path("build/digits"),
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace what an earlier run wrote; anything else in its place, such as other pictures, is refused.",
        ),
    ] = False,
    json: options.Json = False,
) -> None:
    """Train a small Mixer on real digits; convert, check, export and fine-tune it; classify with each model."""
    from convert.pipeline.digits import run_digits

    result = run_digits(out, console.progress_bar(), overwrite=overwrite)
    if json:
        console.print_json(_as_json(result))
    else:
        _print(result)


def _print(result: "DigitsResult") -> None:
    rows = [
        (one.model, f"{one.right:,} of {one.total:,}", f"{one.right / one.total:.1%}", str(len(one.disagreements)))
        for one in result.accuracies
    ]
    console.print_table("held-out pictures of digits", ("model", "#right", "#accuracy", "#other class than JAX"), rows)
    for one in result.accuracies:
        for other in one.disagreements:
            tie = ", a near tie" if other.near_tie else ""
            console.tell(
                f"{one.model}: {other.picture} is {other.label}; JAX finds {other.jax}, this model {other.found} "
                f"(JAX's first two logits are {other.gap:.1e} apart{tie})"
            )
    for title in result.left_out:
        console.tell(f"{title} is left out: its libraries are not installed.")
    console.tell(f"trained in {result.seconds:.0f} s; the pictures with their predictions: {result.drawing}")
    console.tell(f"the checkpoint: {result.checkpoint}; the models are below {result.models}. To go on, for instance:")
    for words in (
        ("accuracy", "digits", "--data", str(result.pictures)),
        ("validate", "digits", "--checkpoint", str(result.checkpoint)),
    ):
        console.tell(f"  {shlex.join(('mixer-jax2tf', *words, '--out', str(result.models)))}")


def _as_json(result: "DigitsResult") -> dict[str, object]:
    return {
        "checkpoint": str(result.checkpoint),
        "pictures": str(result.pictures),
        "drawing": str(result.drawing),
        "seconds": result.seconds,
        "models": [
            {
                "model": one.model,
                "right": one.right,
                "total": one.total,
                "disagreements": [asdict(other) | {"near_tie": other.near_tie} for other in one.disagreements],
            }
            for one in result.accuracies
        ],
        "left_out": list(result.left_out),
    }
