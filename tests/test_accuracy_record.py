"""The record of a measured accuracy: bound to its manifest, and part of verification, cards and publications."""

import hashlib
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from command import run
from PIL import Image
from publishable import HANDLE, change, write_card, write_model

from convert.pipeline.accuracy_record import Recordable
from export.package.archive import package_model
from export.publish.policy import PublishPolicy
from export.publish.publish import publish
from export.publish.store import Mirror
from models.catalog import ALL_HANDLES, TESTING_HANDLES
from models.digests import Digest, DigestTable
from models.errors import MixerError
from models.records.accuracy import AccuracyRecord, Measurement
from models.records.layout import ModelPaths

CLASSIFIER, _ = TESTING_HANDLES
RULES = PublishPolicy(DigestTable((Digest(ALL_HANDLES[HANDLE].checkpoint.object, "original", 12, "", "", "a" * 64),)))
FIELDS = {
    "data": "ImageNet's validation pictures",
    "data_sha256": "1" * 64,
    "protocol": "paper",
    "command": f"mixer-jax2tf accuracy {HANDLE} --data val --protocol paper",
    "pictures": 50_000,
    "not_decoded": 0,
    "top1": 38_220,
    "top5": 46_000,
    "subset_top1": None,
    "subset_top5": None,
    "remarks": (),
    "libraries": {"tensorflow": "2.21.0"},
}


def write_record(destination, **fields):
    sha256 = hashlib.sha256(destination.manifest.read_bytes()).hexdigest()
    measurement = Measurement(**{**FIELDS, **fields})
    record = AccuracyRecord(
        handle=destination.handle,
        version=destination.version,
        manifest_sha256=sha256,
        measurements=(measurement,),
    )
    destination.accuracy.write_bytes(record.to_bytes())


@pytest.fixture
def destination(tmp_path):
    """A packed model with a card, without a measured accuracy."""
    destination = write_model(tmp_path / "build")
    package_model(destination)
    write_card(destination)
    return destination


def test_the_card_shows_what_was_measured(destination):
    assert "Not measured by this project." in destination.card.read_text()
    write_record(destination, subset_top1=39_000, subset_top5=47_000, remarks=("10 pictures are missing",))
    write_card(destination)
    card = destination.card.read_text()
    assert "Not measured by this project." not in card
    assert "76.44 % | 92.00 %" in card
    assert "78.00 % | 94.00 %" in card
    assert "10 pictures are missing" in card
    assert f"`mixer-jax2tf accuracy {HANDLE} --data val --protocol paper`" in card


def test_a_model_is_published_with_its_accuracy_and_only_with_a_card_that_shows_it(destination, tmp_path):
    mirror = Mirror(tmp_path / "mirror")
    write_record(destination)
    with pytest.raises(MixerError, match=r"2\.md"):
        publish(destination, mirror, RULES)
    write_card(destination)
    package_model(destination, overwrite=True)
    assert publish(destination, mirror, RULES).verdict == "published"
    published = mirror.root / HANDLE / "2.accuracy.json"
    assert published.read_bytes() == destination.accuracy.read_bytes()


def test_verify_reads_it(destination, capfd):
    write_record(destination)
    status, out, err = run(capfd, "verify", destination.archive)
    assert status == 0, err
    assert "2.accuracy.json is of this manifest: measured on 50,000 pictures" in " ".join((out + err).split())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"manifest_sha256": "0" * 64}, "2.manifest.json"),
        ({"handle": "mixer_b16_sam_fe"}, "says handle 'mixer_b16_sam_fe'"),
        ({"version": 3}, "says version 3"),
        ({"measurements": []}, "2.accuracy.json is not a readable accuracy record"),
        ({"measurements": [{**FIELDS, "top1": 46_001}]}, "expected top1 <= top5 <= pictures"),
        ({"measurements": [{**FIELDS, "top5": 50_001}]}, "expected top1 <= top5 <= pictures"),
        ({"measurements": [{**FIELDS, "subset_top1": 1}]}, "or neither"),
        ({"measurements": [{**FIELDS, "data_sha256": "x"}]}, "data_sha256"),
    ],
)
def test_a_record_that_is_not_of_the_model_or_impossible_is_a_difference(
    destination, tmp_path, capfd, changes, expected
):
    write_record(destination)
    change(destination.accuracy, **changes)
    status, out, err = run(capfd, "verify", destination.archive)
    assert status == 3
    assert expected in " ".join((out + err).split())
    with pytest.raises(MixerError, match=r"accuracy"):
        publish(destination, Mirror(tmp_path / "mirror"), RULES)


