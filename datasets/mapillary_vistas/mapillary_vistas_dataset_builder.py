"""Mapillary Vistas 1.2: street scenes from all over the world, in the 65 classes that are evaluated."""

import functools

from deeplab_tf.classes import IGNORE_LABEL, MAPILLARY, DatasetInfo
from deeplab_tf.data.archives import images_below, pairs_below, required_pairs
from deeplab_tf.data.builder import SegmentationBuilder
from deeplab_tf.data.catalogue import KNOWN
from deeplab_tf.data.masks import read_mask
from deeplab_tf.data.raw import FilePair, lookup, read_pair, required_folder

_UNLABELLED = len(MAPILLARY)


class Builder(SegmentationBuilder, skip_registration=True):
    """Street scenes of all sizes, 65 classes."""

    name = "mapillary_vistas"
    read = staticmethod(read_pair)

    def catalogue_info(self) -> DatasetInfo:
        """Name, classes and palette."""
        return KNOWN["mapillary_vistas"]

    def pairs(self) -> dict[str, list[FilePair]]:
        """The authors' training, validation and, without masks, testing; labels as 1.2 or 2.0 has those of 1.2."""
        raw = required_folder(self.raw_dir, "mapillary_vistas", ())
        decode = functools.partial(read_mask, lookup=lookup([(_UNLABELLED, IGNORE_LABEL)]))
        splits = {}
        for split, folder in (("train", "training"), ("val", "validation")):
            images = f"{folder}/images", ".jpg"
            old, new = (f"{folder}/labels", ".png"), (f"{folder}/v1.2/labels", ".png")
            splits[split] = pairs_below(raw, images, old, decode=decode) or required_pairs(
                "mapillary_vistas", raw, images, new, decode=decode
            )
        splits["test"] = images_below(raw, "testing/images", ".jpg")
        return {split: pairs for split, pairs in splits.items() if pairs}
