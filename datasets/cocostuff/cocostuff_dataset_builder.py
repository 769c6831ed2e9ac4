"""COCO-Stuff: every pixel of COCO's photographs labelled, things and stuff."""

import pathlib

import numpy as np
import tensorflow_datasets as tfds

from deeplab_tf.classes import COCO_STUFF, IGNORE_LABEL, DatasetInfo
from deeplab_tf.data.annotations import read_mat
from deeplab_tf.data.archives import files_below, required_pairs
from deeplab_tf.data.builder import SegmentationBuilder
from deeplab_tf.data.catalogue import KNOWN
from deeplab_tf.data.masks import Mask
from deeplab_tf.data.raw import FilePair, content, read_pair, required_folder
from deeplab_tf.errors import UserError


def _read_numbers(data: bytes, source: str) -> Mask:
    """The labels of an annotation of the 10k images: numbers from 1 on, 0 where there is no label."""
    numbers = np.asarray(read_mat(data, source, "S"))
    if (
        numbers.ndim != 2
        or numbers.dtype.kind not in "uif"
        or not 0 <= numbers.min() <= numbers.max() <= len(COCO_STUFF)
    ):
        raise UserError(f"{source}: expected numbers from 0 to {len(COCO_STUFF)} in two dimensions, found others")
    return Mask(np.where(numbers == 0, IGNORE_LABEL, numbers - 1).astype(np.uint8))


class Builder(SegmentationBuilder, skip_registration=True):
    """182 classes of things and stuff, of which 171 occur; on all photographs of COCO 2017, or on 10,000 of 2014."""

    name = "cocostuff"
    CONFIGS = ("164k", "10k")
    read = staticmethod(read_pair)

    @classmethod
    def config_named(cls, name: str) -> tfds.core.BuilderConfig:
        """One of the two: there is no plain one.

        Raises:
            UserError: it is another.
        """
        if not name:
            raise UserError("dataset 'cocostuff' comes as 'cocostuff/164k' or as 'cocostuff/10k'")
        return super().config_named(name)

    def catalogue_info(self) -> DatasetInfo:
        """Name, classes and palette."""
        return KNOWN[self.full_name]

    def pairs(self) -> dict[str, list[FilePair]]:
        """164k: train and val of COCO 2017; 10k: the authors' train and test."""
        raw = required_folder(self.raw_dir, self.full_name, ())
        return _of_10k(raw) if self.full_name == "cocostuff/10k" else _of_164k(raw)


def _of_164k(raw: pathlib.Path) -> dict[str, list[FilePair]]:
    """Photographs, and the PNGs of stuffthingmaps, which lie in folders of the same names."""
    folders = {split: f"{split}2017" for split in ("train", "val")}
    return {split: required_pairs("cocostuff", raw, (f, ".jpg"), (f, ".png")) for split, f in folders.items()}


def _of_10k(raw: pathlib.Path) -> dict[str, list[FilePair]]:
    """The pairs that the authors' lists name."""
    lists = files_below(raw, "imageLists")
    pairs = required_pairs("cocostuff", raw, ("images", ".jpg"), ("annotations", ".mat"), decode=_read_numbers)
    by_name = {pair.name.removesuffix(".jpg"): pair for pair in pairs}
    splits = {}
    for split in ("train", "test"):
        if f"{split}.txt" not in lists:
            raise UserError(f"--raw_dir={raw}: has no imageLists/{split}.txt (datasets/cocostuff/README.md)")
        listed = content(lists[f"{split}.txt"]).decode(errors="replace").split()
        splits[split] = [by_name.get(name) or _missing(name, lists[f"{split}.txt"]) for name in listed]
    return splits


def _missing(name: str, list_file) -> FilePair:
    path = pathlib.Path(f"{name}.jpg")
    return FilePair(path.name, path, None, problem=f"{path}: this image of {list_file} is missing; check --raw_dir")
