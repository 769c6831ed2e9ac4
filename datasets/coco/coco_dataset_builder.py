"""MS COCO: instance annotations drawn as semantic masks."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from deeplab_tf.classes import COCO_THINGS, IGNORE_LABEL, VOC_OF_COCO, DatasetInfo
from deeplab_tf.data.annotations import draw_segmentations
from deeplab_tf.data.archives import files_below
from deeplab_tf.data.builder import Example, SegmentationBuilder
from deeplab_tf.data.catalogue import KNOWN
from deeplab_tf.data.download import Archive
from deeplab_tf.data.masks import Mask
from deeplab_tf.data.raw import RawFile, content, required_folder
from deeplab_tf.errors import UserError
from deeplab_tf.pictures import open_image

# Images with fewer pixels of objects are left out, but for these. Ours: the paper does not say which images it used.
_LEAST_PIXELS, _ALL_IMAGES = 1000, ("coco/all", "coco/2014")
_MOST_PIXELS = 1 << 32  # a larger area is none
_YEARS = ("2017", "2014")


@dataclasses.dataclass(frozen=True)
class AnnotatedImage:
    """An image and its annotations.

    Attributes:
        image: its file.
        height: pixels.
        width: pixels.
        things: (class index, COCO's annotation) of each object.
        least_pixels: of objects, for the image to be taken.
        source: the annotation file, for messages.
        problem: what is wrong with it, if that is known before it is read.
    """

    image: RawFile
    height: int
    width: int
    things: tuple[tuple[int, dict[str, Any]], ...]
    least_pixels: int
    source: str
    problem: str = ""


def _read(pair: AnnotatedImage) -> Example | None:
    """Draws the objects, small ones over large ones; crowds have no label. None with too few pixels of objects."""
    if pair.problem:
        raise UserError(pair.problem)
    source, image = f"{pair.source}: {pair.image.name}", content(pair.image)
    _check_size(pair, image, source)
    segmentations = [annotation.get("segmentation") for _, annotation in pair.things]
    drawn = draw_segmentations(segmentations, pair.height, pair.width, source)
    indices = np.zeros((pair.height, pair.width), np.uint8)
    things = [(index, annotation, pixels) for (index, annotation), pixels in zip(pair.things, drawn, strict=True)]
    for index, annotation, pixels in sorted(
        things, key=lambda thing: (not thing[1].get("iscrowd"), -_area(*thing[1:]))
    ):
        indices[pixels] = IGNORE_LABEL if annotation.get("iscrowd") else index
    if np.count_nonzero((indices > 0) & (indices < IGNORE_LABEL)) < pair.least_pixels:
        return None
    return Example(pair.image.name, image, Mask(indices), str(pair.image), pair.source)


def _check_size(pair: AnnotatedImage, image: bytes, source: str) -> None:
    """Refuses a size that is not the image's, before anything so large is drawn. The image may be a turned one."""
    width, height = open_image(image, str(pair.image), load=False).size
    if [pair.height, pair.width] not in ([height, width], [width, height]):
        raise UserError(
            f"{source}: found a size of {pair.height!r} x {pair.width!r} pixels, expected that of the image "
            f"{pair.image}, {height} x {width}"
        )


def _area(annotation: dict[str, Any], drawn: np.ndarray) -> float:
    """COCO's own figure where there is one, else the number of pixels drawn."""
    area = annotation.get("area")
    return area if isinstance(area, (int, float)) and abs(area) < _MOST_PIXELS else np.count_nonzero(drawn)


class Builder(SegmentationBuilder, skip_registration=True):
    """COCO's things and background, in one of five configurations.

    "things": the eighty categories. "all": the same with all images, also those without objects. "2014": likewise, and
    never those of 2017: the images that weakly supervised methods are scored on. "ids": ninety-one outputs, one for
    each category number, as the release's COCO model has them. "voc": the twenty classes of VOC.
    """

    name = "coco"
    CONFIGS = ("things", "all", "2014", "ids", "voc")
    DOWNLOADS = (
        Archive(
            "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
            "sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
            unpack=False,
        ),
        Archive(
            "http://images.cocodataset.org/zips/val2017.zip",
            "sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
            unpack=False,
        ),
        Archive(
            "http://images.cocodataset.org/zips/train2017.zip",
            "sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
            unpack=False,
        ),
    )
    read = staticmethod(_read)

    @classmethod
    def config_named(cls, name: str) -> tfds.core.BuilderConfig:
        """One of the five: there is no plain one.

        Raises:
            UserError: it is another.
        """
        if not name:
            raise UserError(
                "dataset 'coco' comes as 'coco/things' (80 classes), 'coco/all' (the same, all images), 'coco/2014' "
                "(all images of 2014), 'coco/ids' (91 outputs) or 'coco/voc' (the 20 of VOC)"
            )
        return super().config_named(name)

    def catalogue_info(self) -> DatasetInfo:
        """Name, classes and palette."""
        return KNOWN[self.full_name]

    def pairs(self) -> dict[str, list[AnnotatedImage]]:
        """train and val, of 2017 or 2014."""
        raw = required_folder(self.raw_dir, self.full_name, ())
        annotations = files_below(raw, "annotations")
        years = ("2014",) if self.full_name == "coco/2014" else _YEARS
        year = next((year for year in years if f"instances_train{year}.json" in annotations), None)
        if year is None:
            raise UserError(
                f"--raw_dir={raw}: has no annotations/instances_train{years[0]}.json"
                f"{' (nor 2014)' if len(years) > 1 else ''}, unpacked or in a zip file; datasets/coco/README.md tells "
                "where to get it"
            )
        class_of = {number: index for index, number in enumerate(COCO_THINGS, start=1)}
        class_of = {"coco/voc": VOC_OF_COCO, "coco/ids": {number: number for number in COCO_THINGS}}.get(
            self.full_name, class_of
        )
        least_pixels = 0 if self.full_name in _ALL_IMAGES else _LEAST_PIXELS
        files = {split: annotations.get(f"instances_{split}{year}.json") for split in ("train", "val")}
        return {
            split: _annotated(file, files_below(raw, f"{split}{year}"), class_of, least_pixels)
            for split, file in files.items()
            if file
        }


def _annotated(
    file: RawFile, images: dict[str, RawFile], class_of: dict[int, int], least_pixels: int
) -> list[AnnotatedImage]:
    """The images of an annotation file that show some of the classes; all of them where no pixels are required."""
    things: dict[int, list] = {}
    try:
        parsed = json.loads(content(file))
        for annotation in parsed["annotations"]:
            if annotation["category_id"] in class_of:
                index = class_of[annotation["category_id"]]
                things.setdefault(annotation["image_id"], []).append((index, annotation))
        listed = [
            (str(entry["file_name"]), entry["height"], entry["width"], tuple(things.get(entry["id"], ())))
            for entry in parsed["images"]
        ]
        listed.sort(key=lambda entry: entry[0])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read as COCO's instance annotations ({error!r:.200})") from error
    pairs = []
    for name, height, width, objects in listed:
        if objects or not least_pixels:
            problem = "" if name in images else f"{name}: this image of {file} is missing; check --raw_dir"
            image = images.get(name, pathlib.Path(name))
            pairs.append(AnnotatedImage(image, height, width, objects, least_pixels, str(file), problem))
    return pairs
