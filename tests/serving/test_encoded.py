"""Image files of all kinds, and what is none, in the graph that TF Serving runs; Pillow says what is right."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab_tf import DeepLab, Segmenter
from deeplab_tf.pictures import read_photograph
from deeplab_tf.serving import ServedSegmenter, export
from deeplab_tf.serving.encoded import decode_upright
from tests.pictures import many_scans

MAX_PIXELS = 4000
decode = tf.function(
    lambda encoded: decode_upright(encoded, MAX_PIXELS), input_signature=[tf.TensorSpec([], tf.string)]
)


def picture(height: int = 40, width: int = 57) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    channels = [255 * y // height, 255 * x // width, 255 * (x + y) // (height + width)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def rgb(file: bytes) -> np.ndarray:
    return read_photograph(file)


@pytest.mark.parametrize(
    "file",
    [
        encoded(picture(), "PNG"),
        encoded(picture().convert("L"), "PNG"),
        encoded(picture().convert("P"), "PNG"),
        encoded(picture().convert("RGBA").rotate(20), "PNG"),
        encoded(picture().convert("1"), "PNG"),
        encoded(picture(), "BMP"),
        encoded(picture().convert("P"), "GIF", save_all=True, append_images=[picture().rotate(180).convert("P")]),
        encoded(picture(), "WEBP", lossless=True),
        encoded(picture().convert("RGBA"), "WEBP", lossless=True),
    ],
    ids=["png", "grey", "palette", "rgba", "1 bit", "bmp", "animated gif", "webp", "webp rgba"],
)
def test_lossless_files_are_decoded_as_by_pillow(file):
    np.testing.assert_array_equal(decode(file), rgb(file))


@pytest.mark.parametrize(
    "file",
    [
        encoded(picture(), "JPEG", quality=95, subsampling=0),
        encoded(picture().convert("L"), "JPEG", quality=95),
        encoded(picture().convert("CMYK"), "JPEG", quality=95),
        encoded(picture(), "JPEG", quality=95, progressive=True),
        encoded(picture(), "WEBP", quality=95),
    ],
    ids=["jpeg", "grey", "cmyk", "progressive", "webp"],
)
def test_lossy_files_are_decoded_as_by_pillow(file):
    np.testing.assert_array_equal(decode(file), rgb(file))


def test_16_bits_lose_their_lower_half():
    values = np.random.default_rng(0).integers(0, 1 << 16, (20, 30)).astype(np.uint16)
    expected = np.repeat((values >> 8).astype(np.uint8)[..., np.newaxis], 3, axis=-1)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(values), "PNG")), expected)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("big_endian", [False, True])
def test_jpegs_are_turned_upright(orientation, big_endian):
    order = ">" if big_endian else "<"
    entries = [(0x010F, 2, 3, b"abc\0"), (0x0112, 3, 1, struct.pack(order + "HH", orientation, 0))]
    directory = b"".join(struct.pack(order + "HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    tiff = (b"MM" if big_endian else b"II") + struct.pack(order + "HIH", 42, 8, len(entries)) + directory + b"\0" * 4
    file = encoded(picture(), "JPEG", quality=95, subsampling=0, comment=b"before it", exif=b"Exif\0\0" + tiff)
    expected = rgb(file)
    assert (expected.shape[0] == 57) == (5 <= orientation <= 8)
    np.testing.assert_array_equal(decode(file), expected)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("WEBP", {"quality": 80})])
def test_other_files_are_turned_upright_too(kind, options, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(picture(), kind, exif=exif, **options)
    np.testing.assert_array_equal(decode(file), rgb(file))


def test_few_segments_are_searched_for_exif():
    """A JPEG of 65,000 empty segments took 4.8 seconds; one with EXIF data behind a few is turned."""
    file = encoded(picture(), "JPEG")
    np.testing.assert_array_equal(decode(file[:2] + b"\xff\xfe\0\2" * 65000 + file[2:]), rgb(file))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = encoded(picture(), "JPEG", exif=exif)
    file = file[:2] + b"\xff\xfe\0\2" * 30 + file[2:]
    np.testing.assert_array_equal(decode(file), rgb(file))


def test_a_jpeg_of_thousands_of_scans_is_refused():
    """One of a megabyte and 16 megapixels took minutes."""
    with pytest.raises(tf.errors.InvalidArgumentError, match="(?s)at most 100 scans.*1006"):
        decode(many_scans(1000))
    np.testing.assert_array_equal(decode(many_scans(90)), rgb(many_scans(90)))


def test_an_animated_webp_is_its_first_frame():
    """TensorFlow alone writes beyond its memory and ends the server."""
    exif = exif_of(6)
    frames = {"save_all": True, "append_images": [picture().rotate(180)], "lossless": True, "exif": exif}
    np.testing.assert_array_equal(
        decode(encoded(picture(), "WEBP", **frames)), rgb(encoded(picture(), "WEBP", **frames))
    )


def gif_frame(height: int, width: int, before: bytes = b"") -> bytes:
    """A GIF whose header says 40 x 57, with a first frame of another size."""
    file = encoded(picture().convert("P"), "GIF")
    at = 13 + 3 * (2 << (file[10] & 7))
    frame = file.index(b",", at)
    return file[:at] + before + file[at : frame + 5] + struct.pack("<HH", width, height) + file[frame + 9 :]


@pytest.mark.parametrize(
    "file",
    [gif_frame(64, 63), gif_frame(65535, 65535), gif_frame(40, 57, b"!\xfe" + b"\1x" * 5000 + b"\0")],
    ids=["large", "huge", "hidden"],
)
def test_a_gif_is_as_large_as_its_first_frame(file):
    with pytest.raises(tf.errors.InvalidArgumentError, match="(?s)at most 4000 pixels"):
        decode(file)
    plain = gif_frame(40, 57, b"!\xfe\5hello\0")
    np.testing.assert_array_equal(decode(plain), rgb(plain))


def test_damaged_exif_counts_as_none():
    file = encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    assert decode(file).shape == (40, 57, 3)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"", "expected the bytes of a JPEG, PNG"),
        (b"\xff\xd8", "expected the bytes of a JPEG, PNG"),
        (b"%PDF-1.7 and so on, more than thirty-two bytes of it", "expected the bytes of a JPEG, PNG"),
        (encoded(picture(), "TIFF"), "expected the bytes of a JPEG, PNG"),
        (encoded(picture(), "PNG")[:200], "PNG"),
        (encoded(picture(), "JPEG")[:100], "JPEG"),
        (b"\xff\xd8\xff no photograph", "JPEG"),
        *((encoded(picture(64, 63), kind), "at most 4000 pixels.*64.*63") for kind in ("PNG", "JPEG", "BMP", "GIF")),
        (encoded(picture(64, 63), "WEBP"), "at most 4000 pixels.*64.*63"),
        (encoded(picture(64, 63), "WEBP", lossless=True), "at most 4000 pixels.*64.*63"),
        (encoded(picture(64, 63).convert("RGBA").rotate(9), "WEBP"), "at most 4000 pixels.*64.*63"),
        (encoded(picture().convert("P"), "BMP")[:14] + b"\xe2\xe2" + encoded(picture().convert("P"), "BMP")[16:], ""),
        # Four terabytes, were they decoded.
        (encoded(picture(), "PNG")[:16] + struct.pack(">II", 1 << 20, 1 << 20), "at most 4000 pixels.*1048576"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else None,
)
def test_what_cannot_be_is_refused_by_an_error_that_says_so(file, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"(?s){message}"):
        decode(file)
    assert decode(encoded(picture(), "PNG")).shape == (40, 57, 3)  # and it goes on


@pytest.mark.slow
def test_the_served_model_refuses_and_goes_on():
    segmenter = Segmenter(DeepLab("resnet_tiny", "linear", num_classes=3, scales=(1.0,)))
    module = ServedSegmenter(segmenter, ["labels"], max_pixels=MAX_PIXELS)
    good = encoded(picture(), "JPEG", exif=Image.Exif())
    for bad in (b"no image", encoded(picture(64, 63), "PNG")):
        with pytest.raises(tf.errors.InvalidArgumentError, match="expected"):
            module.serve_bytes(tf.constant([good, bad]))
    for shape in ((1, 64, 63, 3), (1, 0, 5, 3)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="at least one and at most 4000 pixels"):
            module.serve_images(tf.zeros(shape, tf.uint8))
    thin = [encoded(picture(*size), "PNG") for size in ((1, 4000), (4000, 1))]
    thin = [file[:60] for file in thin]  # and before any is decoded
    with pytest.raises(tf.errors.InvalidArgumentError, match="take at most 4 times their own pixels"):
        module.serve_bytes(tf.constant(thin))
    turned = encoded(picture(1, 4000), "PNG", exif=exif_of(6))
    tall = encoded(picture(4000, 1), "PNG")
    assert module.serve_bytes(tf.constant([turned, tall]))["labels"].shape == (2, 4000, 1)
    image = decode(good).numpy()
    np.testing.assert_array_equal(module.serve_bytes(tf.constant([good]))["labels"][0], segmenter(image).labels)
    assert module.serve_bytes(tf.constant([], tf.string))["labels"].shape[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("outputs", "bytes_of_pixel"),
    [(["labels"], 1), (["labels", "confidence"], 5), (None, 13)],
)
def test_an_answer_that_cannot_be_sent_is_refused_before_any_work(outputs, bytes_of_pixel, monkeypatch):
    """A hundred PNGs of 46 KB and 16 megapixels would be 130 GB of probabilities."""
    monkeypatch.setattr(export, "_LARGEST_ANSWER", 3 * bytes_of_pixel * 40 * 57)
    segmenter = Segmenter(DeepLab("resnet_tiny", "linear", num_classes=3, scales=(1.0,)))
    module = ServedSegmenter(segmenter, *([outputs] if outputs else []), max_pixels=MAX_PIXELS)
    good = encoded(picture(), "PNG")
    assert module.serve_bytes(tf.constant([good] * 3))["labels"].shape == (3, 40, 57)
    with pytest.raises(tf.errors.InvalidArgumentError, match="(?s)whose answer has at most .* send fewer at a time"):
        module.serve_bytes(tf.constant([good[:60]] * 4))
    assert module.serve_images(tf.zeros((3, 40, 57, 3), tf.uint8))["labels"].shape == (3, 40, 57)
    with pytest.raises(tf.errors.InvalidArgumentError, match="(?s)whose answer has at most"):
        module.serve_images(tf.zeros((4, 40, 57, 3), tf.uint8))
    assert len(module.serve_png(tf.constant([good] * 4))["error"]) == 4  # small files, one after the other
