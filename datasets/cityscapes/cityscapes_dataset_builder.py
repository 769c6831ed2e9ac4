"""Cityscapes: street scenes of fifty cities in the nineteen classes of the benchmark."""

import functools

from deeplab_tf.classes import CITYSCAPES_TRAIN_IDS, DatasetInfo
from deeplab_tf.data.archives import images_below, pairs_below, required_pairs
from deeplab_tf.data.builder import SegmentationBuilder
from deeplab_tf.data.catalogue import KNOWN
from deeplab_tf.data.masks import read_mask
from deeplab_tf.data.raw import FilePair, lookup, read_pair, required_folder

_IMAGES, _IMAGE_ENDING = "leftImg8bit", "_leftImg8bit.png"


class Builder(SegmentationBuilder, skip_registration=True):
    """Street scenes, 1024x2048, nineteen classes; finely annotated (configuration "coarse": coarsely)."""

    name = "cityscapes"
    CONFIGS = ("coarse",)
    read = staticmethod(read_pair)

    def catalogue_info(self) -> DatasetInfo:
        """Name, classes and palette."""
        return KNOWN[self.full_name]

    def pairs(self) -> dict[str, list[FilePair]]:
        """Images of leftImg8bit with the label maps of gtFine or gtCoarse; test has none."""
        raw = required_folder(self.raw_dir, self.full_name, ())
        is_fine = self.full_name == "cityscapes"
        annotation, others = ("gtFine", ()) if is_fine else ("gtCoarse", ("train_extra",))
        decode = functools.partial(read_mask, lookup=lookup(CITYSCAPES_TRAIN_IDS.items()))
        splits = {}
        for split in ("train", "val", *others):
            images = f"{_IMAGES}/{split}", _IMAGE_ENDING
            masks = f"{annotation}/{split}", f"_{annotation}_labelIds.png"
            if split in others:
                splits[split] = pairs_below(raw, images, masks, decode=decode)
            else:
                splits[split] = required_pairs("cityscapes", raw, images, masks, decode=decode)
        if is_fine:  # the published label maps of the test split are empty
            splits["test"] = images_below(raw, f"{_IMAGES}/test", _IMAGE_ENDING)
        return {split: pairs for split, pairs in splits.items() if pairs}
