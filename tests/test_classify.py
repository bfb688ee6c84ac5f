"""Pictures classified with models of every format, by the command and from Python."""

import csv
import io
import json
import math
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from command import run
from PIL import Image

from convert.cli import main
from convert.pipeline.classify import _result, find_pictures
from convert.pipeline.interface import classify
from convert.pipeline.usable_model import UsableModel, _has_many_labels
from models.catalog import ALL_HANDLES, LABELS_21K, TESTING_HANDLES
from models.errors import MixerError, UsageError
from validation.parity import images

CLASSIFIER, EXTRACTOR = TESTING_HANDLES
PHOTOGRAPHS = Path(images.__file__).parent / "photographs"
ROCKET = PHOTOGRAPHS / "rocket.jpg"


@pytest.fixture(scope="module")
def build(tmp_path_factory, tiny_build, tiny_exports):
    """The tiny models, and the classifier as ONNX."""
    out = tmp_path_factory.mktemp("classify") / "build"
    shutil.copytree(tiny_build, out)
    shutil.copytree(tiny_exports / f"{CLASSIFIER}-onnx", out / f"{CLASSIFIER}-onnx")
    return out


def logits_of_the_signature(directory, *pictures):
    model = tf.saved_model.load(str(directory))
    contents = tf.constant([picture.read_bytes() for picture in pictures])
    return model.signatures["serving_bytes"](contents)["output_0"].numpy()


def as_json(capfd, *arguments):
    status, out, err = run(capfd, "classify", *arguments, "--json")
    assert status == 0, err
    return json.loads(out)


def test_classes_and_probabilities_are_those_of_the_signature_that_takes_files(build, capfd):
    pictures = sorted(PHOTOGRAPHS.glob("*.[jp][pn]g"))
    found = as_json(capfd, CLASSIFIER, *pictures, "--out", build, "--top", 1000)
    logits = logits_of_the_signature(build / CLASSIFIER / "2", *pictures).astype(np.float64)
    names = ALL_HANDLES[CLASSIFIER].labels.path.read_text().splitlines()
    assert [one["picture"] for one in found["pictures"]] == [str(picture) for picture in pictures]
    for one, of_picture in zip(found["pictures"], logits, strict=True):
        logit_of = {score["index"]: score["logit"] for score in one["classes"]}
        # TensorFlow multiplies by 1 / 127.5 in a graph, and divides outside of one.
        np.testing.assert_allclose([logit_of[index] for index in range(1000)], of_picture, atol=1e-5)
        assert [score["logit"] for score in one["classes"]] == sorted(logit_of.values(), reverse=True)
        assert [score["name"] for score in one["classes"]] == [names[score["index"]] for score in one["classes"]]
        total = math.fsum(math.exp(logit - of_picture.max()) for logit in of_picture)
        assert one["classes"][0]["probability"] == pytest.approx(1 / total, rel=1e-5)


def test_each_format_finds_the_same_classes(build, capfd):
    found = {
        name: as_json(capfd, given, PHOTOGRAPHS, "--out", build)
        for name, given in {
            "native": CLASSIFIER,
            "graph": f"{CLASSIFIER}-graph",
            "directory": build / CLASSIFIER / "2",
            "onnx": f"{CLASSIFIER}-onnx",
            "file": build / f"{CLASSIFIER}-onnx" / "2" / "model.onnx",
        }.items()
    }
    classes = {
        name: [[(score["index"], score["name"]) for score in one["classes"]] for one in of_model["pictures"]]
        for name, of_model in found.items()
    }
    assert len(classes["native"]) == 4
    assert all(one == classes["native"] for one in classes.values())
    assert {one["origin"] for one in found.values()} == {"seeded"}


def test_a_table_shows_five_classes_of_each_picture_and_synthetic_weights_say_so(build, capfd):
    status, out, err = run(capfd, "classify", CLASSIFIER, PHOTOGRAPHS, "--out", build)
    assert status == 0
    assert len([line for line in out.splitlines() if "%" in line]) == 4 * 5
    assert "rocket.jpg" in out
    assert "turned upright by EXIF" in err
    assert "softmax, for display only" in err
    assert "synthetic, never trained" in err


def test_a_name_of_several_lines_is_one_row(build, tmp_path, capfd):
    picture = shutil.copyfile(ROCKET, tmp_path / "new\nline.jpg")
    status, out, err = run(capfd, "classify", CLASSIFIER, picture, "--out", build, "--top", 1)
    assert (status, "new\\nline.jpg" in out) == (0, True), out + err


