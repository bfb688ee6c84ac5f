"""The table of signatures is what the SavedModels have."""

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from models.catalog import DEFAULT_VERSION, HANDLES, TESTING_HANDLES
from models.signatures import OUTPUT, SERVING_DEFAULT, SIGNATURES, TOKEN_FEATURES, Signature
from validation.parity.images import _read_photograph

MODULES = {
    module.name: module
    for handle in TESTING_HANDLES.values()
    for module in (handle.in_flavour("native"), handle.in_flavour("graph"))
}
each_module = pytest.mark.parametrize("name", MODULES)
SIZE = 32
TOLERANCE = 2e-5
"""Of the outputs' spread: the division by 127.5 may be rounded differently once it is part of a larger graph."""


@pytest.fixture(scope="module")
def models(tiny_build):
    """All four, for reading only."""
    return {name: tf.saved_model.load(str(tiny_build / name / str(DEFAULT_VERSION))) for name in MODULES}


def pixels(batch):
    return np.random.default_rng(11).integers(0, 256, (batch, SIZE, SIZE, 3), np.uint8)


def serve(model, name, given):
    return model.signatures[name](**{SIGNATURES[name].input_name: tf.constant(given)})[OUTPUT].numpy()


def close(found, expected):
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * expected.std())


@each_module
def test_a_model_has_the_signatures_of_the_table_and_no_other(models, name):
    found = {
        key: (signature.structured_input_signature[1], signature.structured_outputs)
        for key, signature in models[name].signatures.items()
    }
    expected = {
        signature.name: (
            {signature.input_name: tf.TensorSpec(signature.input_shape(SIZE), signature.dtype, signature.input_name)},
            {OUTPUT: tf.TensorSpec(signature.output_shape(MODULES[name]), tf.float32, OUTPUT)},
        )
        for signature in Signature.all_of(MODULES[name])
    }
    assert found == expected


def test_only_feature_extractors_give_token_features():
    with_tokens = [
        name for name, handle in HANDLES.items() if TOKEN_FEATURES in [one.name for one in Signature.all_of(handle)]
    ]
    assert with_tokens == [name for name in HANDLES if name.endswith("_fe")]


@each_module
def test_whole_numbers_give_what_their_scaled_values_give(models, name):
    given = pixels(3)
    expected = serve(models[name], SERVING_DEFAULT, (given.astype(np.float32) - 127.5) / 127.5)
    close(serve(models[name], "serving_uint8", given), expected)


@each_module
def test_of_an_animation_the_first_picture_is_taken(models, name):
    rng = np.random.default_rng(3)
    first, *others = (Image.fromarray(rng.integers(0, 256, (37, 37), np.uint8)) for _ in range(3))  # exact in a GIF
    encoded = {"gif": io.BytesIO(), "png": io.BytesIO()}
    first.save(encoded["gif"], "gif", save_all=True, append_images=others)
    first.convert("RGB").save(encoded["png"], "png")
    assert Image.open(encoded["gif"]).n_frames == 3
    animation, picture = (serve(models[name], "serving_bytes", [one.getvalue()]) for one in encoded.values())
    np.testing.assert_array_equal(animation, picture)


@each_module
def test_encoded_images_give_what_their_pixels_give(models, name):
    large = np.random.default_rng(2).integers(0, 256, (2, 37, 37, 3), np.uint8)  # the size that is only cropped
    encoded = [tf.io.encode_png(one).numpy() for one in large]
    close(serve(models[name], "serving_bytes", encoded), serve(models[name], "serving_uint8", large[:, 2:34, 2:34]))


@each_module
def test_a_jpeg_of_a_photograph_is_served(models, name):
    encoded = tf.io.encode_jpeg(_read_photograph("chelsea.png")).numpy()
    served = serve(models[name], "serving_bytes", [encoded, encoded])
    assert np.isfinite(served).all()
    close(served[1:], served[:1])


@each_module
def test_a_broken_image_fails_its_call_and_says_why(models, name):
    with pytest.raises(tf.errors.InvalidArgumentError, match="Unknown image file format"):
        serve(models[name], "serving_bytes", [b"no image"])


@each_module
@pytest.mark.parametrize("signature", SIGNATURES)
def test_no_image_is_refused_by_every_signature(models, name, signature):
    if signature not in models[name].signatures:
        assert (signature, MODULES[name].head) == (TOKEN_FEATURES, "classification")
        return
    shape = SIGNATURES[signature].input_shape(SIZE)
    with pytest.raises(tf.errors.InvalidArgumentError, match="at least one"):
        serve(models[name], signature, tf.zeros((0, *shape[1:]), SIGNATURES[signature].dtype))


@pytest.mark.parametrize("name", [name for name, module in MODULES.items() if module.head == "fe"])
def test_the_mean_of_the_token_features_is_the_output(models, name):
    images = np.random.default_rng(5).uniform(-1, 1, (3, SIZE, SIZE, 3)).astype(np.float32)
    tokens = serve(models[name], TOKEN_FEATURES, images)
    assert tokens.shape == (3, 16, 32)
    close(tokens.mean(axis=1), serve(models[name], SERVING_DEFAULT, images))
    assert tokens.std(axis=1).min() > 0.01


def test_the_facts_of_a_signature_are_plain_values():
    (handle,) = [handle for handle in TESTING_HANDLES.values() if handle.head == "fe"]
    facts = SIGNATURES[TOKEN_FEATURES].facts(handle)
    assert facts["output"]["shape"] == (None, 16, 32)
    assert facts["input"]["dtype"] == "float32"


def row(signature):
    size = 224
    shape = ", ".join("batch" if length is None else str(length) for length in signature.input_shape(size))
    name = f"`{signature.name}`" + ("" if len(signature.heads) > 1 else f" (`{signature.heads[0]}` only)")
    handles = [handle for handle in HANDLES.values() if handle.head in signature.heads]
    meanings = {signature.meaning(handle) for handle in handles}
    gives = meanings.pop() if len(meanings) == 1 else "logits or features"
    takes = f"`{signature.input_name}`: {signature.dtype} `[{shape}]`"
    return f"| {name} | {takes} | {signature.preprocessing(size)} | {gives} |"


def test_the_page_has_this_table():
    text = (Path(__file__).parent.parent / "export" / "README.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- signatures -->\n")[2].partition("<!-- end signatures -->")[0].splitlines()
    assert shown[2:] == [row(signature) for signature in SIGNATURES.values()]
