"""Write the cards of many models, and of the collection."""

from pathlib import Path

from convert.pipeline.for_each import Problem, for_each
from convert.pipeline.progress import Steps, Watch
from export.cards.publisher import Publisher
from export.cards.write import Written, write_collection_cards, write_model_cards
from export.install import held
from models.errors import MixerError
from models.records.layout import ModelPaths


def write_cards(
    names: list[str], out: Path, version: int, where: Publisher, watch: Watch | None = None
) -> tuple[list[Written], list[Problem]]:
    """Write the cards of these models, then of the collection; return them, and what failed and why."""

    def work(name: str, on: Steps) -> Written:
        on.start(f"writing the cards of {name}")
        paths = ModelPaths.of(out, name, version)
        with held(paths):
            return write_model_cards(paths, where)

    done, problems = for_each(names, work, watch)
    try:
        collection = write_collection_cards(out, where)
    except MixerError as error:
        return done, [*problems, Problem("the collection", str(error))]
    return [*done, *([collection] if collection else [])], problems
