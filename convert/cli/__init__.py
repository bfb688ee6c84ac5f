"""The command line `mixer-jax2tf`; packages are imported only when needed."""

import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 a handle failed, 2 bad usage or input, 3 differs, 130 and 143 on signals.

    Args:
        arguments: of the command, for a caller that goes on afterwards and handles signals itself; None takes those of
            this process, which ends with the command.
    """
    if arguments is None:
        _open_closed_streams()
        _end_at_once_on_signals()  # the imports below take a while
        _refuse_strangers()
        from convert.pipeline.process import run_and_leave

        run_and_leave(lambda: _run(sys.argv[1:]), interrupted=_interrupted(sys.argv[1:]))
    _run(arguments)


_CONTINUE = frozenset(
    {"accuracy", "card", "convert-all", "fetch", "finetune", "publish", "republish", "seed", "validate"}
)
_REFUSE = frozenset({"convert", "digits", "export", "package"})
"""Commands that keep what was finished when they are interrupted: run again they continue, or refuse what exists."""


def _interrupted(arguments: Sequence[str]) -> str:
    """Return what an interrupted command says about its work."""
    command = next((word for word in arguments if not word.startswith("-")), "")
    if command in _CONTINUE:
        return "mixer-jax2tf: interrupted: finished work is kept; run the same command again to continue.\n"
    if command in _REFUSE:
        return "mixer-jax2tf: interrupted: finished work is kept; to run the same command again, give --overwrite.\n"
    return "mixer-jax2tf: interrupted.\n"


def _run(arguments: Sequence[str]) -> None:
    from convert.cli.program import run

    run(arguments)


def _end_at_once_on_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # ignored by a shell's background commands
            signal.signal(number, lambda number, _: os._exit(128 + number))


def _refuse_strangers() -> None:
    """End the process if Python would import another project's package in the place of one of this program's."""
    here = Path(__file__).resolve().parents[2]
    for name in ("export", "models", "validation"):
        found = importlib.util.find_spec(name)
        places = [] if found is None else [*(found.submodule_search_locations or [found.origin or "nowhere"])]
        place = "".join(places[:1]) or "no folder"
        if here / name not in [Path(one).resolve() for one in places]:
            said = (
                f"mixer-jax2tf: Python finds the package `{name}` in {place}, expected the program's own in "
                f"{here}: take the other's folder out of PYTHONPATH, or leave the folder that has it.\n"
            )
            os.write(2, said.encode(errors="backslashreplace"))
            os._exit(2)


def _open_closed_streams() -> None:
    """Open closed standard streams, so that no other file gets their number and their output."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdin = sys.stdin or os.fdopen(0, "r", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
