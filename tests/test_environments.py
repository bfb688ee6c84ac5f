"""Environments for one TensorFlow release: which Python it gets, and that nothing of it stays."""

import sys
from pathlib import Path

import pytest

from models.errors import UsageError
from models.flavours import FLAVOURS
from validation.compatibility import environments
from validation.compatibility.environments import (
    RELEASES,
    EnvironmentMissingError,
    Release,
    select_releases,
)

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def test_the_releases_cover_what_is_promised():
    proven = [name for name, release in RELEASES.items() if not release.candidate]
    assert proven == ["2.6", "2.8", "2.10", *(f"2.{minor}" for minor in range(12, 22))]
    for kind in FLAVOURS.values():
        assert {kind.lowest, kind.highest} <= set(proven)


def test_releases_are_chosen_by_name_in_the_order_of_the_table():
    assert [release.name for release in select_releases(["2.14", "2.6"])] == ["2.6", "2.14"]
    assert select_releases() == list(RELEASES.values())
    with pytest.raises(
        UsageError, match=r"the matrix has no TensorFlow release 1\.15, 2\.7: expected some of 2\.6, 2\.8, 2\.10"
    ):
        select_releases(["1.15", "2.12", "2.7"])


def test_a_candidate_is_asked_for_by_its_whole_name():
    assert RELEASES["2.6"].requirements[0] == "tensorflow-cpu==2.6.*"
    assert {"numpy<1.20", "protobuf<3.20", "keras==2.6.*"} <= set(RELEASES["2.6"].requirements)
    assert RELEASES["2.22.0rc0"].requirements == ("tensorflow-cpu==2.22.0rc0",)


def python_that_says(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n[ -n '{version}' ] && echo {version}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def pythons(tmp_path, monkeypatch):
    """A folder on an otherwise empty PATH, and a root of pyenv."""
    path, pyenv = tmp_path / "path", tmp_path / "pyenv"
    monkeypatch.setenv("PATH", f"{path}:/bin:/usr/bin")
    monkeypatch.setenv("PYENV_ROOT", str(pyenv))
    return path, pyenv


def test_this_python_comes_before_others(pythons):
    python_that_says(pythons[0] / f"python{HERE}", HERE)
    assert Release("x", (HERE,)).find_python() == Path(sys.executable)


def test_a_python_is_found_on_the_path_and_in_pyenv(pythons):
    path, pyenv = pythons
    old = python_that_says(pyenv / "versions" / "3.1.7" / "bin" / "python3.1", "3.1")
    assert Release("x", ("3.0", "3.1")).find_python() == old
    new = python_that_says(path / "python3.1", "3.1")
    assert Release("x", ("3.0", "3.1")).find_python() == new
    preferred = python_that_says(path / "python3.0", "3.0")
    assert Release("x", ("3.0", "3.1")).find_python() == preferred


@pytest.mark.parametrize("says", ["", "3.2"])
def test_a_stand_in_that_is_not_that_python_is_passed_over(pythons, says):
    python_that_says(pythons[0] / "python3.1", says)
    assert Release("x", ("3.1",)).find_python() is None
    right = python_that_says(pythons[1] / "versions" / "3.1.0" / "bin" / "python3.1", "3.1")
    assert Release("x", ("3.1",)).find_python() == right


@pytest.fixture
def asked(monkeypatch):
    """What uv is asked for, which only makes a file."""
    calls = []

    def fake(folder, *arguments):
        calls.append((Path(folder), arguments))
        Path(folder, "environment").mkdir(exist_ok=True)

    monkeypatch.setattr(environments, "_uv", fake)
    return calls


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt, SystemExit])
def test_nothing_of_it_stays_however_it_ends(asked, error):
    try:
        with RELEASES["2.14"].installed(Path("some/python")) as python:
            folder = asked[0][0]
            assert (folder / "environment").is_dir()
            assert python == folder / "environment" / "bin" / "python"
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt, SystemExit) as found:
        assert type(found) is error
    assert not folder.exists()
    (_, made), (_, installed) = asked
    assert made[0] == "venv"
    assert "some/python" in made
    assert installed[:2] == ("pip", "install")
    assert installed[-1] == "tensorflow-cpu==2.14.*"


def test_converters_come_beside_the_release_which_stays_as_it_is(asked, tmp_path):
    RELEASES["2.8"].add_converters(tmp_path / "python")
    ((_, words),) = asked
    assert words[:2] == ("pip", "install")
    assert words[-6:-3] == RELEASES["2.8"].requirements == ("tensorflow-cpu==2.8.*", "numpy<2", "protobuf<3.20")
    assert words[-3:] == ("tf2onnx", "onnx!=1.19.0", "onnxruntime")


def test_nothing_stays_when_installing_is_interrupted(asked, monkeypatch):
    def interrupt(folder, *arguments):
        asked.append((Path(folder), arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(environments, "_uv", interrupt)
    with pytest.raises(KeyboardInterrupt), RELEASES["2.14"].installed(Path("some/python")):
        raise AssertionError("never reached")
    assert not asked[0][0].exists()


def test_what_uv_says_is_passed_on(tmp_path):
    expected = r"`uv venv .* failed: .*nowhere.*\. uv comes with the extra `dev` and needs a package index\."
    with (
        pytest.raises(EnvironmentMissingError, match=expected),
        Release("2.14", (HERE,)).installed(tmp_path / "nowhere"),
    ):
        raise AssertionError("never reached")
