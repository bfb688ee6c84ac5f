"""The commands, and the handling of their errors."""

import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import typer
from rich.markup import escape

from convert.cli import (
    accuracy,
    benchmark,
    cards,
    catalog,
    classify,
    convert,
    digits,
    environments,
    finetune,
    formats,
    publish,
    republish,
)
from models.errors import MixerError, printable

PROGRAM = "mixer-jax2tf"

app = typer.Typer(
    name=PROGRAM,
    help="Convert the original MLP-Mixer checkpoints from JAX to TensorFlow SavedModels, and prove their parity.",
    epilog="Every command takes --debug, which shows the traceback of an error.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_COMMANDS: dict[str, Callable[..., None]] = {
    "list": catalog.list_handles,
    "seed": catalog.seed,
    "fetch": catalog.fetch,
    "convert": convert.convert,
    "validate": convert.validate,
    "convert-all": convert.convert_all,
    "classify": classify.classify,
    "accuracy": accuracy.accuracy,
    "finetune": finetune.finetune,
    "digits": digits.digits,
    "export": formats.export,
    "matrix": environments.matrix,
    "doctor": environments.doctor,
    "package": publish.package,
    "verify": publish.verify,
    "publish": publish.publish,
    "outdated": publish.outdated,
    "bench": benchmark.bench,
    "card": cards.card,
    "republish": republish.republish,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)


def run(arguments: Sequence[str]) -> None:
    """Run one command and exit."""
    debug = "--debug" in arguments
    _log_to_stderr(debug=debug)
    try:
        commands()([word for word in arguments if word != "--debug"], prog_name=PROGRAM)
    except Exception as error:
        if debug:
            print(printable(traceback.format_exc()), file=sys.stderr)  # noqa: T201
        if isinstance(error, MixerError):
            _fail(str(error), error.exit_status)
        _fail(
            f"unexpected {type(error).__name__}: {error}\nThis is a bug in the program: --debug shows the traceback.", 1
        )


def commands() -> typer.core.TyperGroup:
    """Return the program with its commands; their help texts are shown literally, without markup."""
    program = typer.main.get_group(app)
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
    for package in ("convert", "export", "models", "validation"):
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
