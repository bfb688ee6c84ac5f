"""The command that writes model cards: card."""

from pathlib import Path

from convert.cli import console, options
from models.catalog import DEFAULT_VERSION
from models.errors import MixerError


def card(
    publisher: options.Publisher,
    assets: options.Assets,
    handles: options.Models = None,
    out: options.Out = Path("build"),
    version: options.Version = DEFAULT_VERSION,
    flavour: options.FlavourOption = options.Flavour.native,
    json: options.Json = False,
) -> None:
    """Write the cards of models that passed their check, for TensorFlow Hub, Kaggle and Hugging Face.

    All figures come from the manifest and the report. Existing cards are replaced.

    Only a report of `validate --set full` says whether a model can be fine-tuned.
    """
    from convert.pipeline.cards import write_cards
    from convert.pipeline.selection import chosen_names
    from export.cards.publisher import Publisher

    where = Publisher(publisher, assets.rstrip("/"))
    names = chosen_names(handles or [], flavour.each, out, version)
    done, problems = write_cards(names, out, version, where, console.progress_bar())
    if json:
        written = [
            {"handle": one.name, "files": [*map(str, one.files)], "notes": one.notes, "problems": []} for one in done
        ]
        console.print_json([*written, *(one.as_json() for one in problems)])
    else:
        console.print_table("", ("handle", "file"), [(one.name, str(path)) for one in done for path in one.files])
    for note in (note for one in done for note in one.notes):
        console.tell(note)
    if problems:
        raise MixerError("\n".join(("not all cards could be written:", *map(str, problems))))
