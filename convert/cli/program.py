"""The commands, and the handling of their errors."""

import functools
import itertools
import logging
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TextIO, cast

import typer
from rich.markup import escape

from convert.cli import (
    accuracy,
    benchmark,
    catalog,
    classify,
    console,
    convert,
    digits,
    environments,
    finetune,
    formats,
    publish,
    republish,
)
from models.errors import MixerError, UsageError, printable, reason_of, understood

PROGRAM = "mixer-jax2tf"

app = typer.Typer(
    name=PROGRAM,
    help="Convert the original MLP-Mixer checkpoints from JAX to TensorFlow SavedModels, and prove their parity.",
    epilog="Every command takes --debug, which shows the traceback of an error.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Look": {
        "list": catalog.list_handles,
        "classify": classify.classify,
    },
    "Make": {
        "seed": catalog.seed,
        "fetch": catalog.fetch,
        "convert": convert.convert,
        "convert-all": convert.convert_all,
        "export": formats.export,
        "finetune": finetune.finetune,
        "digits": digits.digits,
    },
    "Check": {
        "validate": convert.validate,
        "accuracy": accuracy.accuracy,
        "verify": publish.verify,
        "doctor": environments.doctor,
        "matrix": environments.matrix,
        "bench": benchmark.bench,
    },
    "Publish": {
        "package": publish.package,
        "card": publish.card,
        "publish": publish.publish,
        "outdated": publish.outdated,
        "republish": republish.republish,
    },
}
"""The commands, in the groups of the help."""

_WITH_MODELS = frozenset(
    {"convert", "convert-all", "validate", "export", "finetune", "classify", "accuracy", "package", "card", "publish"}
)
"""Commands whose --out is the directory of the models."""

_PACKAGES = ("convert", "export", "models", "validation")
"""Ours, whose loggers write to standard error themselves."""

for _group, _commands in _COMMANDS.items():
    for _name, _command in _commands.items():
        app.command(_name, rich_help_panel=_group)(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        from models.records.provenance import pipeline_version

        typer.echo(f"{PROGRAM} {pipeline_version()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def run(arguments: Sequence[str]) -> None:
    """Run one command and exit."""
    debug = "--debug" in arguments
    _log_to_stderr(debug=debug)
    printed = console.documents_printed()

    def print_as_json(reason: str) -> None:
        if "--json" in arguments and console.documents_printed() == printed:
            console.print_json({"problems": [reason]})

    try:
        _refuse_empty(arguments)
        commands()([word for word in arguments if word != "--debug"], prog_name=PROGRAM)
    except SystemExit as end:  # of an unknown option, a missing argument, ...: its message is printed already
        of_usage = getattr(end.__context__, "format_message", None)
        if of_usage is not None:
            print_as_json(of_usage())
        raise
    except Exception as error:
        if debug:
            print(printable(traceback.format_exc()), file=sys.stderr)  # noqa: T201
        status = error.exit_status if isinstance(error, MixerError) else 1
        said = _with_places(reason_of(error), arguments)
        print_as_json(said)
        bug = understood(error) is None
        _fail(f"{said}\nThis is a bug in the program: --debug shows the traceback." if bug else said, status)


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse empty words: an empty path would be the working directory."""
    befores = [PROGRAM, *(word or "''" for word in arguments)]
    empty = [before for before, word in zip(befores, arguments, strict=False) if not word]
    empty += [word for word in arguments if word.startswith("--") and word.find("=") == len(word) - 1]
    if empty:
        raise UsageError(f"an empty word after {', '.join(empty)}: expected a value. Is a variable of the shell unset?")


def _with_places(message: str, arguments: Sequence[str]) -> str:
    """Return a message whose advice, commands between backquotes, has this command's --out, --source and --version."""
    if not {*arguments} & _WITH_MODELS:
        return message
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--") else [word])]
    places = {name: value for name, value in itertools.pairwise(words) if name in ("--out", "--source", "--version")}

    def with_places(found: re.Match[str]) -> str:
        command, name = found[1], found[2]
        taking = commands().commands[name].params if name in _WITH_MODELS else []
        taken = {option for parameter in taking for option in parameter.opts}
        added = [shlex.join(place) for place in places.items() if place[0] in taken and f"{place[0]} " not in command]
        return f"`{' '.join([command, *added])}`"

    return re.sub(rf"`({PROGRAM} ([a-z-]+)[^`\n]*)`", with_places, message)


@functools.cache
def commands() -> typer.core.TyperGroup:
    """Return the program with its commands; their help texts are shown literally, without markup."""
    program = cast(typer.core.TyperGroup, typer.main.get_command(app))
    every = [program, *program.commands.values()]
    described: list[Any] = [*every, *(parameter for command in every for parameter in command.params)]
    for one in described:
        if one.help:  # typer reads it as rich markup, where `[/prefix]` closes a style that was never opened
            one.help = escape(one.help)
    return program


def _fail(message: str, status: int) -> None:
    print(printable(f"{PROGRAM}: {message}"), file=sys.stderr)  # noqa: T201
    sys.exit(status)


def _log_to_stderr(*, debug: bool) -> None:
    if not logging.root.handlers:  # absl would give the root one, which would show our messages again
        others = _StandardError()
        others.setLevel(logging.WARNING)
        others.addFilter(lambda record: record.name.partition(".")[0] not in _PACKAGES)
        logging.root.addHandler(others)
    for package in _PACKAGES:
        logger = logging.getLogger(package)
        logger.setLevel(logging.DEBUG if debug else logging.WARNING)
        if not any(isinstance(handler, _StandardError) for handler in logger.handlers):
            logger.addHandler(_StandardError())


class _StandardError(logging.StreamHandler):  # type: ignore[type-arg]  # of whatever standard error is
    """Writes to what is standard error at the time."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(_Formatter(f"{PROGRAM}: %(message)s"))

    @property
    def stream(self) -> TextIO:
        return sys.stderr


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
