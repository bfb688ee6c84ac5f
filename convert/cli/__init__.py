"""The command line `mixer-jax2tf`: the only place that knows all four packages, each imported when needed."""

import logging
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any

import typer
from rich.markup import escape

from convert.cli import (
    bench_commands,
    card_commands,
    catalog_commands,
    export_commands,
    matrix_commands,
    model_commands,
    publish_commands,
    republish_commands,
)
from models.errors import MixerError, printable

PROGRAM = "mixer-jax2tf"
INTERRUPTED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit statuses: typer's own for Ctrl-C, and ours."""

app = typer.Typer(
    name=PROGRAM,
    help="Turn the original MLP-Mixer checkpoints (JAX) into TensorFlow SavedModels, and prove that nothing changed.",
    epilog="Any command takes --debug: show the traceback of an error.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
catalog_commands.register(app)
model_commands.register(app)
export_commands.register(app)
matrix_commands.register(app)
publish_commands.register(app)
bench_commands.register(app)
card_commands.register(app)
republish_commands.register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 a handle failed, 2 bad usage or input, 3 differs, 130 and 143 on signals."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    _log_to_stderr(debug=debug)
    signal.signal(signal.SIGTERM, _exit_on_signal)
    try:
        commands()([word for word in words if word != "--debug"], prog_name=PROGRAM)
    except SystemExit as end:
        if end.code in INTERRUPTED:
            _fail("interrupted: what was finished stays; run the same command again to go on.", end.code)
        raise
    except Exception as error:
        if debug:
            print(printable(traceback.format_exc()), file=sys.stderr)  # noqa: T201
        if isinstance(error, MixerError):
            _fail(str(error), error.exit_status)
        _fail(f"unexpected {type(error).__name__}: {error}\nThis is a mistake in the program: --debug shows where.", 1)


def commands() -> typer.core.TyperGroup:
    """Return the program with its commands; their help texts are shown letter by letter, without markup."""
    program = typer.main.get_group(app)
    every = [program, *program.commands.values()]
    described: list[Any] = [*every, *(parameter for command in every for parameter in command.params)]
    for one in described:
        if one.help:  # typer takes it for rich's markup, where `[/prefix]` ends a style that never began
            one.help = escape(one.help)
    return program


def _fail(message: str, status: int) -> None:
    print(printable(f"{PROGRAM}: {message}"), file=sys.stderr)  # noqa: T201
    sys.exit(status)


def _exit_on_signal(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


def _log_to_stderr(*, debug: bool) -> None:
    logger = logging.getLogger("convert")
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_Formatter(f"{PROGRAM}: %(message)s"))
        logger.addHandler(handler)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
