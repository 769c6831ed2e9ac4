"""PASCAL VOC 2012, with the extra annotations of SBD."""

import pathlib

from deeplab_tf.classes import DatasetInfo
from deeplab_tf.data.annotations import read_mat
from deeplab_tf.data.builder import SegmentationBuilder
from deeplab_tf.data.catalogue import KNOWN
from deeplab_tf.data.download import Archive
from deeplab_tf.data.masks import Mask
from deeplab_tf.data.raw import FilePair, first_existing, pair_from_list, read_list, read_pair, voc_folder


def _read_sbd(data: bytes, source: str) -> Mask:
    """The classes of an SBD annotation."""
    return Mask(read_mat(data, source, "GTcls", "Segmentation"))


class Builder(SegmentationBuilder, skip_registration=True):
    """Twenty classes of objects and background."""

    name = "voc2012"
    DOWNLOADS = (
        Archive(
            "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            "md5:6cd6e144f989b92b3379bac3b3de84fd",
        ),
        Archive(
            "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
            "md5:82b4d87ceb2ed10f6038a1cba92111cb",
        ),
    )
    read = staticmethod(read_pair)

    def catalogue_info(self) -> DatasetInfo:
        """Name, classes and palette."""
        return KNOWN["voc2012"]

    def unions(self) -> dict[str, tuple[str, ...]]:
        """Only train, val, aug and test are stored."""
        return {"trainval": ("train", "val"), "trainaug": ("train", "aug"), "trainvalaug": ("train", "val", "aug")}

    def pairs(self) -> dict[str, list[FilePair]]:
        """VOC's own lists; `aug`: what has an extra annotation and is neither in train nor in val."""
        voc = voc_folder(self.raw_dir, "voc2012", ["2012"])
        lists = voc / "ImageSets" / "Segmentation"
        names = {split: read_list(lists / f"{split}.txt") for split in ("train", "val")}
        splits = {split: self._voc_pairs(voc, split, names[split]) for split in names}
        extra = _extra_masks(pathlib.Path(self.raw_dir), voc)
        aug = sorted(set(extra) - set(names["train"]) - set(names["val"]))
        if aug:
            splits["aug"] = [_extra_pair(voc, extra[name]) for name in aug]
        if (lists / "test.txt").exists():
            test = [voc / "JPEGImages" / f"{name}.jpg" for name in read_list(lists / "test.txt")]
            splits["test"] = [pair_from_list(image, None, lists / "test.txt") for image in test]
        return splits

    def _voc_pairs(self, voc: pathlib.Path, split: str, names: list[str]) -> list[FilePair]:
        list_file = voc / "ImageSets" / "Segmentation" / f"{split}.txt"
        return [
            pair_from_list(voc / "JPEGImages" / f"{name}.jpg", voc / "SegmentationClass" / f"{name}.png", list_file)
            for name in names
        ]


def _extra_masks(raw: pathlib.Path, voc: pathlib.Path) -> dict[str, pathlib.Path]:
    """The extra annotations by name: SegmentationClassAug/*.png, or else SBD's cls/*.mat."""
    folder = first_existing([voc, raw], "SegmentationClassAug")
    if folder is None:
        folder = first_existing([voc, raw], "benchmark_RELEASE/dataset/cls")
    return {} if folder is None else {path.stem: path for path in folder.iterdir() if path.suffix in (".png", ".mat")}


def _extra_pair(voc: pathlib.Path, mask: pathlib.Path) -> FilePair:
    image = voc / "JPEGImages" / f"{mask.stem}.jpg"
    problem = "" if image.exists() else f"{mask}: its image is missing; expected {image}"
    if mask.suffix == ".mat":
        return FilePair(image.name, image, mask, _read_sbd, problem)
    return FilePair(image.name, image, mask, problem=problem)
