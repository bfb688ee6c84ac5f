"""The README tells the truth: its table is the catalog's, its snippets run, its commands exist."""

import re
import shlex
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
PAGES = {
    name: (ROOT / name / "README.md").read_text(encoding="utf-8")
    for name in ("", "models", "convert", "export", "validation")
}
LONGEST = {"": 180, "models": 60, "convert": 110, "export": 150, "validation": 120}
README = PAGES[""]
ALL = "\n".join(PAGES.values())
_NAMES = ("classify", "interface", "load", "tf_keras", "keras3", "classify in Python")
SNIPPETS = dict(zip(_NAMES, re.findall(r"```python\n(.*?)```", ALL, flags=re.DOTALL), strict=True))
APART = ("interface", "classify in Python")
"""Snippets that start TensorFlow in another process."""
COMMANDS = re.findall(r"^(?:make|mixer-jax2tf) [a-z-]+", ALL, flags=re.MULTILINE)


def test_a_command_is_shown_by_line_20():
    top = README.splitlines()[:20]
    assert any(line.startswith("make demo") for line in top)
    assert any(line.startswith("make test") for line in top)


@pytest.mark.parametrize("command", ["list --markdown", "list --collection gsam --markdown"])
def test_the_table_is_the_catalogs(capsys, command):
    with pytest.raises(SystemExit):
        main(command.split())
    table = re.search(rf"<!-- mixer-jax2tf {command} -->\n(.*?)<!-- end -->", ALL, flags=re.DOTALL)
    assert table
    assert table[1] == capsys.readouterr().out


def test_the_tolerance_is_the_one_in_force():
    said = " ".join(PAGES["validation"].split())
    assert f"below {TOLERANCES['max_relative'].limit:g} of the scale" in " ".join(README.split())
    assert f"below {TOLERANCES['max_relative'].limit:g} of the scale" in said
    assert f"JAX's own must stay below {TOLERANCES['jax_oracle_relative'].limit:g} of the scale" in said


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_short_and_its_links_lead_somewhere(page):
    assert len(PAGES[page].splitlines()) <= LONGEST[page]
    prose = re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", prose):
        path, _, part = link.partition("#")
        target = ROOT / page / path
        assert target.is_file(), link
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert not part or part in {re.sub(r"[^\w -]", "", name).lower().replace(" ", "-") for name in headings}, link


def test_the_snippets_are_what_they_are_named_after():
    kinds = ("serving_bytes", "convert_all(", "saved_model.load", "hub.KerasLayer", "TFSMLayer", "classify(")
    assert [kind in snippet for kind, snippet in zip(kinds, SNIPPETS.values(), strict=True)] == [True] * len(kinds)


@pytest.mark.parametrize(
    ("snippet", "place"),
    [
        *(pytest.param(SNIPPETS[name], "here", id=name) for name in _NAMES if name not in APART),
        *(pytest.param(SNIPPETS[name], "here", id=name, marks=pytest.mark.whole) for name in APART),
        pytest.param(SNIPPETS["interface"], "alone", id="interface, alone", marks=pytest.mark.whole),
    ],
)
def test_snippet_runs_on_a_tiny_model(snippet, place, tiny_build, tiny_source, tmp_path):
    """`test_whole.py` runs those that load a model as readers do, in processes of their own, on models of full size."""
    folder = _folder(tmp_path / "here", tiny_build)
    shutil.copytree(tiny_source, folder / "build" / "demo" / "checkpoints")
    run_program(_tiny(snippet), folder, place)


INSTALLED = {
    "pip install tensorflow": ("classify", "load", "keras3"),
    'pip install tensorflow tf_keras tensorflow-hub "setuptools<82"': ("tf_keras",),
}
"""The snippets that need nothing of this project, by the line that their page gives for a new environment."""


def test_every_line_that_installs_for_a_snippet_is_tried():
    lines = re.findall(r"`(pip install [^`]*)`", README + PAGES["export"])
    assert [line for line in dict.fromkeys(lines) if "tensorflow" in line] == [*INSTALLED]


@pytest.mark.matrix
@pytest.mark.parametrize("line", INSTALLED)
def test_snippets_run_in_an_environment_made_by_the_line_beside_them(line, tiny_build, tmp_path):
    uv = [sys.executable, "-m", "uv", "--quiet"]
    python = tmp_path / "environment" / "bin" / "python"
    subprocess.run([*uv, "venv", "--python", sys.executable, python.parents[1]], check=True)
    packages = shlex.split(line.removeprefix("pip install "))
    subprocess.run([*uv, "pip", "install", "--no-cache", "--python", python, *packages], check=True)
    folder = _folder(tmp_path / "here", tiny_build)
    for name in INSTALLED[line]:
        (folder / "program.py").write_text(_tiny(SNIPPETS[name]), encoding="utf-8")
        done = subprocess.run([python, "-P", "program.py"], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]


def _folder(folder, tiny_build):
    """Return a folder with the models and the photographs that the snippets name."""
    shutil.copytree(tiny_build, folder / "build" / "demo" / "models")
    photographs = Path("validation", "parity", "photographs")
    shutil.copytree(ROOT / photographs, folder / photographs)
    return folder


def _tiny(snippet):
    checkpoint = next(iter(TESTING_HANDLES.values())).checkpoint
    tiny = snippet.replace("b32_sam", checkpoint.name).replace("224", str(checkpoint.architecture.image_size))
    assert tiny != snippet
    return tiny


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
