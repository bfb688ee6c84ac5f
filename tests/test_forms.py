"""Checkpoints as other tools write them: each is named, and its repair, run as it is printed, gives the weights."""

import re
import subprocess
from dataclasses import replace

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import serialization
from flax.core import freeze
from flax.traverse_util import unflatten_dict

from convert.checkpoints.forms import describe_msgpack
from convert.checkpoints.npz import CheckpointError
from convert.checkpoints.open import CustomCheckpoint
from convert.checkpoints.reader import load_checkpoint
from models.catalog import TESTING_HANDLES, TINY
from models.errors import UsageError
from models.params import flatten

CHECKPOINT = next(iter(TESTING_HANDLES.values())).checkpoint


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """Weights that bfloat16 holds exactly."""
    random = np.random.default_rng(5)
    values = {name: random.standard_normal(shape).astype(ml_dtypes.bfloat16) for name, shape in TINY.arrays(10).items()}
    return {name: value.astype(np.float32) for name, value in values.items()}


def nested(arrays):
    return unflatten_dict(arrays, sep="/")


def msgpack(path, arrays):
    state = {"step": 7, "params": {name: jnp.asarray(value) for name, value in arrays.items()}}
    state["params"] = nested(state["params"])
    path.write_bytes(serialization.to_bytes(state))


def in_bfloat16(arrays):
    return {name: value.astype(ml_dtypes.bfloat16) for name, value in arrays.items()}


def dotted(arrays):
    return {name.replace("/", "."): value for name, value in arrays.items()}


def below(prefix, arrays):
    return {f"{prefix}{name}": value for name, value in arrays.items()}


FORMS = {
    "flax": (msgpack, "a checkpoint of flax (MessagePack", "params/"),
    "pickled": (lambda path, arrays: np.savez(path, nested(arrays)), "contains Python objects, as np.savez(file", ""),
    "by group": (lambda path, arrays: np.savez(path, **nested(arrays)), "contains Python objects", ""),
    "optimizer": (
        lambda path, arrays: np.savez(path, **below("opt/target/", arrays), **{"opt/state/step": np.zeros(1)}),
        "names of its arrays begin with 'opt/target/': give --strip-prefix opt/target/",
        "opt/target/",
    ),
    "dots": (lambda path, arrays: np.savez(path, **dotted(arrays)), "names have '.' where '/' is expected", ""),
    "bfloat16": (lambda path, arrays: np.savez(path, **in_bfloat16(arrays)), "stores bfloat16, which NumPy", ""),
    "float64": (
        lambda path, arrays: np.savez(path, **{name: value.astype(float) for name, value in arrays.items()}),
        "stores float64",
        "",
    ),
    "all of it": (
        lambda path, arrays: np.savez(path, **dotted(below("params/", in_bfloat16(arrays)))),
        "names have '.' where '/' is expected",
        "params/",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_named_and_its_repair_gives_the_weights(form, arrays, tmp_path):
    write, said, prefix = FORMS[form]
    path = tmp_path / ("checkpoint_7" if form == "flax" else "it's mine.npz")
    with path.open("wb") as file:
        write(path if form == "flax" else file, arrays)
    with pytest.raises(CheckpointError) as refused:
        load_checkpoint(path, TINY, num_classes=None)
    message = str(refused.value)
    assert said in message
    assert len(message.splitlines()) < 20
    command = re.search(r"^  (.*python.* -c .*)$", message, flags=re.MULTILINE)
    if command:
        subprocess.run(["sh", "-c", command[1]], check=True)
        path = next(tmp_path.glob("*.fixed.npz"))
    if prefix and command:
        with pytest.raises(CheckpointError, match=f"give --strip-prefix {prefix}"):
            load_checkpoint(path, TINY, num_classes=None)
    loaded = load_checkpoint(path, TINY, num_classes=None, strip_prefix=prefix)
    found = flatten(loaded.params)
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], value) for name, value in arrays.items())


def test_what_is_no_archive_is_told_without_reading_it(arrays, tmp_path):
    path = tmp_path / "checkpoint_7"
    msgpack(path, arrays)
    with pytest.raises(UsageError, match="MessagePack"):
        CustomCheckpoint(path, "mine").refuse_unreadable()
    assert describe_msgpack(path, b"\x80\x04\x95") is None  # a pickle


def test_another_image_size_is_named_with_what_it_means(arrays, tmp_path):
    larger = replace(TINY, image_size=48)
    np.savez(tmp_path / "x.npz", **{name: np.zeros(shape, np.float32) for name, shape in larger.arrays(10).items()})
    said = "mixes 36 tokens, so it is for images of 48 x 48 pixels; Ti/8 has 16 tokens, of 32 x 32 pixels"
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(tmp_path / "x.npz", TINY, num_classes=None)


def test_a_frozen_dict_is_told_to_be_lost(arrays, tmp_path):
    np.savez(tmp_path / "x.npz", freeze(nested(arrays)))
    with pytest.raises(CheckpointError, match=r"contains only names.*the weights are not in it") as refused:
        load_checkpoint(tmp_path / "x.npz", TINY, num_classes=None)
    assert len(str(refused.value).splitlines()) == 2


def test_a_prefix_that_is_not_there_is_told(arrays, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(CheckpointError, match="begin with '', not with 'params/': leave --strip-prefix out"):
        load_checkpoint(tmp_path / "x.npz", TINY, num_classes=None, strip_prefix="params/")


def test_a_file_without_head_is_one_of_features(arrays, tmp_path):
    headless = {name: value for name, value in arrays.items() if not name.startswith("head/")}
    np.savez(tmp_path / "x.npz", **headless)
    with pytest.raises(CheckpointError, match="has no head, which a classifier needs: give"):
        load_checkpoint(tmp_path / "x.npz", TINY, num_classes=None)
    params = load_checkpoint(tmp_path / "x.npz", TINY, num_classes=None, needs_head=False).for_head("fe")
    assert flatten(params).keys() == headless.keys()
    np.savez(tmp_path / "half.npz", **headless, **{"head/bias": arrays["head/bias"]})
    with pytest.raises(CheckpointError, match="head/kernel: expected"):
        load_checkpoint(tmp_path / "half.npz", TINY, num_classes=None, needs_head=False)
