"""Run child processes that end with their parent, even if the parent is killed.

As a program, `python -P lifeline.py PROGRAM ARGUMENT ...` runs a Python program and kills its process group when its
standard input ends. Only the parent has the other end of that pipe.
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
    """Yield a descriptor for a child's standard input, which ends when the block or this process ends."""
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
