"""Inputs of the parity checks."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from models.errors import MixerError
from validation.parity import images
from validation.parity.images import NOISE_SEED, PHOTOGRAPHS, Inputs, _preprocess, _read_photograph


@pytest.mark.parametrize("size", [32, 224])
def test_gate_inputs_are_named_images_within_their_range(size):
    inputs = Inputs.gate(size)
    assert inputs.names == ("noise", "blank", "chelsea.png", "coffee.png")
    assert inputs.images.shape == (4, size, size, 3)
    assert inputs.images.dtype == np.float32
    assert inputs.images.min() >= -1
    assert inputs.images.max() <= 1


def test_noise_fills_the_range_and_blank_is_zero():
    noise, blank = Inputs.gate(64).images[:2]
    assert noise.min() < -0.99
    assert noise.max() > 0.99
    assert abs(float(noise.mean())) < 0.02
    assert not blank.any()


def test_photographs_are_in_colour_and_differ():
    cat, cup = Inputs.gate(32).images[2:]
    for photograph in (cat, cup):
        assert photograph.std() > 0.2
        assert not np.array_equal(photograph[..., 0], photograph[..., 2])
    assert not np.array_equal(cat, cup)


def test_gate_inputs_are_the_same_each_time():
    assert Inputs.gate(32).sha256 == Inputs.gate(32).sha256
    assert np.array_equal(Inputs.gate(32).images, Inputs.gate(32).images)


@pytest.mark.parametrize("size", [32, 224])
def test_full_inputs_begin_with_those_of_the_gate(size):
    gate, full = Inputs.gate(size), Inputs.full(size)
    assert full.names[:4] == gate.names
    assert np.array_equal(full.images[:4], gate.images)
    assert full.names[4:] == (
        "binary noise",
        "black",
        "white",
        "checkerboard",
        "hot pixel",
        "astronaut.png",
        "rocket.jpg",
    )
    assert full.images.shape == (11, size, size, 3)
    assert full.images.dtype == np.float32
    assert (full.images.min(), full.images.max()) == (-1, 1)
    assert full.sha256 == Inputs.full(size).sha256 != gate.sha256
    assert len({image.tobytes() for image in full.images}) == 11


def test_full_inputs_are_what_their_names_say():
    size = 33
    full = Inputs.full(size)
    image = dict(zip(full.names, full.images, strict=True))
    assert set(np.unique(image["binary noise"])) == {-1, 1}
    assert abs(float(image["binary noise"].mean())) < 0.1
    assert (image["black"] == -1).all()
    assert (image["white"] == 1).all()
    board = image["checkerboard"]
    assert set(np.unique(board)) == {-1, 1}
    assert (board[1:] == -board[:-1]).all()
    assert (board[:, 1:] == -board[:, :-1]).all()
    assert (board[..., :1] == board).all()
    hot = np.argwhere(image["hot pixel"] != -1)
    assert {tuple(place) for place in hot[:, :2]} == {(11, 16)}
    assert (image["hot pixel"][11, 16] == 1).all()
    for name in PHOTOGRAPHS:
        assert np.array_equal(image[name], _preprocess(_read_photograph(name), size))


def test_inputs_are_joined_in_order():
    gate, more = Inputs.gate(32), Inputs(("x",), np.ones((1, 32, 32, 3), np.float32))
    both = gate + more
    assert both.names == (*gate.names, "x")
    assert np.array_equal(both.images, np.concatenate([gate.images, more.images]))
    assert both.images.dtype == np.float32


def test_the_noise_is_pinned():
    """Of NumPy's PCG64 stream, which is promised never to change; a report's digest of inputs rests on it."""
    noise = np.random.default_rng(NOISE_SEED).uniform(-1, 1, (32, 32, 3)).astype(np.float32)
    assert np.array_equal(Inputs.gate(32).images[0], noise)


def test_the_digest_sees_values_names_shape_and_order():
    inputs = Inputs(("a", "b"), np.zeros((2, 4, 4, 3), np.float32))
    changed = inputs.images.copy()
    changed[1, 3, 3, 2] = np.float32(1e-45)
    flat = Inputs(("a", "b"), inputs.images.reshape(2, 16, 1, 3))
    others = [replace(inputs, images=changed), replace(inputs, names=("a", "c")), flat]
    others.append(Inputs(("a", "b"), changed[::-1]))
    digests = {inputs.sha256, *(other.sha256 for other in others)}
    assert len(digests) == 1 + len(others)
    assert Inputs(("a", "b"), np.zeros((2, 4, 4, 3), np.float32)).sha256 == inputs.sha256


def test_the_digest_does_not_depend_on_the_layout_in_memory():
    values = np.random.default_rng(0).uniform(-1, 1, (2, 4, 4, 3)).astype(np.float32)
    names = ("a", "b")
    assert Inputs(names, np.asfortranarray(values)).sha256 == Inputs(names, values).sha256
    assert Inputs(names, values.astype(">f4")).sha256 == Inputs(names, values).sha256


SHA256 = {
    "astronaut.png": "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    "chelsea.png": "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    "coffee.png": "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    "rocket.jpg": "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
}
"""As in scikit-image's wheel."""


def test_photographs_are_those_of_scikit_image():
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in images._FOLDER.iterdir()}
    assert {name: digest for name, digest in found.items() if name != "README.md"} == SHA256
    assert SHA256.keys() == {*PHOTOGRAPHS}


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_come_as_rgb_bytes(name):
    pixels = _read_photograph(name)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert min(pixels.shape[:2]) >= 224


def test_a_missing_photograph_is_named():
    with pytest.raises(MixerError, match=r"photograph .*zebra\.png is missing: restore it"):
        _read_photograph("zebra.png")


def test_a_photograph_with_another_mode_becomes_rgb(tmp_path, monkeypatch):
    Image.new("RGBA", (3, 2), (10, 20, 30, 40)).save(tmp_path / "some.png")
    monkeypatch.setattr(images, "_FOLDER", tmp_path)
    assert _read_photograph("some.png").tolist() == [[[10, 20, 30]] * 3] * 2


@pytest.mark.parametrize("size", [32, 224, 500])
def test_preprocess_is_tensorflows_bilinear_resize_and_the_formula(size):
    pixels = np.random.default_rng(1).integers(0, 256, (123, 321, 3), np.uint8)
    resized = tf.image.resize(pixels, (size, size), method="bilinear", antialias=False).numpy()
    found = _preprocess(pixels, size)
    assert found.dtype == np.float32
    assert np.array_equal(found, (resized - 127.5) / 127.5)


def test_preprocess_does_not_antialias():
    pixels = np.random.default_rng(1).integers(0, 256, (100, 100, 3), np.uint8)
    smooth = tf.image.resize(pixels, (32, 32), antialias=True).numpy() / 127.5 - 1
    assert np.abs(_preprocess(pixels, 32) - smooth).max() > 0.1


def test_preprocess_of_an_image_of_the_right_size_only_scales():
    pixels = np.arange(256, dtype=np.uint8).repeat(12).reshape(32, 32, 3)
    expected = (pixels.astype(np.float64) - 127.5) / 127.5
    assert np.abs(_preprocess(pixels, 32) - expected).max() < 1e-7
    assert _preprocess(pixels, 32).min() == -1
    assert _preprocess(pixels, 32).max() == 1
