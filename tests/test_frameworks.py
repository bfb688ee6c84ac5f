"""Importing the frameworks: what the environment sets for them changes no byte, or is refused in words."""

import os
import subprocess
import sys

import pytest
from command import run

from convert.pipeline import frameworks
from models.catalog import TESTING_HANDLES
from models.errors import UsageError
from models.records.report import Report

EXTRACTOR = next(handle.name for handle in TESTING_HANDLES.values() if handle.head == "fe")
MADE = (EXTRACTOR, f"{EXTRACTOR}-graph")


def process(*words, **variables):
    """Run Python with these variables in its environment, and return what came of it."""
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)


@pytest.mark.whole
def test_conversion_writes_the_same_bytes_whatever_the_environment_sets(tiny_build, made_elsewhere):
    assert "ignored: JAX_ENABLE_X64=1" in (made_elsewhere / "said").read_text()
    for name in MADE:
        files = [path for path in (tiny_build / name / "2").rglob("*") if path.is_file()]
        assert len(files) > 4
        for path in files:
            made = made_elsewhere / "first run" / path.relative_to(tiny_build)
            assert made.read_bytes() == path.read_bytes(), path


def test_the_report_says_what_jax_computed_on(tiny_build):
    assert Report.read(tiny_build / EXTRACTOR / "2.report.json").libraries["platform"] == "cpu"


@pytest.mark.parametrize(
    ("error", "reason"), [(AssertionError(), ""), (RuntimeError("no such platform"), " (no such platform)")]
)
def test_a_platform_that_jax_has_not_is_refused(error, reason, monkeypatch):
    def fail():
        raise error

    monkeypatch.setattr("jax.default_backend", fail)
    with pytest.raises(UsageError) as refused:
        frameworks._compute_on("cuda")
    assert str(refused.value).startswith(f"JAX cannot compute on JAX_PLATFORMS=cuda{reason}: expected a platform ")
    assert str(refused.value).endswith("Unset it to compute on the CPU.")


def test_another_implementation_of_protocol_buffers_is_refused(monkeypatch, tiny_source, tmp_path, capfd):
    monkeypatch.setattr("google.protobuf.internal.api_implementation.Type", lambda: "python")
    status, _, err = run(capfd, "convert", EXTRACTOR, "--source", tiny_source, "--out", tmp_path)
    assert status == 2
    assert "mixer-jax2tf: Protocol Buffers use their pure Python implementation" in err
    assert not list(tmp_path.rglob("saved_model.pb"))


@pytest.mark.whole
@pytest.mark.parametrize("platforms", ["cuda", "nonsense"])
def test_validate_refuses_a_platform_that_jax_has_not(platforms, tiny_source, tiny_build):
    words = ("-m", "convert", "validate", EXTRACTOR, "--source", tiny_source, "--out", tiny_build)
    ran = process(*words, JAX_PLATFORMS=platforms)
    assert ran.returncode == 2, ran.stderr
    last = ran.stderr.splitlines()[-1]
    assert last.startswith(f"mixer-jax2tf: JAX cannot compute on JAX_PLATFORMS={platforms}")
    assert last.endswith("Unset it to compute on the CPU.")


@pytest.mark.whole
def test_protocol_buffers_in_pure_python_are_refused(tiny_source, tmp_path):
    begin = "import google.protobuf.descriptor; from convert.cli import main; main()"
    words = ("-c", begin, "convert", EXTRACTOR, "--source", tiny_source, "--out", tmp_path)
    ran = process(*words, PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION="python")
    assert ran.returncode == 2, ran.stderr
    assert "mixer-jax2tf: Protocol Buffers use their pure Python implementation" in ran.stderr
    assert not list(tmp_path.rglob("saved_model.pb"))
