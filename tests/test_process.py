"""The process as a whole: whatever it was started with, it says what is wrong in words."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from convert.cli import _interrupted
from convert.pipeline import process

ROOT = Path(process.__file__).parent.parent.parent

CLOSED = {"input": "0<&-", "output": "1>&-", "errors": "2>&-", "all": "0<&- 1>&- 2>&-"}


def run_closed(which, *command, **options):
    shell = ["sh", "-c", f'exec "$@" {CLOSED[which]}', "sh", *command]
    return subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, timeout=60, **options)


ENDS = [("input", 0), ("output", 0), ("all", 0), ("errors", 2), ("all", 2)]


@pytest.mark.parametrize(("which", "status"), ENDS)
def test_a_command_ends_as_it_should_whatever_of_its_standard_streams_is_closed(which, status):
    handle = "mixer_x" if status else "mixer_b16_i1k_fe"
    done = run_closed(which, sys.executable, "-m", "convert", "list", handle, "--markdown")
    assert done.returncode == status, done.stderr
    assert ("mixer_b16_i1k_fe" in done.stdout) == (status == 0 and which not in ("output", "all"))
    assert ("unknown handle" in done.stderr) == (status == 2 and which not in ("errors", "all"))
    assert "Traceback" not in done.stderr


WRITING = """
import os, sys
from convert.cli import main, program

def run(arguments):
    with open(arguments[0], "w") as file:
        os.write(1, b"said")
        os.write(2, b"complained")
        print("said")
        print("complained", file=sys.stderr)
        file.write("written")

program.run = run
main()
"""


@pytest.mark.parametrize("which", ["output", "errors", "all"])
def test_what_is_said_where_nobody_listens_goes_into_no_file(which, tmp_path):
    done = run_closed(which, sys.executable, "-c", WRITING, str(tmp_path / "file"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_text() == "written"


def place_of_longest_path(folder):
    """Make a folder whose path is so long that none can be named in it."""
    most = os.pathconf(folder, "PC_PATH_MAX") - 1
    while len(os.fspath(folder)) < most - 30:
        left = most - 10 - len(os.fspath(folder)) - 1
        folder = folder / ("x" * (left if left <= 200 else min(200, left - 2)))
    folder.mkdir(parents=True)
    return folder


def test_where_no_temporary_folder_can_be_made_another_place_is_taken(tmp_path):
    place = place_of_longest_path(tmp_path)
    command = [sys.executable, "-m", "convert", "list", "mixer_b16_i1k_fe"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"TMPDIR": place}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


FULL = """
import errno, os
from models.storage import temporary

def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

temporary.temporary_folder = full
from convert.cli import main
main()
"""


def test_where_no_temporary_folder_can_be_made_anywhere_it_is_said_in_words():
    command = [sys.executable, "-c", FULL, "list", "mixer_b16_i1k_fe"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mixer_b16_i1k_fe" in done.stdout
    assert "no temporary directory can be made" in done.stderr
    assert "(No space left on device)" in done.stderr
    assert "set TMPDIR to a writable directory" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["list"], ["list", "mixer_b16_sam_fe", "--json"], ["--help"]], ids=" ".join)
def test_a_full_standard_output_is_told(words):
    with open("/dev/full", "w") as full:  # noqa: PTH123 (a device)
        command = [sys.executable, "-m", "convert", *words]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    said = r"mixer-jax2tf: standard output.* cannot be .*written \(No space left on device\).*\n"
    assert re.fullmatch(said, done.stderr)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("classify", "interrupted."),
        ("convert-all", "interrupted: finished work is kept; run the same command again to continue."),
        ("convert", "interrupted: finished work is kept; to run the same command again, give --overwrite."),
    ],
)
def test_an_interrupted_command_says_what_is_kept(command, said):
    assert _interrupted(["--debug", command, "x"]) == f"mixer-jax2tf: {said}\n"


@pytest.mark.parametrize("name", ["models", "export", "validation"])
def test_a_strangers_package_of_the_same_name_is_told(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    program = "import sys; sys.path.append(sys.argv.pop(1)); from convert.cli import main; main()"
    command = [sys.executable, "-c", program, str(ROOT), "list"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"mixer-jax2tf: Python finds the package `{name}` in {tmp_path / name}, expected")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["convert/__init__.py", "convert.py"])
def test_the_command_tells_a_strangers_package_convert(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("raise RuntimeError")
    (tmp_path / "bin").mkdir()
    command = [sys.executable, shutil.copy(ROOT / "convert" / "cli" / "mixer-jax2tf", tmp_path / "bin"), "list"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    place = (tmp_path / name).parent
    assert done.stderr.startswith(f"mixer-jax2tf: Python finds the package `convert` in {place}, which is another")
    assert "Traceback" not in done.stderr


def test_a_temporary_folder_with_brackets_is_passed_over(tmp_path):
    place = tmp_path / "a [b]"
    place.mkdir()
    program = (
        "import os; from convert.cli import main, program; program.run = lambda _: print(os.environ['TMPDIR']); main()"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"TMPDIR": str(place)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "[" not in done.stdout and "mixer-jax2tf-" in done.stdout


SHOWING = """
import os, signal, time
from convert.cli import console
from convert.pipeline.process import run_and_leave
from convert.pipeline.progress import Steps

def work():
    with Steps(console.progress_bar(), 2) as on:
        on.start("checking")
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

run_and_leave(work, interrupted="interrupted.\\n")
"""


def test_rows_of_progress_are_removed_before_the_interruption_is_told():
    ours, theirs = os.openpty()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm"}
    begun = subprocess.Popen([sys.executable, "-c", SHOWING], env=environment, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal has gone with its last process
        while part := os.read(ours, 1000):
            shown += part
    os.close(ours)
    assert begun.wait() == 143
    before, _, after = shown.rpartition(b"interrupted.")
    assert before.rpartition(b"checking")[2].count(b"\x1b[1A\x1b[2K") == 2
    assert after == b"\r\n"
