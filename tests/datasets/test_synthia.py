"""SYNTHIA's masks: PNGs of three channels of 16 bits, the first of which is the class."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from deeplab_tf import classes, data
from deeplab_tf.errors import UserError

IDS = [0, 3, 4, 2, 21, 22, 13, 10, 11]  # void, road, pavement, building, wall, lane marking, parking, person, bicycle
TRAIN_IDS = [255, 0, 1, 2, 3, 255, 255, 11, 18]


def png_of_16_bits(channels):
    """The bytes of a PNG file of uint16 [H, W, 3], written by the standard: no library here writes one."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = channels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in channels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def mask(labels):
    """As published: the class, and the number of the object in the second channel."""
    return png_of_16_bits(
        np.stack([labels, np.uint16(300) * (labels % 3), np.zeros_like(labels)], -1).astype(np.uint16)
    )


@pytest.fixture
def synthia(raw, grid):
    for number in range(2):
        raw.image(f"RAND_CITYSCAPES/RGB/{number:07d}.png")
        raw.path(f"RAND_CITYSCAPES/GT/LABELS/{number:07d}.png").write_bytes(mask(grid(IDS)))
    return raw


def test_the_first_channel_becomes_train_ids(synthia, grid):
    directory = synthia.prepare("synthia")
    info = data.info("synthia", synthia.data_dir)
    assert info.splits == {"train": 2} and info.class_names == classes.CITYSCAPES
    examples = synthia.examples(directory, "train")
    assert sorted(examples) == ["0000000.png", "0000001.png"]
    np.testing.assert_array_equal(examples["0000000.png"]["label"], grid(TRAIN_IDS))


def test_pillow_would_lose_the_classes(grid):
    """The file is a genuine one of 16 bits: the reason for another reader."""
    assert not np.asarray(Image.open(io.BytesIO(mask(grid(IDS)))))[..., 0].any()
    cv2 = pytest.importorskip("cv2")
    read = cv2.imdecode(np.frombuffer(mask(grid(IDS)), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read[..., 2], grid(IDS))  # OpenCV's channels are in the order blue, green, red


def test_the_numbers_are_those_of_the_field():
    """{3: 0, 4: 1, 2: 2, 21: 3, 5: 4, 7: 5, 15: 6, ...}, as AdaptSegNet and its successors have them."""
    theirs = {3: 0, 4: 1, 2: 2, 21: 3, 5: 4, 7: 5, 15: 6, 9: 7, 6: 8, 16: 9, 1: 10, 10: 11, 17: 12, 8: 13, 18: 14}
    theirs |= {19: 15, 20: 16, 12: 17, 11: 18}
    assert {number: classes.CITYSCAPES.index(name) for name, number in classes.SYNTHIA_IDS.items()} == theirs


def test_mistakes_are_named(synthia, grid):
    path = synthia.path("RAND_CITYSCAPES/GT/LABELS/0000000.png")
    path.write_bytes(mask(grid([3, 23])))
    with pytest.raises(UserError, match="0000000.png: holds the class 23; expected 0 to 22"):
        synthia.prepare("synthia")
    path.write_bytes(mask(grid([3]))[:-40])
    with pytest.raises(UserError, match="0000000.png: cannot be read as an image"):
        synthia.prepare("synthia")
    synthia.mask("RAND_CITYSCAPES/GT/LABELS/0000000.png", grid([3]))
    with pytest.raises(UserError, match="0000000.png: expected a PNG of three 16-bit channels, as in GT/LABELS"):
        synthia.prepare("synthia")
    path.unlink()
    with pytest.raises(UserError, match="0000000.png: its mask is missing; expected GT/LABELS/0000000.png"):
        synthia.prepare("synthia")
    with pytest.raises(UserError, match=r"has no RGB/\*.png and GT/LABELS/\*.png"):
        data.prepare("synthia", synthia.data_dir, synthia.folder / "RAND_CITYSCAPES/RGB")
    assert synthia.left_behind() == []