def test_csv_has_one_line_a_class(build, capfd):
    status, out, err = run(capfd, "classify", CLASSIFIER, ROCKET, "--out", build, "--csv", "--top", 3)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 0
    assert "classifying " in err  # one picture takes seconds too, as it is the first
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["picture"] == str(ROCKET)
    assert float(rows[0]["probability"]) >= float(rows[1]["probability"]) > 0


def test_a_picture_comes_from_standard_input(build, capfd, monkeypatch):
    with ROCKET.open("rb") as stdin:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stdin))
        status, out, err = run(capfd, "classify", CLASSIFIER, "-", "--out", build, "--json")
    assert status == 0, err
    (picture,) = json.loads(out)["pictures"]
    best = int(logits_of_the_signature(build / CLASSIFIER / "2", ROCKET)[0].argmax())
    assert (picture["picture"], picture["classes"][0]["index"]) == ("-", best)


def test_a_terminal_is_not_waited_for(build, capfd, monkeypatch):
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb"), os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        status, _, err = run(capfd, "classify", CLASSIFIER, "-", "--out", build)
    assert (status, "- is standard input, which is a terminal here" in err) == (2, True)


def test_a_broken_picture_is_named_and_the_others_go_on(build, tmp_path, capfd):
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    (folder / "broken.jpg").write_bytes(ROCKET.read_bytes()[:500])
    (folder / ".hidden.jpg").write_text("not looked at")
    (folder / "notes.txt").write_text("not looked at")
    shutil.copyfile(ROCKET, folder / "below" / "rocket.JPG")
    status, out, err = run(capfd, "classify", CLASSIFIER, folder, "--out", build, "--json")
    assert status == 1
    assert "1 of 2 pictures was not classified" in err
    assert f"{folder / 'notes.txt'} was left out, as it does not look like a picture: if it is one, give" in err
    assert f"{folder / 'broken.jpg'}: damaged" in err
    assert "function_node" not in err
    found = {Path(one["picture"]).name: one for one in json.loads(out)["pictures"]}
    assert len(found["rocket.JPG"]["classes"]) == 5
    assert (found["broken.jpg"]["classes"], found["broken.jpg"]["problems"][0][:7]) == ([], "damaged")


def test_a_picture_that_is_not_there_is_named_and_the_others_go_on(build, tmp_path, capfd):
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    given = (tmp_path / "missing.png", ROCKET, tmp_path / "empty", tmp_path / "pipe.png", ROCKET)
    status, out, err = run(capfd, "classify", CLASSIFIER, *given, "--out", build, "--json")
    assert (status, "3 of 4 pictures were not classified." in err) == (1, True), err
    pictures = json.loads(out)["pictures"]
    assert [one["picture"] for one in pictures] == [*map(str, given[:4])]
    assert [one["problems"] for one in pictures] == [["does not exist"], [], ["contains no picture"], ["is not a file"]]
    assert f"{given[0]}: does not exist" in err
    assert len(pictures[1]["classes"]) == 5


def test_nothing_is_said_about_classes_that_are_not_shown(build, tmp_path, capfd):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    status, out, err = run(capfd, "classify", CLASSIFIER, tmp_path / "broken.png", "--out", build)
    assert (status, out, "1 of 1 picture was not classified." in err) == (1, "", True), err
    assert "synthetic" not in err and "softmax" not in err


def test_files_that_do_not_look_like_pictures_are_counted(tmp_path):
    said = []
    shutil.copyfile(ROCKET, tmp_path / "rocket.jpg")
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).touch()
    assert find_pictures([str(tmp_path)], said.append) == {str(tmp_path / "rocket.jpg"): None}
    assert "2 files were left out, as they do not look like pictures, the first of them" in said[0].text
    assert f"{tmp_path / 'a.txt'}: if one of them is a picture, give its own path." in said[0].text


def test_links_and_what_is_no_file_do_not_stop_a_folder(build, tmp_path, capfd):
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copyfile(ROCKET, folder / "rocket.jpg")
    (folder / "loop").symlink_to(folder)
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(folder / "pipe.jpg")
    status, out, err = run(capfd, "classify", CLASSIFIER, folder, "--out", build, "--json")
    assert status == 1
    assert [Path(one["picture"]).name for one in json.loads(out)["pictures"]] == ["gone.png", "rocket.jpg"]
    assert "gone.png: cannot be read: No such file or directory" in err


