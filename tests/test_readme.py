"""The README tells the truth: its table is the catalog's, its snippets run, its commands exist."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from programs import run_program

from convert.cli import main
from models.catalog import TESTING_HANDLES
from models.records.tolerances import TOLERANCES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
NAMED_SNIPPETS = ("load", "tf_keras", "keras3", "classify", "interface")
COMMANDS = re.findall(r"^(?:make|\.venv/bin/mixer-jax2tf) [a-z-]+", README, flags=re.MULTILINE)


def test_a_command_is_shown_by_line_20():
    top = README.splitlines()[:20]
    assert any(line.startswith("make demo") for line in top)
    assert any(line.startswith("make test") for line in top)


@pytest.mark.parametrize("command", ["list --markdown", "list --collection gsam --markdown"])
def test_the_table_is_the_catalogs(capsys, command):
    with pytest.raises(SystemExit):
        main(command.split())
    table = re.search(rf"<!-- mixer-jax2tf {command} -->\n(.*?)<!-- end -->", README, flags=re.DOTALL)
    assert table
    assert table[1] == capsys.readouterr().out


def test_the_tolerance_is_the_one_in_force():
    said = " ".join(README.split())
    assert f"below {TOLERANCES['max_relative'].limit:g} of the scale" in said
    assert f"JAX's own must stay below {TOLERANCES['jax_oracle_relative'].limit:g} of the scale" in said


def test_there_are_five_snippets():
    kinds = ("saved_model.load", "hub.KerasLayer", "TFSMLayer", "classify(", "convert_all(")
    assert [kind for kind in kinds for snippet in SNIPPETS if kind in snippet] == [*kinds]


@pytest.mark.parametrize(
    ("snippet", "place"),
    [*((snippet, "here") for snippet in SNIPPETS), pytest.param(SNIPPETS[-1], "alone", marks=pytest.mark.whole)],
    ids=[*NAMED_SNIPPETS, "interface, alone"],
)
def test_snippet_runs_on_a_tiny_model(snippet, place, tiny_build, tiny_source, tmp_path):
    """`test_whole.py` runs the first three as readers do, in processes of their own, on models of full size."""
    handle = next(iter(TESTING_HANDLES.values()))
    size = str(handle.checkpoint.architecture.image_size)
    shutil.copytree(tiny_build, tmp_path / "build" / "demo" / "models")
    shutil.copytree(tiny_source, tmp_path / "build" / "demo" / "checkpoints")
    photographs = Path("validation", "parity", "photographs")
    shutil.copytree(ROOT / photographs, tmp_path / photographs)
    tiny = snippet.replace("b32_sam", handle.checkpoint.name).replace("224", size)
    assert tiny != snippet
    run_program(tiny, tmp_path, place)


def test_every_command_of_the_readme_exists():
    helped = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    programs = subprocess.run(
        [sys.executable, "-m", "convert", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert COMMANDS
    for command in COMMANDS:
        program, name = command.split()
        assert f" {name} " in (helped if program == "make" else programs)
    for name in re.findall(r"^\| `([a-z-]+)[ `]", README, flags=re.MULTILINE):
        assert f" {name} " in programs
