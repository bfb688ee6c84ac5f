"""Pictures as people have them: decoded, turned upright, and preprocessed as the models expect.

JPEG, PNG and GIF files are decoded by TensorFlow, as in the signature `serving_bytes`; all other formats by Pillow.
"""

import io
import re
import warnings

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from models.errors import shown
from models.picture_files import PictureError
from models.preprocessing import Evaluation, Protocol
from models.resize import crop_as_evaluated, scale

Pixels = NDArray[np.uint8]
"""RGB, `[height, width, 3]`."""

MOST_PIXELS = 1 << 27
"""Most pixels of a picture, as decoded and as resized; in float32 they take 1.6 GB."""

_DECODED_BY_TENSORFLOW = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8")  # the first bytes of JPEG, PNG and GIF
_OF_TENSORFLOW = re.compile(r"\{\{function_node [^}]*\}\}|\[Op:\w*\].*")
"""What TensorFlow puts before and after the reason of an error."""

_ORIENTATION = 0x0112  # the EXIF tag


def decode(content: bytes, *, exif: bool = True) -> Pixels:
    """Decode a picture to RGB.

    Gray becomes three equal channels, alpha is dropped, 16 bits are cut to 8; an animation gives its first frame.

    Args:
        content: the bytes of the file.
        exif: turn the picture upright, as the orientation in its EXIF data says.

    Raises:
        PictureError: the file is not a picture, is damaged, or has more than `MOST_PIXELS`.
    """
    if not content:
        raise PictureError("the file is empty, expected a picture")
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # Pillow warns of large pictures and damaged EXIF data
            Image.open(io.BytesIO(content)) as image,
        ):
            _refuse_large(image.height, image.width, "it has")
            orientation = _take_orientation(image)
            by_tensorflow = content.startswith(_DECODED_BY_TENSORFLOW)
            pixels = _decode_with_tensorflow(content) if by_tensorflow else _to_rgb(image)
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError("not a picture: neither TensorFlow nor Pillow knows its format") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"it has more than {MOST_PIXELS:,} pixels, the most that are accepted") from error
    except Exception as error:  # both raise many types for what is damaged
        reason = shown(_OF_TENSORFLOW.sub("", str(error).strip().split("\n")[0]).strip(), 200)
        raise PictureError(f"damaged, or of a kind that is not supported ({reason})") from error
    return _turn(pixels, orientation) if exif else pixels


def preprocess(pixels: Pixels, protocol: Protocol, image_size: int) -> NDArray[np.float32]:
    """Return a decoded picture as a model's input `[image_size, image_size, 3]`, in [-1, 1].

    Raises:
        PictureError: the protocol would resize it to more than `MOST_PIXELS`, because it is long and thin.
    """
    if protocol == "hub":
        resized = tf.image.resize(pixels, (image_size, image_size), method="bilinear", antialias=False)
    else:
        height, width = pixels.shape[:2]
        ratio = Evaluation(image_size).smaller_side / min(height, width)
        _refuse_large(round(height * ratio), round(width * ratio), f"{width:,} x {height:,} would be resized to")
        resized = crop_as_evaluated(tf.constant(pixels), image_size)
    images: NDArray[np.float32] = scale(resized).numpy()
    return images


def _decode_with_tensorflow(content: bytes) -> Pixels:
    pixels: Pixels = tf.io.decode_image(content, channels=3, expand_animations=False).numpy()
    return pixels


def _refuse_large(height: int, width: int, what: str) -> None:
    if height * width > MOST_PIXELS:
        raise PictureError(f"{what} {width:,} x {height:,} pixels; at most {MOST_PIXELS:,} are accepted")


def _take_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, and remove it: Pillow turns some formats by itself while decoding."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
        if _ORIENTATION in image.getexif():
            del image.getexif()[_ORIENTATION]
    except Exception:  # EXIF data are often damaged, which changes nothing about the pixels
        return 1
    return orientation if orientation in range(1, 9) else 1


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith("I;16"):  # Pillow would cut all values above 255 to 255
        gray = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(gray[..., np.newaxis], 3, axis=-1)
    if image.mode in ("I", "F"):
        raise PictureError(f"its pixels are 32-bit numbers (mode {image.mode}): expected 8 or 16 bits")
    if "A" in image.getbands():  # as TensorFlow does: alpha is dropped, not blended
        return np.asarray(image.convert("RGBA"))[..., :3].copy()
    return np.asarray(image.convert("RGB"))


def _turn(pixels: Pixels, orientation: int) -> Pixels:
    """Turn and mirror a picture stored in an EXIF orientation (EXIF 2.32, section 4.6.4 A) so that it is upright."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
