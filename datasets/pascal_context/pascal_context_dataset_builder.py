"""PASCAL-Context: every pixel of VOC 2010 labelled, in the 59 most frequent of 459 classes."""

import functools
import pathlib

import numpy as np

from deeplab_tf.classes import IGNORE_LABEL, PASCAL_CONTEXT_IDS, DatasetInfo
from deeplab_tf.data.annotations import read_mat
from deeplab_tf.data.builder import SegmentationBuilder
from deeplab_tf.data.catalogue import KNOWN
from deeplab_tf.data.download import Archive
from deeplab_tf.data.masks import Mask
from deeplab_tf.data.raw import FilePair, first_existing, pair_from_list, read_list, read_pair, voc_folder
from deeplab_tf.errors import UserError

_CLASSES_OF_THE_FILES = 459
_WITHOUT_BACKGROUND = "59"


def _read_label_map(data: bytes, source: str, with_background: bool) -> Mask:
    """Merges the 459 classes: the other 400 are background, class 0, or without a label."""
    labels = read_mat(data, source, "LabelMap")
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu" or labels.ndim != 2 or labels.min() < 0:
        raise UserError(f"{source}: its LabelMap does not hold one label for each pixel; replace or remove the file")
    if labels.max() > _CLASSES_OF_THE_FILES:
        raise UserError(f"{source}: holds the label {labels.max()}; expected at most {_CLASSES_OF_THE_FILES}")
    table = np.full(_CLASSES_OF_THE_FILES + 1, 0 if with_background else IGNORE_LABEL, np.uint8)
    table[list(PASCAL_CONTEXT_IDS.values())] = np.arange(len(PASCAL_CONTEXT_IDS)) + (1 if with_background else 0)
    return Mask(table[labels])


class Builder(SegmentationBuilder, skip_registration=True):
    """Objects and stuff: 59 classes, and background (configuration "59": background ignored)."""

    name = "pascal_context"
    CONFIGS = (_WITHOUT_BACKGROUND,)
    DOWNLOADS = (
        Archive(
            "http://host.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar",
            "md5:da459979d0c395079b5c75ee67908abb",
        ),
        Archive(
            "https://cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz",
            "md5:df034edb2c12aa7d33b42b20bb1796e3",
        ),
    )
    read = staticmethod(read_pair)

    def catalogue_info(self) -> DatasetInfo:
        """Name, classes and palette."""
        return KNOWN[self.full_name]

    def pairs(self) -> dict[str, list[FilePair]]:
        """VOC 2010's train and val."""
        voc = voc_folder(self.raw_dir, "pascal_context", ["2010"])
        places = [pathlib.Path(self.raw_dir), voc.parent, voc]
        maps = first_existing(places, "trainval")
        if maps is None:
            raise UserError(
                f"--raw_dir={self.raw_dir}: has no folder trainval of label maps (*.mat); datasets/pascal_context/"
                "README.md tells where to get it"
            )
        labels_file = first_existing([maps.parent, maps], "labels.txt")
        if labels_file is not None:
            _check_names(labels_file)
        decode = functools.partial(_read_label_map, with_background=self.full_name == "pascal_context")
        lists = {split: voc / "ImageSets" / "Main" / f"{split}.txt" for split in ("train", "val")}
        return {
            split: [
                pair_from_list(voc / "JPEGImages" / f"{name}.jpg", maps / f"{name}.mat", list_file, decode=decode)
                for name in read_list(list_file)
            ]
            for split, list_file in lists.items()
        }


def _check_names(labels_file: pathlib.Path) -> None:
    """Checks the numbers of the 59 classes against the file that comes with the annotations, lines "2: aeroplane"."""
    lines = [line.split(":", 1) for line in labels_file.read_text(encoding="utf-8").splitlines() if ":" in line]
    names = {int(number): name.replace(" ", "") for number, name in lines if number.strip().isdigit()}
    for name, number in PASCAL_CONTEXT_IDS.items():
        if names.get(number) != name:
            raise UserError(f"{labels_file}: number {number} is {names.get(number)!r}, expected {name!r}")
