"""The house rules that a parser can check: who imports whom, and how long things are."""

import ast
import json
import subprocess
import sys
from pathlib import Path

from models.catalog import HANDLES

ROOT = Path(__file__).parent.parent
PACKAGES = ("models", "convert", "export", "validation")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MOST_LINES_OF_A_MODULE = 300
LONGER = {"validation/consumer.py": 379, "validation/doctor.py": 383, "validation/verify.py": 751}
"""Copied by themselves to where a model is to run, so they cannot be divided; each shows foreign names by itself."""
MOST_LINES_OF_A_FUNCTION = 50


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def names(paths):
    return {path.relative_to(ROOT).as_posix() for path in paths}


def breaches(contract):
    """Return what import-linter says of the contracts in a directory."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", contract]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_imports_keep_to_the_contracts():
    """They are in pyproject.toml: which package imports which, and which wing."""
    result = breaches("pyproject.toml")
    assert result.returncode == 0, result.stdout


def test_the_contracts_see_a_breach(tmp_path):
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    turned = text.replace(
        'layers = ["models.records", "models.storage",', 'layers = ["models.storage", "models.records",'
    )
    assert turned != text
    (tmp_path / "pyproject.toml").write_text(turned)
    result = breaches(tmp_path / "pyproject.toml")
    assert result.returncode == 1
    assert "models.records is not allowed to import models.storage" in result.stdout


def test_imports_are_absolute_and_of_public_names():
    found = [
        (path.relative_to(ROOT).as_posix(), alias.name)
        for path in MODULES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if node.level or ((node.module or "").split(".")[0] in PACKAGES and alias.name.startswith("_"))
    ]
    assert found == []


def test_modules_are_named_after_a_noun():
    vague = {"utils", "util", "common", "helpers", "helper", "misc"}
    assert names(path for path in MODULES if vague & {path.stem, *path.relative_to(ROOT).parts}) == set()


def test_each_folder_says_in_one_line_what_it_holds():
    for path in MODULES:
        if path.name == "__init__.py" and path.parent != ROOT / "convert" / "cli":
            assert ast.get_docstring(parse(path)), path
            assert len(path.read_text(encoding="utf-8").splitlines()) == 1, path
        assert (path.parent / "__init__.py").is_file(), path


def test_modules_are_short():
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    long = {path.relative_to(ROOT).as_posix(): count for path, count in lines.items() if count > MOST_LINES_OF_A_MODULE}
    assert {name: count for name, count in long.items() if count > LONGER.get(name, 0)} == {}


def test_functions_are_short():
    long = [
        (path.relative_to(ROOT).as_posix(), node.name)
        for path in MODULES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > MOST_LINES_OF_A_FUNCTION
    ]
    assert long == []


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


HEAVY = {"models.mixer", "models.pictures", "models.resize", "models.scalars"}
"""Of what the command line and the Python interface import at once or lazily, the modules that need a framework."""


def test_command_line_interface_and_records_import_no_framework():
    paths = [*(ROOT / "convert" / "cli").glob("*.py"), *(ROOT / "models").rglob("*.py")]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths}
    modules = sorted((modules | {"convert.pipeline.interface"}) - HEAVY)
    assert {"convert.cli.convert", "models.catalog", "models.records.manifest"} <= set(modules)
    result = run("-c", f"import sys, {', '.join(modules)}\n{FRAMEWORKS_NOW}")
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
