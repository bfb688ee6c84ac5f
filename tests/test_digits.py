"""A small Mixer trained on real pictures, and what each of its models finds in pictures that it was not trained on."""

import json
from pathlib import Path
from unittest.mock import Mock

import jax
import numpy as np
import pytest
from command import run
from PIL import Image

from convert.checkpoints.reader import load_checkpoint
from convert.pipeline import digits as digits_command
from convert.pipeline.digits import Disagreement
from models.catalog import TINY
from models.errors import MixerError
from models.params import save_params
from models.pictures import decode, preprocess
from models.preprocessing import HALF_RANGE
from models.records.formats import ExportReport
from validation.digits import pictures
from validation.digits import train as training
from validation.digits.pictures import HELD_OUT, NAMES, Digits
from validation.formats.runtimes import RunnableModel
from validation.parity.oracle import OracleOutputs


@pytest.fixture(scope="module")
def digits():
    return Digits.load(TINY.image_size)


def test_pictures_are_either_trained_on_or_held_out(digits):
    trained, held = digits
    assert (len(trained.labels), len(held.labels)) == (797, HELD_OUT)
    assert {len(set(part.labels.tolist())) for part in digits} == {10}
    together = {picture.tobytes() for part in digits for picture in part.pictures}
    assert len(together) == 797 + HELD_OUT  # no picture is in both, or twice


def test_a_model_sees_saved_pictures_as_they_were(digits, tmp_path):
    held = digits[1]
    paths = held.save(tmp_path)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == sorted(NAMES)
    for index in (0, 7, HELD_OUT - 1):
        assert paths[index].parent.name == NAMES[held.labels[index]]
        seen = preprocess(decode(paths[index].read_bytes()), "paper", TINY.image_size)
        np.testing.assert_array_equal(seen, (held.pictures[index].astype(np.float32) - HALF_RANGE) / HALF_RANGE)


def test_changed_copies_keep_their_labels_and_are_always_alike(digits):
    one, other = (digits[0].varied(2) for _ in range(2))
    np.testing.assert_array_equal(one.pictures, other.pictures)
    np.testing.assert_array_equal(one.labels, np.tile(digits[0].labels, 2))
    assert not np.array_equal(one.pictures[:797], one.pictures[797:])


@pytest.mark.whole
def test_training_learns_and_saves_the_originals_layout(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "STEPS", 100)
    said = []
    params = training.train(TINY, digits[0], progress=lambda done, total: said.append((done, total)))
    assert said == [(50, 100), (100, 100)]
    found = training.predict(TINY, params, digits[1].pictures).argmax(-1)
    assert (found == digits[1].labels).mean() > 0.3  # one in ten is chance
    save_params(params, tmp_path / "new" / "digits.npz")
    loaded = load_checkpoint(tmp_path / "new" / "digits.npz", TINY, num_classes=10)
    jax.tree.map(np.testing.assert_array_equal, loaded.for_head("classification"), params)


def test_a_near_tie_is_one_that_rounding_may_turn():
    assert Disagreement("a.png", 1, 1, 7, gap=9e-4).near_tie
    assert not Disagreement("a.png", 1, 1, 7, gap=2e-3).near_tie


@pytest.fixture
def no_training(monkeypatch):
    """Let a test fail that begins to train."""
    monkeypatch.setattr(digits_command, "_train", lambda *_: pytest.fail("began to train"))


def contents_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_without_scikit_learn_the_extra_is_named_before_anything_is_written(tmp_path, capfd, no_training, monkeypatch):
    monkeypatch.setattr(pictures, "find_spec", lambda _: None)
    status, _, err = run(capfd, "digits", "--out", tmp_path)
    assert status == 2
    assert "the digits come with scikit-learn" in err
    assert ".[digits]" in err
    assert contents_of(tmp_path) == {}