def test_a_folder_that_cannot_be_read_is_named_and_the_others_go_on(tmp_path, monkeypatch):
    """It is one whose path is too long: the superuser, who may run the tests, can read any other."""
    deep = Path(*(250 * letter for letter in "abcdefghijklmnopq"))
    (tmp_path / "readable").mkdir()
    shutil.copyfile(ROCKET, tmp_path / "readable" / "rocket.jpg")
    monkeypatch.chdir(tmp_path)
    for part in deep.parts:
        Path(part).mkdir()
        os.chdir(part)
    found = find_pictures([str(tmp_path)])
    assert found.pop(str(tmp_path / "readable" / "rocket.jpg")) is None
    ((folder, why),) = found.items()
    assert deep.is_relative_to(Path(folder).relative_to(tmp_path))
    assert why == "cannot be read: File name too long"


def test_what_is_no_picture_and_no_model_is_named_at_once(build, tmp_path, capfd):
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    given = (tmp_path / "link.jpg", tmp_path / "nowhere.jpg")
    status, _, err = run(capfd, "classify", f"{CLASSIFIER}x", *given, "--out", build)
    assert status == 2
    for problem in (
        f"Did you mean {CLASSIFIER}",
        "gone.jpg, which does not exist",
        "nowhere.jpg does not",
    ):
        assert problem in err
    suggestion = err.split("Did you mean ")[1].partition("?")[0].split(" or ")
    assert len(set(suggestion)) == len(suggestion)
    assert not any("_fe" in name for name in suggestion)


def test_only_models_that_have_classes_are_suggested(build, tmp_path, capfd):
    for name in (CLASSIFIER, EXTRACTOR):
        shutil.copytree(build / name, tmp_path / name.replace(CLASSIFIER, "mine").replace(EXTRACTOR, "mine_fe"))
    for command in (("classify", "mine_f", ROCKET), ("accuracy", "mine_f", "--data", PHOTOGRAPHS.parent)):
        status, _, err = run(capfd, *command, "--out", tmp_path)
        assert (status, f"Did you mean mine? Version 2 below {tmp_path}: mine." in err) == (2, True), err
    status, _, err = run(capfd, "classify", "mine_fe", ROCKET, "--out", tmp_path)
    assert (status, "is a feature extractor, which has no classes: give a classifier, such as mine." in err) == (
        2,
        True,
    )


def test_the_file_of_a_saved_model_is_no_model(build, capfd):
    directory = build / CLASSIFIER / "2"
    status, _, err = run(capfd, "classify", directory / "saved_model.pb", ROCKET)
    assert (status, f"Give {directory}." in err) == (2, True)


def test_an_export_is_named_by_the_class_list_beside_it(build, tmp_path, capfd):
    out, name = shutil.copytree(build, tmp_path / "build"), f"{CLASSIFIER}-onnx"
    expected = as_json(capfd, name, ROCKET, "--out", out)["pictures"]
    shutil.rmtree(out / f"{CLASSIFIER}-graph")
    assert as_json(capfd, name, ROCKET, "--out", out)["pictures"] == expected
    labels = out / name / "2" / "labels.txt"
    labels.write_text("\n".join(reversed(labels.read_text().splitlines())) + "\n")
    status, _, err = run(capfd, "classify", name, ROCKET, "--out", out)
    assert status == 1
    assert f"{name}/2 differs from " in err and "labels.txt has sha256" in err
    labels.unlink()
    status, _, err = run(capfd, "classify", name, ROCKET, "--out", out)
    assert status == 1
    assert "labels.txt is missing, but 2.manifest.json lists it\nExport the model again (--overwrite)." in err
    shutil.copyfile(build / name / "2" / "labels.txt", tmp_path / "mine.txt")
    assert as_json(capfd, name, ROCKET, "--out", out, "--labels", tmp_path / "mine.txt")["pictures"] == expected


@pytest.mark.parametrize(
    ("name", "weights", "again"),
    [
        (f"{CLASSIFIER}-onnx", "model.onnx", "Export the model again (--overwrite)."),
        (CLASSIFIER, "variables/variables.data-00000-of-00001", "Convert the model again (--overwrite)."),
    ],
)
def test_a_model_with_other_weights_than_its_manifest_lists_is_refused(build, tmp_path, capfd, name, weights, again):
    out = shutil.copytree(build, tmp_path / "build")
    file = out / name / "2" / weights
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    status, _, err = run(capfd, "classify", name, ROCKET, "--out", out)
    assert status == 1
    assert f"2.manifest.json:\n  {weights} has sha256" in err and again in err


