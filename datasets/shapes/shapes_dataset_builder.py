"""The `shapes` data set: drawn, not downloaded."""

import io

from PIL import Image

from deeplab_tf.classes import DatasetInfo
from deeplab_tf.data.builder import Example, SegmentationBuilder
from deeplab_tf.data.catalogue import KNOWN
from deeplab_tf.data.masks import Mask

from . import drawing


def _read(pair: tuple[str, int]) -> Example:
    split, number = pair
    image, mask = drawing.draw((("train", "val").index(split), number))
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=92)
    name = f"{split}_{number:05d}.jpg"
    return Example(name, buffer.getvalue(), Mask(mask), name, name)


class Builder(SegmentationBuilder, skip_registration=True):
    """Textured objects of seven classes over textured backgrounds, drawn: small, VOC-like, for demos and tests."""

    name = "shapes"
    read = staticmethod(_read)

    def catalogue_info(self) -> DatasetInfo:
        """Name, classes and palette."""
        return KNOWN["shapes"]

    def pairs(self) -> dict[str, list[tuple[str, int]]]:
        """Split and number of each picture."""
        return {split: [(split, number) for number in range(size)] for split, size in KNOWN["shapes"].splits.items()}
