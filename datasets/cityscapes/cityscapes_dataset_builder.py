"""Cityscapes: street scenes of fifty cities in the nineteen classes of the benchmark."""

import functools
import pathlib

from deeplab_tf.classes import CITYSCAPES_TRAIN_IDS, DatasetInfo
from deeplab_tf.data.archives import files_below
from deeplab_tf.data.builder import SegmentationBuilder
from deeplab_tf.data.catalogue import KNOWN
from deeplab_tf.data.masks import read_mask
from deeplab_tf.data.raw import FilePair, lookup, read_pair, required_folder
from deeplab_tf.errors import UserError

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
        annotation, splits = ("gtCoarse", ("train", "train_extra", "val"))
        if self.full_name == "cityscapes":
            annotation, splits = "gtFine", ("train", "val", "test")
        pairs = {split: _pairs(raw, annotation, split) for split in splits}
        for split in ("train", "val"):
            if not pairs[split]:
                raise UserError(
                    f"--raw_dir={raw}: has no {_IMAGES}/{split} and {annotation}/{split}, unpacked or in zip files; "
                    "datasets/cityscapes/README.md tells where to get them"
                )
        return {split: found for split, found in pairs.items() if found}


def _pairs(raw: pathlib.Path, annotation: str, split: str) -> list[FilePair]:
    """The pairs of a split, where both images and label maps are there."""
    images = files_below(raw, f"{_IMAGES}/{split}")
    scenes = {path.removesuffix(_IMAGE_ENDING): file for path, file in images.items() if path.endswith(_IMAGE_ENDING)}
    if split == "test":  # its published label maps are empty
        return [FilePair(image.name, image, None) for image in scenes.values()]
    ending = f"_{annotation}_labelIds.png"
    maps = files_below(raw, f"{annotation}/{split}")
    maps = {path.removesuffix(ending): file for path, file in maps.items() if path.endswith(ending)}
    if not scenes or not maps:
        return []
    decode = functools.partial(read_mask, lookup=lookup(CITYSCAPES_TRAIN_IDS.items()))
    pairs = []
    for scene in sorted({*scenes, *maps}):
        image, label_map = scenes.get(scene), maps.get(scene)
        problem = ""
        if label_map is None:
            problem = f"{image}: its label map is missing; expected {annotation}/{split}/{scene}{ending}"
        elif image is None:
            problem = f"{label_map}: its image is missing; expected {_IMAGES}/{split}/{scene}{_IMAGE_ENDING}"
        name = f"{scene.rsplit('/', 1)[-1]}{_IMAGE_ENDING}"
        pairs.append(FilePair(name, image or label_map, label_map or image, decode, problem))
    return pairs
