"""What models compute does not drift: eight golden numbers a handle, tiny by default, full size under `whole`."""

import json
from dataclasses import replace

import golden
import jax
import numpy as np
import pytest
import tensorflow as tf
from mutations import with_erf, with_larger_epsilon

from convert.checkpoints.synthetic import _seeded_arrays, write_seeded
from models.catalog import CHECKPOINTS, HANDLES
from models.mixer import MlpMixer
from models.params import nest
from models.records.tolerances import TOLERANCES
from validation.parity.reference import apply_both

GOLDEN = golden.read()
TINY = {handle.checkpoint.name: handle.checkpoint for handle in golden.TINY_HANDLES.values()}


def handles_of(checkpoint):
    return [one for one in (HANDLES | golden.TINY_HANDLES).values() if one.checkpoint == checkpoint]


def problems_in_jax(checkpoint):
    """Run both heads in JAX on the seeded weights, and return where they leave the golden outputs."""
    images = golden.inputs(checkpoint.architecture.image_size).images
    params = nest(dict(_seeded_arrays(checkpoint)))
    logits, features = apply_both(checkpoint, params, images)
    found = []
    for handle in handles_of(checkpoint):
        outputs = logits if handle.head == "classification" else features
        found += golden.problems(GOLDEN[handle.name], handle, outputs)
    return found


def test_the_file_belongs_to_this_catalog_these_images_and_the_recorded_checkpoints():
    assert golden.stale(GOLDEN) == []
    assert len(GOLDEN) == len(HANDLES) + len(golden.TINY_HANDLES)
    assert {sum(map(len, one.outputs.values())) for one in GOLDEN.values()} == {8}


def test_a_file_of_something_else_is_noticed():
    name, one = next(iter(GOLDEN.items()))
    for changes, said in (
        ({"checkpoint_sha256": "0" * 64}, "another checkpoint"),
        ({"inputs_sha256": "0" * 64}, "other images"),
        ({"outputs": {**one.outputs, "noise": {"0": 0.0}}}, "other outputs"),
    ):
        found = golden.stale({**GOLDEN, name: replace(one, **changes)})
        assert [said in problem for problem in found] == [True]
    rest = {handle: one for handle, one in GOLDEN.items() if handle != name}
    assert golden.stale(rest) == [f"golden handles differ from the catalog's: ['{name}']"]


@pytest.mark.parametrize("name", TINY)
def test_the_oracle_gives_them_again(name, tmp_path):
    made = golden.compute(TINY[name], write_seeded(TINY[name], tmp_path))
    for handle, one in made.items():
        assert replace(one, outputs={}, spread={}) == replace(GOLDEN[handle], outputs={}, spread={})
        for image, row in one.outputs.items():
            assert row == pytest.approx(GOLDEN[handle].outputs[image], rel=1e-8)
            assert one.spread[image] == pytest.approx(GOLDEN[handle].spread[image], rel=1e-8)


@pytest.mark.parametrize("name", TINY)
def test_tiny_models_in_jax(name):
    assert problems_in_jax(TINY[name]) == []


def test_tiny_models_as_saved(tiny_build):
    for name in ("mixer_ti8_seeded_classification", "mixer_ti8_seeded_fe"):
        handle = golden.TINY_HANDLES[name]
        images = tf.constant(golden.inputs(handle.checkpoint.architecture.image_size).images)
        for flavour in ("native", "graph"):
            model = tf.saved_model.load(str(tiny_build / handle.in_flavour(flavour).name / "2"))
            assert golden.problems(GOLDEN[name], handle, model(images).numpy()) == []


@pytest.mark.parametrize("made_wrong", [with_erf, with_larger_epsilon], ids=("erf", "epsilon"))
@pytest.mark.parametrize("name", golden.TINY_HANDLES)
def test_another_gelu_and_another_epsilon_are_noticed(name, made_wrong):
    handle = golden.TINY_HANDLES[name]
    params = nest({key: array for key, array in _seeded_arrays(handle.checkpoint) if key in handle.arrays})
    images = golden.inputs(handle.checkpoint.architecture.image_size).images
    with made_wrong():
        model = MlpMixer(handle.checkpoint.architecture, handle.num_classes)
        outputs = jax.jit(lambda params, images: model.apply({"params": params}, images))(params, images)
    assert len(golden.problems(GOLDEN[name], handle, np.asarray(outputs))) >= 1


@pytest.mark.parametrize("name", GOLDEN)
def test_each_of_the_numbers_counts(name):
    """A golden number moved by twice the tolerance, or an output that is not finite, is said; none else is."""
    handle, one = (HANDLES | golden.TINY_HANDLES)[name], GOLDEN[name]
    outputs = np.zeros((len(golden.IMAGES), handle.outputs))
    for row, image in zip(outputs, golden.IMAGES, strict=True):
        for at, value in one.outputs[image].items():
            row[int(at)] = value
    assert golden.problems(one, handle, outputs) == []
    for image, row in one.outputs.items():
        for at, value in row.items():
            moved = value + 2 * TOLERANCES["max_relative"].limit * one.spread[image]
            perturbed = replace(one, outputs={**one.outputs, image: {**row, at: moved}})
            (problem,) = golden.problems(perturbed, handle, outputs)
            assert problem.startswith(f"{name}, {image}, output {at}: ")
    outputs[0, golden.places(handle)[0]] = np.nan
    assert len(golden.problems(one, handle, outputs)) == 1


def test_writing_them_anew_gives_the_same_numbers_for_tiny_models_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(golden, "FILE", tmp_path / "golden.json")
    monkeypatch.setattr(golden, "HANDLES", {})
    golden.write(tmp_path)
    written = json.loads((tmp_path / "golden.json").read_text())
    assert written.keys() == golden.TINY_HANDLES.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["golden.json"]


# --- full size ---


@pytest.mark.whole
@pytest.mark.parametrize("name", CHECKPOINTS["mixer"])
def test_full_size_models_in_jax(name):
    assert problems_in_jax(CHECKPOINTS["mixer"][name]) == []
