"""SYNTHIA-RAND-CITYSCAPES: drawn street scenes, in the nineteen classes of Cityscapes."""

import numpy as np
import tensorflow as tf

from deeplab_tf.classes import CITYSCAPES, IGNORE_LABEL, SYNTHIA_IDS, DatasetInfo
from deeplab_tf.data.archives import required_pairs
from deeplab_tf.data.builder import SegmentationBuilder
from deeplab_tf.data.catalogue import KNOWN
from deeplab_tf.data.masks import Mask
from deeplab_tf.data.raw import FilePair, read_pair, required_folder
from deeplab_tf.errors import UserError

_LARGEST = 22  # lane marking
_LOOKUP = np.full(_LARGEST + 1, IGNORE_LABEL, np.uint8)
_LOOKUP[[SYNTHIA_IDS[name] for name in CITYSCAPES]] = np.arange(len(CITYSCAPES))


def _read(data: bytes, source: str) -> Mask:
    """The classes of a mask: the first of three channels of 16 bits. Pillow would give the higher 8, which are 0."""
    if not data.startswith(b"\x89PNG") or data[24:26] != b"\x10\x02":  # bits of a channel, kind of colour
        raise UserError(f"{source}: expected a PNG of three 16-bit channels, as in GT/LABELS; found another file")
    try:
        with tf.device("CPU"):
            numbers = tf.io.decode_png(data, channels=3, dtype=tf.uint16)[..., 0].numpy()
    except tf.errors.InvalidArgumentError as error:
        raise UserError(f"{source}: cannot be read as an image; replace or remove it") from error
    if numbers.max() > _LARGEST:
        raise UserError(f"{source}: holds the class {numbers.max()}; expected 0 to {_LARGEST}")
    return Mask(_LOOKUP[numbers])


class Builder(SegmentationBuilder, skip_registration=True):
    """Drawn street scenes, 760x1280, nineteen classes, of which sixteen occur."""

    name = "synthia"
    read = staticmethod(read_pair)

    def catalogue_info(self) -> DatasetInfo:
        """Name, classes and palette."""
        return KNOWN["synthia"]

    def pairs(self) -> dict[str, list[FilePair]]:
        """All images are train: methods of domain adaptation train on all, and validate on Cityscapes."""
        raw = required_folder(self.raw_dir, "synthia", ())
        return {"train": required_pairs("synthia", raw, ("RGB", ".png"), ("GT/LABELS", ".png"), decode=_read)}
