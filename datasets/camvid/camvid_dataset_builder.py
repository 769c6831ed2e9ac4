"""CamVid: street scenes from a driving car, in the eleven classes of SegNet."""

import functools

from deeplab_tf.classes import IGNORE_LABEL, DatasetInfo
from deeplab_tf.data.builder import SegmentationBuilder
from deeplab_tf.data.catalogue import KNOWN
from deeplab_tf.data.masks import read_mask
from deeplab_tf.data.raw import FilePair, lookup, pair_files, read_pair, required_folder

_UNLABELLED = 11


class Builder(SegmentationBuilder, skip_registration=True):
    """Street scenes, 360x480, eleven classes."""

    name = "camvid"
    read = staticmethod(read_pair)

    def catalogue_info(self) -> DatasetInfo:
        """Name, classes and palette."""
        return KNOWN["camvid"]

    def pairs(self) -> dict[str, list[FilePair]]:
        """Pairs of <split>/ and <split>annot/; a test split where there is one."""
        raw = required_folder(self.raw_dir, "camvid", ("train", "trainannot", "val", "valannot"))
        decode = functools.partial(read_mask, lookup=lookup([(_UNLABELLED, IGNORE_LABEL)]))
        return {
            split: list(pair_files(raw / split, raw / f"{split}annot", decode=decode).values())
            for split in ("train", "val", "test")
            if split != "test" or (raw / split).is_dir()
        }
