"""The Makefile, without running what it would run."""

import os
import re
import shlex
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VARIABLES = set(re.findall(r"^(\w+) \?=", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


@pytest.fixture
def make(tmp_path):
    """Run make on a copy of the Makefile, in a folder where nothing can be harmed."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / ".ci" / "locks", tmp_path / ".ci" / "locks")

    def run(*arguments, **variables):
        # These tests may run under make themselves: what that make was told is not for this one.
        kept = {name: value for name, value in os.environ.items() if name not in VARIABLES and "MAKE" not in name}
        kept.pop("MFLAGS", None)
        return subprocess.run(
            ["make", *arguments, *(f"{name}={value}" for name, value in variables.items())],
            cwd=tmp_path,
            env=kept | {"LC_ALL": "C"},
            capture_output=True,
            text=True,
        )

    return run


def commands(result):
    """The words of the project's own commands among those that make would run."""
    assert result.returncode == 0, result.stderr
    lines = [shlex.split(line) for line in result.stdout.splitlines() if line.startswith(".venv/bin/python")]
    return [words[3:] for words in lines if words[1:3] == ["-m", "convert"]]


def test_help_lists_the_targets(make):
    result = make("help")
    assert result.returncode == 0
    listed = re.findall(r"^  make (\S+) +(\S.*)$", result.stdout, flags=re.MULTILINE)
    expected = [
        "help",
        "setup",
        "demo",
        "convert-all",
        "parity",
        "republish",
        "test",
        "whole",
        "browser",
        "matrix",
        "lock",
        "clean",
    ]
    assert set(expected) <= {name for name, _ in listed}
    assert len(listed) == len(result.stdout.splitlines())


def test_make_alone_shows_the_help(make):
    assert make().stdout == make("help").stdout


def test_every_listed_target_is_phony(make):
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    listed = re.findall(r"^  make (\S+)", make("help").stdout, flags=re.MULTILINE)
    assert set(listed) <= set(phony[1].split())


def test_convert_all_passes_its_variables_on(make):
    result = make(
        "-n", "convert-all", SOURCE="gs://b", OUT="o", VERSION="3", FLAVOUR="native", HANDLES="a b"
    )  # fmt: skip
    expected = "convert-all --jobs 2 --source gs://b --out o --version 3 --flavour native a b"
    assert commands(result) == [expected.split()]


def test_convert_all_has_the_command_lines_own_defaults(make):
    from convert.cli.options import Flavour
    from models.catalog import BUCKET, DEFAULT_VERSION

    fixed = f"--version {DEFAULT_VERSION} --flavour {Flavour.native}"
    expected = f"convert-all --jobs 2 --source {BUCKET} --out build {fixed}"
    assert commands(make("-n", "convert-all")) == [expected.split()]


def test_demo_seeds_and_converts(make):
    seed, convert = commands(make("-n", "demo"))
    assert seed == ["seed", "build/demo/checkpoints"]
    assert convert == ["convert-all", "--jobs", "2", "--source", "build/demo/checkpoints", "--out", "build/demo/models"]


def test_test_runs_lint_types_and_tests(make):
    result = make("-n", "test", PYTEST="-k something")
    assert result.returncode == 0
    chosen = "not whole and not browser and not matrix and not ray"
    pytest = f"pytest -n auto --maxprocesses 4 --dist worksteal -m '{chosen}' -k something"
    for tool in ("ruff check .", "ruff format --check .", "mypy", pytest):
        assert f".venv/bin/python -m {tool}" in result.stdout


@pytest.mark.parametrize("types", [0, 1])
@pytest.mark.parametrize("tests", [0, 1])
def test_test_fails_where_types_or_tests_do_and_ends_with_the_tests(types, tests, make, tmp_path):
    """With a Python that only says what it was asked for."""
    program = tmp_path / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text(
        "#!/bin/sh\n"
        "echo $2 says so\n"
        f"case $2 in mypy) exit {types};; pytest) exit {tests};; esac\n"
    )  # fmt: skip
    program.chmod(0o755)
    done = make("-o", ".venv/.ready-py312", "test", PYTHON=_fake_python(tmp_path, "py312"))
    assert (done.returncode == 0) == (types == tests == 0)
    assert done.stdout.splitlines()[-1] == "pytest says so"
    assert ("mypy says so" in done.stderr) == bool(types)


def test_parity_checks_with_the_full_set(make):
    result = make("-n", "parity", SOURCE="s", OUT="o", VERSION="3", HANDLES="a")
    expected = "validate --set full --jobs 2 --memory 7 --source s --out o --version 3 --flavour native a"
    assert commands(result) == [expected.split()]


def test_republish_passes_its_variables_on(make):
    given = {
        "TO": "gs://b/models",
        "PUBLISHER": "p",
        "ASSETS": "https://a",
        "SOURCE": "s",
        "OUT": "o",
        "HANDLES": "a b",
    }
    result = make("-n", "republish", **given)
    joined = result.stdout.replace("\\\n", " ")
    expected = "republish --to gs://b/models --publisher p --assets https://a --source s --out o --flavour native a b"
    assert [shlex.split(line)[3:] for line in joined.splitlines() if " republish " in line] == [expected.split()]


def test_browser_runs_the_tests_of_the_page(make):
    assert ".venv/bin/python -m pytest -m browser" in make("-n", "browser").stdout


def test_whole_runs_the_full_size_tests(make):
    assert ".venv/bin/python -m pytest -n auto --maxprocesses 2 --dist loadfile -m whole" in make("-n", "whole").stdout


def test_bench_writes_below_the_models(make):
    assert commands(make("-n", "bench", OUT="o", HANDLES="a b")) == [["bench", "--out", "o/bench", "a", "b"]]


def test_matrix_writes_beside_the_models(make):
    assert commands(make("-n", "matrix", OUT="o")) == [["matrix", "--out", "o"]]


def test_the_environment_comes_from_the_lock_of_this_python(make, tmp_path):
    result = make("-n", "setup", PYTHON=_fake_python(tmp_path, "py312"))
    for program in ("bin/pip install --quiet", "--compile-bytecode"):
        assert f"{program} --require-hashes --requirement .ci/locks/py312.txt" in result.stdout


def test_an_unsupported_python_is_told_before_anything_is_made(make, tmp_path):
    result = make("demo", PYTHON=_fake_python(tmp_path, "py39"))
    assert result.returncode == 2
    assert "no lock file for this Python (py39): use 3.11, 3.12 or 3.13" in result.stderr
    assert "make PYTHON=python3.12" in result.stderr
    assert not (tmp_path / ".venv").exists()


def test_each_supported_python_has_a_lock_with_hashes():
    for tag in ("py311", "py312", "py313"):
        lock = (ROOT / ".ci" / "locks" / f"{tag}.txt").read_text()
        assert lock.count("==") > 50
        assert lock.count("--hash=sha256:") > lock.count("==")


def _fake_python(folder, tag):
    """A Python that only tells its version; asked to make an environment it fails."""
    script = folder / "fake_python"
    script.write_text(f'#!/bin/sh\n[ "$1" = -c ] && echo {tag} || exit 9\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)


def test_the_audit_takes_the_lock_and_what_is_accepted_with_a_reason(make, tmp_path):
    (tmp_path / ".ci" / "accepted.txt").write_text("# words\nGHSA-aaaa-bbbb-cccc # unused\nCVE-2026-1 # until 2.0\n")
    program = tmp_path / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    said = make("-o", ".venv/.ready-py312", "audit", PYTHON=_fake_python(tmp_path, "py312")).stdout.splitlines()[-1]
    assert said == (
        "-m pip_audit --disable-pip --require-hashes --requirement .ci/locks/py312.txt "
        "--ignore-vuln GHSA-aaaa-bbbb-cccc --ignore-vuln CVE-2026-1"
    )


def test_each_accepted_vulnerability_has_a_reason():
    lines = (ROOT / ".ci" / "accepted.txt").read_text().splitlines()
    assert all(re.fullmatch(r"(#.*|[A-Z][A-Za-z0-9-]+ +# \S.+)?", line) for line in lines)


def test_each_action_of_a_workflow_is_pinned_by_commit_and_names_its_version():
    used = [
        line.partition("uses:")[2].strip()
        for file in (ROOT / ".github" / "workflows").glob("*.yml")
        for line in file.read_text().splitlines()
        if "uses:" in line
    ]
    assert len(used) >= 5
    assert [one for one in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one)] == []
