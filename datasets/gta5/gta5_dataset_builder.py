"""GTA5: street scenes of a computer game, in the nineteen classes of Cityscapes."""

from deeplab_tf import pictures
from deeplab_tf.classes import (
    CITYSCAPES,
    CITYSCAPES_PALETTE,
    CITYSCAPES_TRAIN_IDS,
    CITYSCAPES_VOID_COLORS,
    IGNORE_LABEL,
    DatasetInfo,
)
from deeplab_tf.data.archives import required_pairs
from deeplab_tf.data.builder import SegmentationBuilder
from deeplab_tf.data.catalogue import KNOWN
from deeplab_tf.data.masks import ColorTable, Mask, read_mask
from deeplab_tf.data.raw import FilePair, lookup, read_pair, required_folder

_LICENSE_PLATE = 34  # Cityscapes' -1
_LOOKUP = lookup({**CITYSCAPES_TRAIN_IDS, _LICENSE_PLATE: IGNORE_LABEL}.items())
_COLORS = dict.fromkeys(CITYSCAPES_VOID_COLORS, IGNORE_LABEL) | {c: i for i, c in enumerate(CITYSCAPES_PALETTE)}
_TABLE = ColorTable(CITYSCAPES, {red << 16 | green << 8 | blue: i for (red, green, blue), i in _COLORS.items()})


def _read(data: bytes, source: str) -> Mask:
    """The classes of a mask: Cityscapes' numbers in a palette or grey image, as published, or its colours."""
    in_colors = pictures.open_image(data, source, load=False).mode in ("RGB", "RGBA")
    return read_mask(data, source, table=_TABLE) if in_colors else read_mask(data, source, lookup=_LOOKUP)


class Builder(SegmentationBuilder, skip_registration=True):
    """Street scenes of a computer game, about 1052x1914, nineteen classes."""

    name = "gta5"
    read = staticmethod(read_pair)

    def catalogue_info(self) -> DatasetInfo:
        """Name, classes and palette."""
        return KNOWN["gta5"]

    def pairs(self) -> dict[str, list[FilePair]]:
        """All images are train: methods of domain adaptation train on all, and validate on Cityscapes."""
        raw = required_folder(self.raw_dir, "gta5", ())
        return {"train": required_pairs("gta5", raw, ("images", ".png"), ("labels", ".png"), decode=_read)}
