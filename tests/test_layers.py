"""The house rules that a parser can check: who imports whom, and how long things are."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from models.catalog import HANDLES

ROOT = Path(__file__).parent.parent
PACKAGES = ("models", "convert", "export", "validation")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
COMMAND_LINE = ROOT / "convert" / "cli"
MAY_IMPORT = {
    "models": {"models"},
    "convert": {"convert", "models"},
    "export": {"export", "models"},
    "validation": {"validation", "models"},
}
MOST_LINES_OF_A_MODULE = 300
LONGER = {"validation/consumer.py": 356, "validation/doctor.py": 306}
"""Copied by themselves to where a model is to run, so they cannot be divided; each shows foreign names by itself."""
MOST_LINES_OF_A_FUNCTION = 50

each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


@each_module
def test_imports_keep_to_their_layer(path):
    names = set(imported(parse(path)))
    assert not {name for name in names if name.startswith(".")}, "relative import"
    of_ours = {name.split(".")[0] for name in names} & set(PACKAGES)
    allowed = set(PACKAGES) if COMMAND_LINE in path.parents else MAY_IMPORT[path.relative_to(ROOT).parts[0]]
    assert of_ours <= allowed


@each_module
def test_only_the_command_line_and_the_entry_import_the_command_line(path):
    uses = any(name.startswith("convert.cli") for name in imported(parse(path)))
    assert not uses or COMMAND_LINE in path.parents or path == ROOT / "convert" / "__main__.py"


@each_module
def test_module_is_named_after_a_noun(path):
    assert not {"utils", "util", "common", "helpers", "helper", "misc"} & {path.stem, *path.relative_to(ROOT).parts}


@each_module
def test_module_is_short(path):
    most = LONGER.get(path.relative_to(ROOT).as_posix(), MOST_LINES_OF_A_MODULE)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= most


@each_module
def test_functions_are_short(path):
    functions = [node for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {function.name: function.end_lineno - function.lineno + 1 for function in functions}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES_OF_A_FUNCTION} == {}


def test_the_rules_see_a_breach(tmp_path):
    breach = "def f():\n    from validation.parity import check_parity\n    import export.card\n"
    assert set(imported(ast.parse(breach))) == {"validation.parity", "export.card"}


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)


FRAMEWORKS_NOW = "print(sorted({'jax', 'jaxlib', 'flax', 'tensorflow'} & sys.modules.keys()))\n"


def test_listing_the_catalog_imports_no_framework():
    code = (
        "import sys\nfrom convert.cli import main\n"
        "try:\n    main(['list'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
    )
    result = run("-c", code + FRAMEWORKS_NOW)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr
    assert "mixer_b16_i21k_fe" in result.stdout


def test_command_line_and_records_import_no_framework():
    paths = [*COMMAND_LINE.glob("*.py"), *(ROOT / "models").glob("*.py")]
    names = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in paths
        if path.stem not in {"mixer", "checking"}
    )
    assert {"convert.cli.stages", "models.catalog", "models.records"} <= set(names)
    result = run("-c", f"import sys, {', '.join(name.removesuffix('.__init__') for name in names)}\n{FRAMEWORKS_NOW}")
    assert result.stdout == "[]\n", result.stderr


def test_python_m_convert_is_the_command_line():
    result = run("-m", "convert", "list")
    assert (result.returncode, result.stderr) == (0, "")
    assert all(name in result.stdout for name in HANDLES)


def test_list_as_json():
    program = Path(sys.executable).with_name("mixer-jax2tf")
    result = subprocess.run([program, "list", "--json"], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")
    listed = json.loads(result.stdout)
    assert [row["handle"] for row in listed] == list(HANDLES)
    assert len(listed) == 12
    assert {row["checkpoint"]["url"] for row in listed} == {row.checkpoint.url for row in HANDLES.values()}
