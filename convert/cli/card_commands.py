"""The command about what people read of the models: card."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from convert.cli import options, show
from convert.cli.publish_commands import chosen_names, for_each
from export.destination import held
from models.catalog import DEFAULT_VERSION
from models.errors import MixerError
from models.paths import ModelPaths

if TYPE_CHECKING:
    from export.cards import Written
    from export.subject import Where


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(card)


def card(
    publisher: options.Publisher,
    assets: options.Assets,
    handles: options.Handles = None,
    out: options.Out = Path("build"),
    version: options.Version = DEFAULT_VERSION,
    flavour: options.FlavourOption = options.Flavour.native,
    json: options.Json = False,
) -> None:
    """Write the cards of proven models, for TensorFlow Hub, Kaggle and Hugging Face.

    Every figure is that of the manifest and of the report: `validate --set full` writes one that tells whether the
    model can be fine-tuned. Cards that are there are replaced.
    """
    from export.subject import Where

    where = Where(publisher, assets.rstrip("/"))
    names = chosen_names(handles or [], flavour, out, version)
    done, problems = write_cards(names, out, version, where)
    if json:
        show.print_json([{**asdict(one), "files": [str(path) for path in one.files]} for one in done])
    else:
        show.print_table("", ("card of", "file"), [(one.name, str(path)) for one in done for path in one.files])
    for note in (note for one in done for note in one.notes):
        show.tell(note)
    if problems:
        raise MixerError("\n".join(("not all cards could be written:", *problems)))


def write_cards(names: list[str], out: Path, version: int, where: "Where") -> tuple[list["Written"], list[str]]:
    """Write the cards of the models of these names, then of the collection; return them, and what failed and why."""
    from export.cards import write_collection_cards, write_model_cards

    def work(name: str, steps: show.Steps) -> "Written":
        steps.start(f"writing the cards of {name}")
        destination = ModelPaths.of(out, name, version)
        with held(destination):
            return write_model_cards(destination, where)

    done, problems = for_each(names, work)
    try:
        collection = write_collection_cards(out, where)
    except MixerError as error:
        return done, [*problems, f"the collection: {error}"]
    return [*done, *([collection] if collection else [])], problems
