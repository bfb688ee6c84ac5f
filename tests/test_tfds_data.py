"""Data sets of tensorflow-datasets: a real one, prepared here, unpacked into folders of pictures."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from colours import COLOURS, write_colours
from command import run

from convert.pipeline.tfds_data import unpack_data
from models.catalog import TESTING_HANDLES
from models.errors import UsageError

pytestmark = pytest.mark.whole  # each test starts TensorFlow in other processes

_, EXTRACTOR = TESTING_HANDLES


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_colours(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def prepared(pictures, tmp_path_factory):
    place = tmp_path_factory.mktemp("tfds")
    program = Path(__file__).with_name("prepare_colours.py")
    done = subprocess.run([sys.executable, program, pictures, place], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return place


@pytest.fixture(autouse=True)
def _place(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))


def test_the_files_are_those_that_the_data_set_was_made_from(pictures, tmp_path):
    directory, names = unpack_data(Path("tfds:colours:train"), tmp_path)
    assert names == tuple(COLOURS)
    for name in COLOURS:
        found = {path.read_bytes() for path in (directory / name).iterdir()}
        assert found == {(pictures / name / f"{number}.png").read_bytes() for number in range(8)}
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*.png")}
    assert unpack_data(Path("tfds:colours"), tmp_path, to_train=True) == (directory, names)
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*.png")} == before
    part, _ = unpack_data(Path("tfds:colours:train[:25%]"), tmp_path)
    assert len(list(part.rglob("*.png"))) == 6
    assert unpack_data(Path("tfds:colours"), tmp_path)[0] == unpack_data(Path("tfds:colours:test"), tmp_path)[0]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("tfds:nothing", "tensorflow-datasets cannot open tfds:nothing: "),
        ("tfds:colours:tset", "no split 'tset'"),
        ("tfds:colours:unlabelled", r"has pictures without a label \(-1\)"),
        ("tfds:tf_flowers", "is not prepared in .*: run `tfds build tf_flowers` first"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, data, expected):
    with pytest.raises(UsageError, match=expected):
        unpack_data(Path(data), tmp_path)
    assert not list(tmp_path.rglob("*.png"))


def _cut_after(records):
    """Return a mutation that leaves the first records of a TFRecord file, whole."""

    def cut(content):
        end = 0
        for _ in range(records):
            end += 16 + int.from_bytes(content[end : end + 8], "little")  # length, its checksum, data, its checksum
        return content[:end]

    return cut


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        (
            "colours-train.*",
            lambda it: it[:50_000] + b"x" + it[50_001:],
            "split train: corrupted record at .*damaged",
        ),
        (
            "colours-train.*",
            _cut_after(9),
            "contain 24 elements but contained only 9 ",
        ),
        ("label.labels.txt", lambda _: b"", r"label\.labels\.txt does not list the classes of tfds:colours"),
        ("label.labels.txt", lambda _: b"red\ngreen\n", "has a picture of class 2, but names 2 classes"),
        ("label.labels.txt", lambda _: b"red\nred\nblue\n", "does not list the classes of tfds:colours .*, each once"),
        ("label.labels.txt", lambda _: b"red\ngreen\n" + b"x" * 256, "has class names that cannot name folders: xxx"),
        ("dataset_info.json", lambda it: it.replace(b'"colours"', b'"../../x"'), "its files are damaged"),
        ("dataset_info.json", lambda it: it.replace(b"colours", b"x" * 300), "its files are damaged"),
        ("features.json", lambda it: it[:-9], "tensorflow-datasets cannot open tfds:colours: "),
    ],
)
def test_damage_is_told(prepared, tmp_path, monkeypatch, name, damage, expected):
    shutil.copytree(prepared, tmp_path / "damaged")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "damaged"))
    (file,) = (tmp_path / "damaged").rglob(name)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UsageError, match=expected):
        unpack_data(Path("tfds:colours:train"), tmp_path / "cache")
    assert not list(tmp_path.glob("cache/**/*.png"))


def test_a_model_is_fine_tuned_and_measured_on_it_with_the_classes_in_its_order(tiny_build, tmp_path, capfd):
    shutil.copytree(tiny_build / EXTRACTOR, tmp_path / "build" / EXTRACTOR)
    words = ("--data", "tfds:colours", "--out", tmp_path / "build", "--cache", tmp_path / "cache")
    status, _, err = run(capfd, "finetune", EXTRACTOR, *words, "--name", "colours", "--steps", 60)
    assert status == 0, err
    assert (tmp_path / "build" / "finetune" / "colours" / "labels.txt").read_text() == "red\ngreen\nblue\n"
    status, out, err = run(capfd, "accuracy", "colours", *words, "--json")
    assert status == 0, err
    assert '"right": 12' in out
