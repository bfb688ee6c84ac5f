"""Programs that readers are shown, run beside a photograph."""

import contextlib
import io
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image

from validation.parity.images import _read_photograph

PLACES = ("here", pytest.param("alone", marks=pytest.mark.whole))
"""Where to run a program: in this process or, as readers do, in one of its own, which imports TensorFlow again."""


def run_program(program: str, folder: Path, place: str) -> str:
    """Run a program in a folder with `photo.jpg`, and return what it prints."""
    Image.fromarray(_read_photograph("chelsea.png")).save(folder / "photo.jpg")
    if place == "here":
        printed = io.StringIO()
        with contextlib.chdir(folder), contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in a process of its own, where warnings are no errors
            exec(compile(program, "program.py", "exec"), {"__name__": "__main__"})  # noqa: S102
        return printed.getvalue()
    (folder / "program.py").write_text(program, encoding="utf-8")
    # -P: not even this project's folder is on the path.
    command = [sys.executable, "-P", "program.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
