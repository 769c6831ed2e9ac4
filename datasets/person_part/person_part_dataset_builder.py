"""PASCAL-Person-Part: the parts of people in VOC 2010, merged to six."""

import pathlib

import numpy as np

from deeplab_tf.classes import IGNORE_LABEL, PERSON_PARTS, DatasetInfo
from deeplab_tf.data.annotations import read_mat
from deeplab_tf.data.builder import Example, SegmentationBuilder
from deeplab_tf.data.catalogue import KNOWN
from deeplab_tf.data.download import Archive
from deeplab_tf.data.masks import Mask
from deeplab_tf.data.raw import FilePair, first_existing, pair_from_list, read_list, read_pair, voc_folder
from deeplab_tf.errors import UserError

_CLASS_OF_PART = {part: index for index, parts in enumerate(PERSON_PARTS.values(), start=1) for part in parts}


def _read_parts(data: bytes, source: str) -> Mask:
    """Draws the parts of all persons, in the order of the file; the rest of a person has no label."""
    try:
        return _draw_parts(np.atleast_1d(read_mat(data, source, "anno", "objects")), source)
    except UserError:
        raise
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise UserError(f"{source}: not an annotation of PASCAL-Part ({error!s:.200})") from error


def _draw_parts(things: np.ndarray, source: str) -> Mask:
    indices = None
    for thing in things:
        if getattr(thing, "class") != "person":
            continue
        if indices is None:
            indices = np.zeros(thing.mask.shape, np.uint8)
        parts = np.atleast_1d(thing.parts)
        unknown = [part.part_name for part in parts if part.part_name not in _CLASS_OF_PART]
        if unknown:
            raise UserError(f"{source}: a person has the part {unknown[0]!r}; expected {', '.join(_CLASS_OF_PART)}")
        indices[(thing.mask > 0) & (indices == 0)] = IGNORE_LABEL
        for part in parts:
            indices[part.mask > 0] = _CLASS_OF_PART[part.part_name]
    return Mask(np.zeros((0, 0), np.uint8) if indices is None else indices)


def _read_if_parts(pair: FilePair) -> Example | None:
    """Reads a pair; nothing, if no part of a person is labelled."""
    example = read_pair(pair)
    return example if np.any((example.mask.indices > 0) & (example.mask.indices < IGNORE_LABEL)) else None


class Builder(SegmentationBuilder, skip_registration=True):
    """Six parts of people, and background; images with people only."""

    name = "person_part"
    DOWNLOADS = (
        Archive(
            "http://host.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar",
            "md5:da459979d0c395079b5c75ee67908abb",
        ),
        Archive("http://roozbehm.info/pascal-parts/trainval.tar.gz", "md5:2fa0a19ee9b5e43b2bee520166111120"),
    )
    read = staticmethod(_read_if_parts)

    def catalogue_info(self) -> DatasetInfo:
        """Name, classes and palette."""
        return KNOWN["person_part"]

    def pairs(self) -> dict[str, list[FilePair]]:
        """The lists and masks of DeepLab's authors where they are there, else VOC's lists and PASCAL-Part's files."""
        voc = voc_folder(self.raw_dir, "person_part", ["2010", "2012"])
        places = [pathlib.Path(self.raw_dir), voc.parent, voc]
        places += [place / "pascal_person_part" for place in places]
        lists = first_existing(places, "pascal_person_part_trainval_list")
        merged = first_existing(places, "pascal_person_part_gt")
        parts = first_existing(places, "Annotations_Part")
        if merged is None and parts is None:
            raise UserError(
                f"--raw_dir={self.raw_dir}: has neither Annotations_Part nor pascal_person_part_gt; "
                "datasets/person_part/README.md tells where to get them"
            )
        if lists is None and voc.name == "VOC2012":
            raise UserError(f"{voc}: the split is by VOC2010's lists; put VOC2010 into --raw_dir")
        splits = {}
        for split in ("train", "val"):
            main = voc / "ImageSets" / "Main" / f"{split}.txt"
            list_file = main if lists is None else lists / f"{split}_id.txt"
            splits[split] = []
            for name in read_list(list_file):
                image = voc / "JPEGImages" / f"{name}.jpg"
                if merged is not None:
                    splits[split].append(pair_from_list(image, merged / f"{name}.png", list_file))
                else:
                    splits[split].append(pair_from_list(image, parts / f"{name}.mat", list_file, decode=_read_parts))
        return splits
