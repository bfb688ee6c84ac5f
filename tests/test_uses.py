"""What engineers do with a model beyond calling it: each use passes, as it is or with its remedy, or is refused."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from command import status_of
from test_consumer import NEWER_THAN_3_8
from writing import directory_of, write_saved_model

from models.catalog import HANDLES, TESTING_HANDLES
from validation import uses
from validation.compatibility.run_consumer import run_consumer
from validation.consumer import LIMIT

CLASSIFIER, EXTRACTOR = TESTING_HANDLES
FILE = Path(uses.__file__)
REMEDIED = ["Adam, exported again", "MirroredStrategy", "mixed_float16", "mixed_bfloat16", "LiteRT"]
"""What fails as it is in the newest TensorFlow, for reasons of others."""


def made_on(directory):
    """Return what came of each use, by name."""
    return {check["name"]: check for check in run_consumer(directory, uses=True)["checks"]}


def judge(checks, flavour):
    assert list(checks) == list(uses.USES)
    statuses = {name: checks[name]["status"] for name in uses.REMEDIES}
    assert statuses == dict.fromkeys(REMEDIED, "remedied") | {"tf2onnx": "refused" if flavour == "native" else "passed"}
    for name in REMEDIED:
        assert f"with {uses.REMEDIES[name]}; without: " in checks[name]["detail"]
        assert 0 <= checks[name]["worst"] <= LIMIT


@pytest.mark.parametrize(
    ("name", "flavour"),
    [
        pytest.param(CLASSIFIER, "native", marks=pytest.mark.matrix),
        pytest.param(CLASSIFIER, "graph", marks=pytest.mark.whole),
        pytest.param(EXTRACTOR, "native", marks=pytest.mark.whole),
        pytest.param(EXTRACTOR, "graph", marks=pytest.mark.matrix),
    ],
)
def test_each_use_of_a_tiny_model_passes_or_has_a_remedy(name, flavour, tiny_build):
    judge(made_on(directory_of(tiny_build, TESTING_HANDLES[name].in_flavour(flavour).name)), flavour)


@pytest.mark.parametrize(
    ("head", "flavour"),
    [
        pytest.param("classification", "native", marks=pytest.mark.whole),
        pytest.param("fe", "native", marks=pytest.mark.matrix),
        # By default tf2onnx folds constants, which takes 11 GB here.
        pytest.param("classification", "graph", marks=pytest.mark.matrix),
        pytest.param("fe", "graph", marks=pytest.mark.matrix),
    ],
)
def test_each_use_of_a_model_of_full_size_passes_or_has_a_remedy(head, flavour, tmp_path):
    from convert.checkpoints.synthetic import write_seeded

    handle = HANDLES[f"mixer_b32_sam_{head}"]
    write_seeded(handle.checkpoint, tmp_path)
    options = ["--source", tmp_path, "--out", tmp_path / "out", "--flavour", flavour]
    assert status_of("convert", handle.name, *options) == 0
    judge(made_on(directory_of(tmp_path / "out", handle.in_flavour(flavour).name)), flavour)


def test_a_use_that_passes_as_it_is_has_no_remedy():
    def never():
        pytest.fail("was tried")

    found, remedy = uses._remedied(lambda: 3, never, "a remedy")
    assert (found, remedy) == (3, "")
    assert uses._outcome("done", remedy, 1e-7) == ("done", 1e-7, "passed")


def test_a_remedy_is_named_with_what_was_said_without_it():
    def fail():
        raise ValueError("no such thing")

    found, remedy = uses._remedied(fail, lambda: 3, "a remedy")
    assert (found, remedy) == (3, "with a remedy; without: ValueError: no such thing")
    assert uses._outcome("done", remedy, 1e-7) == (f"done; {remedy}", 1e-7, "remedied")
    assert uses._outcome("done", remedy, right=False).status == "failed"


def test_what_no_remedy_helps_says_both():
    def fail(said):
        raise ValueError(said)

    with pytest.raises(AssertionError, match="with a remedy: ValueError: second; without: ValueError: first"):
        uses._remedied(lambda: fail("first"), lambda: fail("second"), "a remedy")


@pytest.fixture
def subject(tmp_path):
    """What a use is tried on: a small model whose gradients are zeros, so that it cannot be trained."""
    kernel = np.eye(3, 4, dtype=np.float32)

    def colours(params, images):
        outputs = tf.reduce_mean(images, (1, 2)) @ params["kernel"]
        return tf.stop_gradient(outputs) + 0.0 * outputs

    write_saved_model(colours, {"kernel": kernel}, tmp_path, image_size=8)
    on = uses.consumer._Subject(directory=str(tmp_path), tf=tf, inputs=None, expected=None, limit=LIMIT)
    on.open()
    return on


@pytest.mark.parametrize("name", ["Adam, exported again", "mixed_bfloat16"])
def test_a_model_that_cannot_be_trained_fails_even_with_the_remedy(name, subject):
    found = uses.consumer._attempt(name, subject, uses.USES)
    assert found["status"] == "failed"
    assert "0 of 1 weights changed" in found["detail"]


def test_one_device_is_not_taken_for_two(subject):
    found = uses.consumer._attempt("MirroredStrategy", subject, uses.USES)
    assert found["status"] == "failed"


@pytest.mark.whole
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_a_converted_model_with_other_outputs_fails(subject):
    subject.sides = [side + np.float32(1) for side in subject.sides]
    found = uses.consumer._attempt("LiteRT", subject, uses.USES)
    assert (found["status"], found["detail"][:25]) == ("failed", "over the limit of 5e-05: ")


@pytest.mark.whole
@pytest.mark.parametrize("graph", [b"... XlaCallModule ...", b"plain operations"])
def test_a_converter_may_refuse_the_native_flavour_alone(graph, tmp_path, subject):
    (tmp_path / "saved_model.pb").write_bytes(graph)
    subject.directory = str(tmp_path)
    found = uses.consumer._attempt("LiteRT", subject, uses.USES)
    expected = ("refused", uses.REMEDIES["tf2onnx"]) if b"Xla" in graph else ("failed", "with signature_keys")
    assert (found["status"], found["detail"][: len(expected[1])]) == expected


@pytest.mark.parametrize(("graph", "status"), [(b"... XlaCallModule ...", "refused"), (b"plain", "failed")])
def test_a_converter_that_ends_its_process_ends_no_other(graph, status, tmp_path, subject, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho dying >&2\nkill -ABRT $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    (tmp_path / "saved_model.pb").write_bytes(graph)
    found = uses.consumer._attempt("LiteRT", subject, uses.USES)
    assert found["status"] == status
    assert "exit status -6: dying" in found["detail"]


def test_the_file_keeps_to_python_3_8():
    tree = ast.parse(FILE.read_text(encoding="utf-8"), feature_version=(3, 8))
    assert {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & NEWER_THAN_3_8 == set()


@pytest.mark.matrix
def test_both_files_alone_are_enough(tiny_build, tmp_path):
    for file in (FILE, FILE.with_name("consumer.py")):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    model = tiny_build / "mixer_ti8_seeded_fe-graph" / "2"
    command = [sys.executable, "-I", "uses.py", model, "--json", "found.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout
    names = [check["name"] for check in json.loads((tmp_path / "found.json").read_text())["checks"]]
    assert names == list(uses.USES)