def test_a_file_that_the_manifest_does_not_list_is_no_reason_to_refuse(build, tmp_path, capfd):
    out = shutil.copytree(build, tmp_path / "build")
    (out / CLASSIFIER / "2" / "notes.txt").write_text("mine")
    assert as_json(capfd, CLASSIFIER, ROCKET, "--out", out)["pictures"]


def test_more_pictures_than_a_batch_holds(build, tmp_path, capfd):
    rng = np.random.default_rng(0)
    for index in range(19):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / f"{index:02}.png")
    pictures = sorted(tmp_path.glob("*.png"))
    found = as_json(capfd, CLASSIFIER, tmp_path, "--out", build, "--top", 1)
    expected = logits_of_the_signature(build / CLASSIFIER / "2", *pictures).argmax(-1).tolist()
    assert [one["classes"][0]["index"] for one in found["pictures"]] == expected


def test_a_picture_is_turned_unless_told_otherwise(build, tmp_path, capfd):
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(ROCKET) as image:
        image.save(tmp_path / "turned.png", exif=exif)
        image.save(tmp_path / "plain.png")
    turned, plain = (
        as_json(capfd, CLASSIFIER, tmp_path / f"{name}.png", "--out", build)["pictures"][0]["classes"]
        for name in ("turned", "plain")
    )
    left = as_json(capfd, CLASSIFIER, tmp_path / "turned.png", "--out", build, "--no-exif")["pictures"][0]["classes"]
    assert turned != plain
    assert left == plain


def test_the_hub_protocol_resizes_otherwise(build, capfd):
    paper = as_json(capfd, CLASSIFIER, ROCKET, "--out", build)
    hub = as_json(capfd, CLASSIFIER, ROCKET, "--out", build, "--protocol", "hub")
    assert (paper["protocol"], hub["protocol"]) == ("paper", "hub")
    assert paper["pictures"] != hub["pictures"]


@pytest.fixture
def three_classes(tmp_path, tiny_source):
    """A custom model of three classes, with a class list."""
    handle = ALL_HANDLES[CLASSIFIER]
    with np.load(tiny_source / handle.checkpoint.object) as arrays:
        custom = dict(arrays)
    custom["head/kernel"], custom["head/bias"] = custom["head/kernel"][:, :3], custom["head/bias"][:3]
    np.savez(tmp_path / "own.npz", **custom)
    (tmp_path / "labels.txt").write_text("one\ntwo\nthree\n")
    options = ["--checkpoint", tmp_path / "own.npz", "--name", "own", "--labels", tmp_path / "labels.txt"]
    with pytest.raises(SystemExit):
        main([*map(str, ("convert", CLASSIFIER, *options, "--out", tmp_path / "build"))])
    return tmp_path / "build"


def test_a_model_of_three_classes_shows_three(three_classes, capfd):
    found = as_json(capfd, "own", ROCKET, "--out", three_classes)
    classes = found["pictures"][0]["classes"]
    assert sorted(score["name"] for score in classes) == ["one", "three", "two"]
    assert math.fsum(score["probability"] for score in classes) == pytest.approx(1)
    assert found["origin"] == "own"


def test_another_class_list_is_taken_if_its_length_fits(three_classes, tmp_path, capfd):
    (tmp_path / "other.txt").write_text("eins\nzwei\ndrei\n")
    found = as_json(capfd, "own", ROCKET, "--out", three_classes, "--labels", tmp_path / "other.txt")
    assert {score["name"] for score in found["pictures"][0]["classes"]} == {"eins", "zwei", "drei"}
    status, _, err = run(
        capfd, "classify", "own", ROCKET, "--out", three_classes, "--labels", ALL_HANDLES[CLASSIFIER].labels.path
    )
    assert status == 2
    assert "the class list has 1,000 lines" in err
    assert "has 3 classes" in err


def test_a_model_of_21k_classes_is_scored_class_by_class():
    many = [name for name, handle in ALL_HANDLES.items() if handle.checkpoint.training.labels is LABELS_21K]
    assert many
    assert all(_has_many_labels(name) and _has_many_labels(f"{name}-graph") for name in many)
    assert not _has_many_labels(CLASSIFIER)
    model = UsableModel("many", Path(), "saved_model", None, None, None, many_labels=True)
    scores = _result("x", np.float32([0, 2, -800]), model, 5).scores
    assert [score.index for score in scores] == [1, 0, 2]
    assert [score.probability for score in scores] == pytest.approx([1 / (1 + math.exp(-2)), 0.5, 0])