def test_a_measurement_replaces_one_of_the_same_pictures_and_protocol():
    record = AccuracyRecord(handle=HANDLE, version=2, manifest_sha256="0" * 64, measurements=(Measurement(**FIELDS),))
    again = Measurement(**{**FIELDS, "top1": 1})
    other = Measurement(**{**FIELDS, "protocol": "hub"})
    assert record.adding(again).measurements == (again,)
    assert record.adding(other).measurements == (*record.measurements, other)


def test_the_command_records_each_saved_model(tiny_build, tmp_path, capfd):
    build = shutil.copytree(tiny_build, tmp_path / "build")
    rng = np.random.default_rng(1)
    for label in (5, 6):
        (tmp_path / "data" / str(label)).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / "data" / str(label) / "a.png")
    command = ("accuracy", CLASSIFIER, "--data", tmp_path / "data", "--out", build, "--record")
    status, _, err = run(capfd, *command, "--backend", "native", "--backend", "graph")
    assert status == 0, err
    for name in (CLASSIFIER, f"{CLASSIFIER}-graph"):
        record = AccuracyRecord.read(ModelPaths.of(build, name, 2).accuracy)
        (one,) = record.measurements
        assert (record.handle, one.pictures, one.subset_top5) == (name, 2, 2)
        assert one.command == f"mixer-jax2tf accuracy {name} --data data --protocol paper"
    assert run(capfd, *command, "--protocol", "hub")[0] == 0
    assert len(AccuracyRecord.read(ModelPaths.of(build, CLASSIFIER, 2).accuracy).measurements) == 2
    status, out, err = run(capfd, "verify", build / CLASSIFIER / "2")
    assert status == 0
    assert "measured on 2 pictures, 2 pictures" in " ".join((out + err).split())
    ModelPaths.of(build, CLASSIFIER, 2).accuracy.write_text("{}")
    status, _, err = run(capfd, *command)
    assert (status, "2.accuracy.json is not a readable accuracy record" in err) == (1, True)
    assert "classifying" not in err


def test_the_accuracy_of_a_changed_model_is_not_recorded(tiny_build, tmp_path, capfd):
    build = shutil.copytree(tiny_build, tmp_path / "build")
    destination = ModelPaths.of(build, CLASSIFIER, 2)
    (destination.directory / "assets.extra" / "more.txt").write_text("not in the manifest")
    (tmp_path / "data" / "0").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "data" / "0" / "a.png")
    command = ("accuracy", CLASSIFIER, "--data", tmp_path / "data", "--out", build, "--record")
    status, _, err = run(capfd, *command)
    assert status == 1
    assert "is not recorded, as it is not the model of its manifest" in err
    assert not destination.accuracy.exists()


def test_the_accuracy_of_a_model_that_was_replaced_meanwhile_is_not_recorded(tiny_build, tmp_path):
    shutil.copytree(tiny_build / CLASSIFIER, tmp_path / CLASSIFIER)
    paths = ModelPaths.of(tmp_path, CLASSIFIER, 2)
    result = SimpleNamespace(contradictions=(), measured=[SimpleNamespace(paths=paths)])
    with pytest.raises(MixerError, match="was replaced while it was measured: nothing is recorded"):
        Recordable({paths.directory: "0" * 64}).record(result, "paper")
    assert not paths.accuracy.exists()


def test_a_new_model_does_not_keep_the_accuracy_of_the_old(tiny_build, tiny_source, tmp_path, capfd):
    build = shutil.copytree(tiny_build, tmp_path / "build")
    destination = ModelPaths.of(build, CLASSIFIER, 2)
    write_record(destination)
    status, _, err = run(capfd, "convert", CLASSIFIER, "--source", tiny_source, "--out", build, "--overwrite")
    assert status == 0, err
    assert not destination.accuracy.exists()
