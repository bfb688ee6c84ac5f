"""Processes that end with the one that started them, even where that is killed: the program that runs them.

Run as a program: `python -P lifeline.py PROGRAM ARGUMENT ...` runs a Python program that ends, with its process group,
when standard input does. The other end of the pipe is the parent's alone.
"""

import os
import runpy
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lifeline() -> Iterator[int]:
    """Give a descriptor for a child's standard input, which ends when the block does or this process."""
    reader, writer = os.pipe()
    try:
        yield reader
    finally:
        os.close(writer)
        os.close(reader)


def _end_with_input() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with_input, daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
