"""Pictures of all kinds, decoded and preprocessed as in the signature that takes files."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from export.saved_model.preprocessing import decoded
from models.pictures import MOST_PIXELS, PictureError, decode, preprocess
from models.preprocessing import HALF_RANGE

SIZE = 32
ORIENTATION = 0x0112


def noise(height=40, width=60, channels=3):
    return np.random.default_rng(7).integers(0, 256, (height, width, channels), np.uint8)


def photograph(height=40, width=60):
    """Return a smooth picture, which JPEG keeps nearly as it is."""
    rows, columns = np.indices((height, width))
    return np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], -1).astype(np.uint8)


def encoded(image, kind, **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
@pytest.mark.parametrize(("height", "width"), [(40, 60), (1, 1), (32, 32), (500, 33), (20, 900)])
def test_pictures_are_preprocessed_as_by_the_signature_that_takes_files(kind, height, width):
    content = encoded(noise(height, width), kind)
    expected = decoded(tf.constant([content]), SIZE)[0].numpy()
    found = preprocess(decode(content), "paper", SIZE)
    np.testing.assert_array_equal(
        found, (expected.astype(np.float32) - np.float32(HALF_RANGE)) / np.float32(HALF_RANGE)
    )


def test_the_hub_protocol_is_that_of_the_collections_notebooks():
    pixels = noise(50, 70)
    resized = tf.image.resize(pixels.astype(np.float32), (SIZE, SIZE)).numpy()
    np.testing.assert_array_equal(preprocess(pixels, "hub", SIZE), (resized - 127.5) / 127.5)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_their_pixels(kind):
    np.testing.assert_array_equal(decode(encoded(noise(), kind)), noise())


def test_lossless_webp_gives_its_pixels():
    np.testing.assert_array_equal(decode(encoded(noise(), "WEBP", lossless=True)), noise())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_gray_becomes_three_equal_channels(kind):
    pixels = decode(encoded(Image.fromarray(noise()[..., 0]), kind))
    assert pixels.shape == (40, 60, 3)
    np.testing.assert_array_equal(pixels, np.repeat(pixels[..., :1], 3, -1))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_dropped_and_not_blended(kind):
    pixels = noise(channels=4)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(decode(encoded(pixels, kind, **options)), pixels[..., :3])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_of_16_bits_the_upper_8_are_taken(kind):
    pixels = np.random.default_rng(1).integers(0, 1 << 16, (9, 11), np.uint16)
    found = decode(encoded(Image.fromarray(pixels), kind))
    np.testing.assert_array_equal(found, np.repeat((pixels >> 8).astype(np.uint8)[..., None], 3, -1))


def test_a_jpeg_of_four_components_is_decoded_to_rgb():
    image = Image.fromarray(photograph())
    pixels = decode(encoded(image.convert("CMYK"), "JPEG", quality=100, subsampling=0))
    assert np.abs(pixels.astype(int) - photograph()).max() <= 8


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(kind):
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (40, 200)]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decode(content), np.full((8, 8, 3), 40, np.uint8))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright_and_on_request_is_not(kind, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    content = encoded(photograph(16, 24), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    as_stored = decode(content, exif=False)
    assert as_stored.shape == (16, 24, 3)
    turned = Image.fromarray(as_stored)
    turned.getexif()[ORIENTATION] = orientation
    np.testing.assert_array_equal(decode(content), np.asarray(ImageOps.exif_transpose(turned)))


def test_damaged_exif_changes_nothing():
    content = encoded(photograph(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff nonsense")
    assert decode(content).shape == (40, 60, 3)


def test_an_unknown_orientation_changes_nothing():
    exif = Image.Exif()
    exif[ORIENTATION] = 77
    content = encoded(photograph(), "JPEG", exif=exif)
    np.testing.assert_array_equal(decode(content), decode(content, exif=False))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"Not a picture.", "not a picture"),
        (encoded(noise(), "JPEG")[:300], "damaged"),
        (encoded(noise(), "PNG")[:300], "damaged"),
        (encoded(noise(), "TIFF")[:3000], "damaged|not a picture"),
        (encoded(noise(), "WEBP")[:300], "damaged|not a picture"),
        (encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "32-bit"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a picture"),
    ],
)
def test_what_is_not_a_sound_picture_is_refused(content, expected):
    with pytest.raises(PictureError, match=expected):
        decode(content)


def test_too_many_pixels_are_refused_before_they_are_decoded():
    header = encoded(Image.new("1", (20_000, MOST_PIXELS // 20_000 + 1)), "PNG")
    with pytest.raises(PictureError, match=r"has 20,000 x 6,711 pixels; at most 134,217,728"):
        decode(header)


def test_a_bomb_is_refused():
    with pytest.raises(PictureError, match="more than 134,217,728 pixels"):
        decode(encoded(Image.new("1", (20_000, 20_000)), "PNG"))


def test_a_long_and_thin_picture_is_refused_where_it_would_be_resized_to_too_many_pixels():
    with pytest.raises(PictureError, match="200,000 x 1 would be resized to 7,400,000 x 37"):
        preprocess(np.zeros((1, 200_000, 3), np.uint8), "paper", SIZE)
    assert preprocess(np.zeros((1, 200_000, 3), np.uint8), "hub", SIZE).shape == (SIZE, SIZE, 3)
