"""The reader of photographs and of label maps: modes, ranges, orientations, and what is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from deeplab_tf import pictures
from deeplab_tf.errors import UserError
from deeplab_tf.pictures import read_labels, read_photograph
from tests.pictures import DECODABLE, OTHERS, encoded, many_scans, photograph

DEEP = np.random.default_rng(0).integers(0, 1 << 16, (20, 30)).astype(np.uint16)


def grey(values) -> np.ndarray:
    return np.repeat(np.asarray(values, np.uint8)[..., np.newaxis], 3, axis=-1)


def test_of_16_bits_the_higher_8_are_taken_as_tensorflow_does():
    file = encoded(Image.fromarray(DEEP), "PNG")
    np.testing.assert_array_equal(tf.io.decode_image(file, channels=3), grey(DEEP >> 8))
    np.testing.assert_array_equal(read_photograph(file), grey(DEEP >> 8))
    np.testing.assert_array_equal(read_photograph(encoded(Image.fromarray(DEEP), "TIFF")), grey(DEEP >> 8))
    integers = encoded(Image.fromarray(DEEP.astype(np.int32)), "TIFF")
    np.testing.assert_array_equal(read_photograph(integers), grey(DEEP >> 8))


def test_floats_from_0_to_1_become_0_to_255():
    values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    expected = grey(np.arange(256).reshape(16, 16))
    np.testing.assert_array_equal(read_photograph(encoded(Image.fromarray(values), "TIFF")), expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.float32([[0, 1.5]]), "x.tif: found floats from 0 to 1.5, expected 0 to 1"),
        (np.float32([[-0.1, 1]]), "x.tif: found floats from -0.1 to 1"),
        (np.float32([[0, np.nan]]), "x.tif: found floats from nan to nan"),
        (np.float32([[0, np.inf]]), "x.tif: found floats from 0 to inf"),
        (np.int32([[0, 65536]]), "x.tif: found integers from 0 to 65536, expected 0 to 65535"),
        (np.int32([[-1, 5]]), "x.tif: found integers from -1 to 5"),
    ],
)
def test_values_outside_their_range_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        read_photograph(encoded(Image.fromarray(values), "TIFF"), "x.tif")


@pytest.mark.parametrize("kind", [kind for kind in (DECODABLE | OTHERS) if "16" not in kind and "32" not in kind])
def test_other_modes_are_those_of_pillow(kind):
    file = (DECODABLE | OTHERS)[kind]
    if kind in ("gif transparent", "tiff float"):
        pytest.skip("TensorFlow's rule, or Pillow's clipping")
    np.testing.assert_array_equal(read_photograph(file), np.asarray(pictures.open_image(file).convert("RGB")))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_photographs_are_turned_upright(kind, orientation):
    options = {"lossless": True} if kind == "WEBP" else {}
    file = encoded(photograph(), kind, orientation, **options)
    turned = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    stored = pictures.open_image(file) if kind == "JPEG" else photograph()
    expected = stored.transpose(turned[orientation]) if orientation in turned else stored
    np.testing.assert_array_equal(read_photograph(file), np.asarray(expected))


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_16_bit_photographs_are_turned_too(orientation):
    file = encoded(Image.fromarray(DEEP), "TIFF", orientation)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    np.testing.assert_array_equal(read_photograph(file)[..., 0], np.asarray(upright) >> 8)


def test_what_cannot_be_read_is_one_line(tmp_path):
    for content, reason in [
        (b"no image", "not an image, or of an unknown format"),
        (DECODABLE["jpeg"][:-300], "truncated"),
        (b"", "not an image"),
    ]:
        path = tmp_path / "x.jpg"
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"x.jpg: cannot be read as an image \(.*{reason}") as raised:
            read_photograph(path)
        assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match="nowhere.png: cannot be read as an image .No such file"):
        read_photograph(tmp_path / "nowhere.png")


def test_a_jpeg_of_thousands_of_scans_is_refused():
    """One of a megabyte and 16 megapixels took minutes."""
    with pytest.raises(UserError, match="x.jpg: found a JPEG of 1006 scans, expected at most 100"):
        read_photograph(many_scans(1000), "x.jpg")
    assert read_photograph(many_scans(90)).shape == (40, 57, 3)


def test_label_maps_of_every_kind():
    labels = np.random.default_rng(0).integers(0, 200, (9, 11)).astype(np.uint8)
    palette = Image.fromarray(labels)
    palette.putpalette(list(range(255, -1, -1)) * 3)
    others = [Image.fromarray(values) for values in (labels, labels.astype(np.uint16), grey(labels))]
    for image in (palette, *others):
        np.testing.assert_array_equal(read_labels(encoded(image, "PNG"))[0], labels)
    assert read_labels(encoded(palette, "PNG"))[1][:3] == [255, 254, 253]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (encoded(photograph(), "PNG"), r"m.png: a colour mask \(RGB\); expected class indices"),
        (encoded(photograph().convert("L"), "JPEG"), "m.png: the mask is compressed as JPEG, which changes labels"),
        (encoded(photograph().convert("L"), "TIFF", compression="jpeg"), "m.png: the mask is compressed as JPEG"),
        (encoded(Image.fromarray(DEEP), "PNG"), "m.png: the mask holds the value 65"),
    ],
)
def test_what_is_no_label_map_is_refused(file, message):
    with pytest.raises(UserError, match=message):
        read_labels(file, "m.png")


def test_an_overlay_colours_classes_alone():
    image = np.full((2, 2, 3), 100, np.uint8)
    drawn = pictures.overlay(image, np.array([[0, 1], [255, 2]], np.uint8), np.array([[0, 0, 0], [200, 100, 0]]))
    np.testing.assert_allclose(drawn, [[[40, 40, 40], [160, 100, 40]], [[100, 100, 100], [100, 100, 100]]], atol=1)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_damaged_exif_data_count_as_none(kind):
    """Pillow's own reader of them raises a SyntaxError."""
    damaged = b"Exif\0\0MM\x00\xf8\x00\x00\x00\x08" + bytes(20)
    options = {"lossless": True} if kind == "WEBP" else {}
    file = encoded(photograph(), kind, exif=damaged, **options)
    np.testing.assert_array_equal(read_photograph(file), read_photograph(encoded(photograph(), kind, **options)))


def test_only_exif_data_turn_a_photograph():
    """Pillow takes a turn from XMP data too; the served graph does not."""
    chunk = b'XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta tiff:Orientation="6"/>'
    file = encoded(photograph(), "PNG")
    text = struct.pack(">I", len(chunk)) + b"iTXt" + chunk + struct.pack(">I", zlib.crc32(b"iTXt" + chunk))
    turned = file[:33] + text + file[33:]
    assert Image.open(io.BytesIO(turned)).getexif()[274] == 6
    np.testing.assert_array_equal(read_photograph(turned), read_photograph(file))
