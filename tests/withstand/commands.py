"""The commands that faults are tried on, and what they need."""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from colours import write_colours

from convert.checkpoints.synthetic import write_seeded
from models.catalog import SQUARE_HANDLES, TESTING_HANDLES
from models.formats import FORMATS
from withstand.trials import Order

CLASSIFIER, EXTRACTOR = TESTING_HANDLES
OWN, TUNED = "my_mixer", "colours"
BUILD = ("--out", "build")
PLACES = ("build", "cache", "tmp")
"""Folders of a trial: of the models, the cache, and temporary files."""
_SET_UP = 1800.0
"""Seconds that a command may take where nothing is tried, beside other work."""


@dataclass(frozen=True)
class Command:
    """A command, and where it begins."""

    title: str
    words: tuple[str, ...]
    begin: Path | None = None
    """The tree that it begins with."""
    again: tuple[str, ...] = ()
    """What is added to run it again, as an interrupted command says."""
    workers: int = 0
    to_store: bool = False


class Inputs:
    """What commands read, made by commands; they are run in `trial`, which is always the same folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.trial, self.notes = folder, folder / "trial", folder / "notes"
        self.source, self.older = folder / "source", folder / "older source"
        handles = (TESTING_HANDLES[CLASSIFIER], next(iter(SQUARE_HANDLES.values())))
        for checkpoint in (handle.checkpoint for handle in handles):
            write_seeded(checkpoint, self.source)
            write_seeded(replace(checkpoint, name=f"older {checkpoint.name}"), self.older)
        (folder / "pictures").mkdir()
        self.pictures = write_colours(folder / "pictures")
        self.from_source = ("--source", str(self.source), *BUILD)
        self.custom = ("--checkpoint", str(self.older / handles[0].checkpoint.object), "--name", OWN, *BUILD)

    def fresh(self, begin: Path | None) -> Path:
        """Make the folder of a trial, with a copy of a tree."""
        self.trial.mkdir(exist_ok=True)
        clear(self.trial)
        for name in PLACES:
            (self.trial / name).mkdir(exist_ok=True)
        if begin is not None:
            shutil.copytree(begin, self.trial, symlinks=True, dirs_exist_ok=True)
        return self.trial

    def made(self, name: str, *commands: tuple[str, ...], begin: Path | None = None, workers: int = 0) -> Path:
        """Return a tree in which commands have been run."""
        self.fresh(begin)
        for words in commands:
            ended = Order(tuple(map(str, words)), self.trial, self.notes, workers).run(patience=_SET_UP)
            if ended.status:
                raise RuntimeError(f"{words}: {ended.status}, {ended.said}")
        return Path(shutil.copytree(self.trial, self.folder / "trees" / name, symlinks=True))


def clear(folder: Path) -> None:
    """Delete what is in a folder, and in those where another file system is mounted."""
    for path in folder.iterdir():
        if os.path.ismount(path):
            clear(path)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def all_commands(inputs: Inputs) -> list[Command]:
    """Return the commands, with the trees that they begin with made."""
    both, source, custom = (CLASSIFIER, EXTRACTOR), inputs.from_source, (CLASSIFIER, *inputs.custom)
    older = inputs.made("older", ("convert-all", *both, "--source", str(inputs.older), *BUILD))
    made = inputs.made("made", ("convert", *both, *source))
    graph = inputs.made("graph", ("convert", CLASSIFIER, *source, "--flavour", "graph"))
    checked = inputs.made("checked", ("convert-all", *custom), ("validate", *custom, "--set", "full"))
    card = ("card", OWN, *BUILD, "--publisher", "somebody", "--assets", "https://models.example")
    carded = inputs.made("carded", card, begin=checked)
    packed = inputs.made("packed", ("package", OWN, *BUILD), begin=carded)
    extractor = inputs.made("extractor", ("convert-all", EXTRACTOR, *source))
    pictures = ("--data", str(inputs.pictures))
    tune = ("finetune", EXTRACTOR, *pictures, "--name", TUNED, *BUILD, "--steps", "8", "--save-every", "2")
    tuned = inputs.made("tuned", tune, begin=extractor, workers=1)
    publish, square = ("publish", OWN, *BUILD, "--allow-dirty", "--to"), next(iter(SQUARE_HANDLES))
    again = ("--overwrite",)
    return [
        Command("`convert`", ("convert", *both, *source), again=again),
        Command("`convert --jobs 2`", ("convert", CLASSIFIER, square, *source, "--jobs", "2"), None, again, workers=2),
        Command("`convert-all` over an older make", ("convert-all", *both, *source), older),
        Command("`validate`", ("validate", *both, *source), made),
        Command("`export`", ("export", CLASSIFIER, *source, "--to", ",".join(FORMATS)), graph, again),
        Command("`card`", card, checked),
        Command("`package`", ("package", OWN, *BUILD), carded, again),
        Command("`publish` to a directory", (*publish, "published"), packed),
        Command("`publish` to a bucket", publish, packed, to_store=True),
        Command("`finetune`", tune, extractor, workers=1),
        Command("`accuracy`", ("accuracy", TUNED, *pictures, *BUILD, "--record"), tuned),
    ]