def test_outputs_that_are_not_finite_are_a_problem_of_the_picture(tmp_path, tiny_source, capfd):
    model = tf.Module()
    model.serve = tf.function(
        lambda inputs: {"output_0": tf.reduce_mean(inputs, (1, 2)) / 0.0},
        input_signature=[tf.TensorSpec([None, 32, 32, 3], tf.float32, name="inputs")],
    )
    tf.saved_model.save(model, str(tmp_path / "model"), signatures={"serving_default": model.serve})
    status, _, err = run(capfd, "classify", tmp_path / "model", ROCKET)
    assert status == 1
    assert "outputs that are not finite" in err
    assert "no manifest or model.json" in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nosuch", ROCKET], "no model 'nosuch'"),
        ([CLASSIFIER[:-3], ROCKET], f"Did you mean {CLASSIFIER}"),
        ([EXTRACTOR, ROCKET], "is a feature extractor"),
        (["mixer_b32_sam_fe", ROCKET], "is a feature extractor"),
        (["mixer_b32_sam_fe", ROCKET], "Did you mean mixer_b32_sam_classification?"),
        (["mixer_b16_i1k_classification-graph", ROCKET], "convert-all mixer_b16_i1k_classification --flavour graph"),
        ([CLASSIFIER, "nosuch.jpg", "nor_this.jpg"], "nor_this.jpg does not exist"),
        ([CLASSIFIER, PHOTOGRAPHS.parent.parent / "previous"], "contains no picture"),
        ([ROCKET, ROCKET], "is not a model"),
        ([PHOTOGRAPHS, ROCKET], "contains neither a SavedModel nor an exported file"),
        ([CLASSIFIER, ROCKET, "--labels", ROCKET], "is not UTF-8 text"),
        ([CLASSIFIER, ROCKET, "--labels", "nosuch.txt"], "No such file"),
        ([CLASSIFIER, ROCKET, "--json", "--csv"], "exclude each other"),
    ],
)
def test_what_cannot_be_used_is_refused_before_any_work(build, capfd, arguments, expected):
    status, out, err = run(capfd, "classify", *arguments, "--out", build)
    assert status == 2
    assert expected in err
    assert (json.loads(out)["problems"][0] in err) if "--json" in arguments else not out
    assert "Traceback" not in err
    assert "loading" not in err


def test_all_paths_that_do_not_exist_are_named(build, capfd):
    status, _, err = run(capfd, "classify", CLASSIFIER, "a.jpg", "b.jpg", "--out", build)
    assert status == 2
    assert "a.jpg does not exist" in err
    assert "b.jpg does not exist" in err


def test_a_directory_of_versions_names_the_version_to_give(build, capfd):
    status, _, err = run(capfd, "classify", build / CLASSIFIER, ROCKET)
    assert status == 2
    assert str(build / CLASSIFIER / "2") in err


def test_an_archive_is_refused_with_advice(tmp_path, capfd):
    (tmp_path / "2.tar.gz").touch()
    status, _, err = run(capfd, "classify", tmp_path / "2.tar.gz", ROCKET)
    assert status == 2
    assert "unpack it into a directory" in err


def test_a_damaged_file_of_a_format_is_a_failure_in_words(tmp_path, capfd):
    (tmp_path / "model.onnx").write_text("nonsense")
    status, _, err = run(capfd, "classify", tmp_path / "model.onnx", ROCKET)
    assert status == 1
    assert f"{tmp_path / 'model.onnx'} cannot be loaded" in err


@pytest.mark.whole
def test_python_callers_get_results_and_problems(build, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    events = []
    pictures = [ROCKET, tmp_path / "broken.png", "missing.png"]
    found = classify(CLASSIFIER, pictures, out=build, top=2, progress=events.append)
    best = int(logits_of_the_signature(build / CLASSIFIER / "2", ROCKET)[0].argmax())
    assert (found[0].picture, found[0].problem, found[0].scores[0].index) == (str(ROCKET), None, best)
    assert (found[1].scores, len(found[0].scores)) == ((), 2)
    assert "not a picture" in found[1].problem
    assert (found[2].picture, found[2].problem) == ("missing.png", "does not exist")
    assert [event.kind for event in events].count("finished") == 2
    with pytest.raises(UsageError, match="does not exist"):
        classify(CLASSIFIER, ["nosuch.png"], out=build)
    with pytest.raises(MixerError, match="feature extractor"):
        classify(EXTRACTOR, [ROCKET], out=build)