def test_nothing_that_exists_is_replaced_unasked(tmp_path, capfd, no_training):
    out = tmp_path / "mine"
    mine = ("labels.txt", "digits.png", "pictures/cat.jpg", "training/zero/0001.png", "models/digits_fe/2/notes.txt")
    for name in mine:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    before = contents_of(out)
    status, _, err = run(capfd, "digits", "--out", out)
    assert status == 2
    for name in ("labels.txt", "digits.png", "pictures", "training", "models/digits_fe/2"):
        assert str(out / name) in err.replace("\n", "")
    assert "digits.npz" not in err and contents_of(out) == before
    (tmp_path / "digits.npz").write_text("mine")
    status, _, err = run(capfd, "digits", "--out", tmp_path)
    assert (status, f"exists already: {tmp_path / 'digits.npz'}. Give another --out" in err) == (2, True), err
    assert (tmp_path / "digits.npz").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("training/zero/mine.png", "training/zero/mine.png"),
        ("training/cats/0001.png", "training/cats, "),
        ("pictures/mine.png", "pictures/mine.png"),
        ("training/one/0000.png/mine.png", "training/one/0000.png"),
        ("digits.png/mine.png", "digits.png."),
        ("models/digits/2/mine.png", "models/digits/2 is not a SavedModel"),
        ("models/digits-onnx/2/mine.png", "models/digits-onnx/2 has no manifest"),
        ("models/finetune/digits_tuned/mine.png", "models/finetune/digits_tuned/mine.png"),
        ("models/digits", "models/digits."),
    ],
)
def test_only_what_a_run_writes_is_replaced(tmp_path, capfd, no_training, name, refused):
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("mine")
    status, _, err = run(capfd, "digits", "--out", tmp_path, "--overwrite")
    assert (status, f"{tmp_path}/{refused}" in err, (tmp_path / name).read_text()) == (2, True, "mine"), err


def test_what_a_run_writes_is_replaced_if_that_is_asked_for(digits, tmp_path, capfd, monkeypatch):
    trained, held = digits
    held.save(tmp_path / "pictures")
    trained.save(tmp_path / "training")
    for name in ("digits.npz", "labels.txt", "training/.hidden"):
        (tmp_path / name).write_text("of an earlier run")
    monkeypatch.setattr(digits_command, "_train", Mock(side_effect=MixerError("began to train")))
    status, _, err = run(capfd, "digits", "--out", tmp_path, "--overwrite")
    assert (status, "began to train" in err) == (1, True), err


def test_an_output_directory_that_cannot_be_used_is_refused_by_its_own_name(tmp_path, capfd, no_training):
    (tmp_path / "notes.md").write_text("mine")
    for name, expected in (
        ("a[b]", f"--out {tmp_path / 'a[b]'} is in a path with brackets"),
        ("notes.md", f"cannot write to the output directory {tmp_path / 'notes.md'} ("),
    ):
        status, _, err = run(capfd, "digits", "--out", tmp_path / name)
        assert (status, expected in err) == (2, True), err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.md"]


def worst_error_on_held_out_pictures(folder, file):
    """The largest difference of a LiteRT file's logits from the oracle's, over their standard deviation."""
    _, held = Digits.load(TINY.image_size)
    images = (held.pictures.astype(np.float32) - HALF_RANGE) / HALF_RANGE
    expected = OracleOutputs.compute(folder / "digits.npz", images).logits
    found = RunnableModel.open("litert", folder / "models" / "digits-litert" / "2" / file).run(images)
    return (np.abs(found - expected).max(axis=1) / expected.std(axis=1)).max()


@pytest.mark.whole
def test_every_model_of_a_trained_mixer_finds_what_jax_finds(tmp_path, capfd):
    status, out, err = run(capfd, "digits", "--out", tmp_path, "--json")
    assert status == 0, err
    found = json.loads(out)
    models = {one["model"]: one for one in found["models"]}
    assert found["left_out"] == []
    assert models["JAX"]["right"] >= 970
    exact = ["digits", "digits-graph", "digits-litert/model_float32.tflite", "digits-onnx/model.onnx"]
    exact.append("digits-openvino/model.xml")
    for name in exact:
        assert models[name]["total"] == HELD_OUT
        assert [one for one in models[name]["disagreements"] if not one["near_tie"]] == [], name
    assert models["JAX, fine-tuned"]["right"] >= 950
    assert [one for one in models["digits_tuned"]["disagreements"] if not one["near_tie"]] == []
    for name in ("digits-litert/model_float16.tflite", "digits-litert/model_int8.tflite"):
        assert len(models[name]["disagreements"]) <= 10
    with Image.open(found["drawing"]) as drawing:
        assert drawing.format == "PNG"
    report = ExportReport.read(tmp_path / "models" / "digits-litert" / "2.report.json")
    assert report.figure("int8 own_weights_relative") < 1e-5
    assert report.figure("int8 max_relative") < 0.05
    assert worst_error_on_held_out_pictures(tmp_path, "model_int8.tflite") < 0.05
    reports = sorted(path.parent.name for path in Path(tmp_path / "models").glob("*/2.report.json"))
    exported = ["digits-litert", "digits-onnx", "digits-openvino"]
    assert reports == ["digits", "digits-graph", *exported, "digits_fe", "digits_tuned"]
