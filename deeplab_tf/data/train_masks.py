"""Masks of another source in place of a split's own, such as pseudo labels from class activation maps.

They are checked before training and kept beside the prepared data, in `<version directory>/train_masks/<fingerprint>/`:
one TFRecord file with the mask of each example, so that training reads them as it reads a split's own, in any order and
without Python. The fingerprint is of the masks and of the images that they are for.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tqdm

from deeplab_tf import files
from deeplab_tf.classes import DatasetInfo
from deeplab_tf.data import catalogue
from deeplab_tf.data.masks import check_indices, read_mask
from deeplab_tf.data.splits import NamedImage, named_images
from deeplab_tf.errors import UserError
from deeplab_tf.parallel import available_cores, in_order

_FOLDER, _RECORDS, _DESCRIPTION = "train_masks", "masks.tfrecord", "train_masks.json"
_NAMED = 5  # of the images without a mask


@dataclasses.dataclass(frozen=True)
class TrainMasks:
    """Masks that replace those of a split; `training_pipeline` and `label_pipeline` take them.

    Attributes:
        records: path of a TFRecord file with the mask of each example, a PNG of one 8-bit grey channel.
        numbers: of the examples of the split that have a mask, in the order of `records`.
        left_out: names of the images without a mask.
        description: what they are, in terms of JSON: "folder", "fingerprint", "split", "images", "left_out" (a number),
            "labelled" (fraction of the pixels), "classes" (number of those that occur).
    """

    records: str
    numbers: tuple[int, ...]
    left_out: tuple[str, ...]
    description: dict[str, Any]

    def __str__(self) -> str:
        known = self.description
        line = (
            f"train masks  {known['images']} of {known['folder']}; {100 * known['labelled']:.1f}% of their pixels are "
            f"labelled, with {known['classes']} classes"
        )
        left_out = f"left out     {len(self.left_out)} images without a mask: {_some(self.left_out)}"
        return f"{line}\n{left_out}" if self.left_out else line


def prepare_train_masks(
    directory: str | os.PathLike, split: str, folder: str | os.PathLike, *, missing: str = "error"
) -> TrainMasks:
    """Checks the masks in a folder and makes them ready to train on, unless that is done already.

    Args:
        directory: a prepared data set (`prepared_directory`).
        split: whose masks are replaced, as `training_pipeline` takes it.
        folder: holds a PNG for each image, with the name of the image and in folders as the image is; class indices,
            grey or with a palette, 255 for no label.
        missing: "error", or "skip", which leaves images without a mask out.

    Raises:
        UserError: a mask is missing, cannot be read, is of another size than its image or holds a value that is not a
            class; or fewer than two classes occur in all of them.
    """
    folder = pathlib.Path(folder).expanduser().absolute()
    if not folder.is_dir():
        raise UserError(f"--train_masks={folder}: no such folder")
    info = catalogue.read_info(directory)
    images = list(named_images(directory, split))
    paths = [folder / pathlib.PurePosixPath(image.name).with_suffix(".png") for image in images]
    exists = [path.is_file() for path in paths]
    left_out = tuple(image.name for image, there in zip(images, exists, strict=True) if not there)
    _check_missing(left_out, images, paths, f"--train_masks={folder}", missing)
    numbers = tuple(np.flatnonzero(exists).tolist())
    images, paths = ([items[number] for number in numbers] for items in (images, paths))

    fingerprint = _fingerprint(images, paths)
    prepared = pathlib.Path(directory) / _FOLDER / fingerprint
    if not (prepared / _DESCRIPTION).is_file():
        _write(prepared, images, paths, info, folder)
    found = json.loads((prepared / _DESCRIPTION).read_text(encoding="utf-8"))
    description = {"folder": str(folder), "fingerprint": fingerprint, "split": split, "images": len(images)}
    description |= {"left_out": len(left_out), **found}
    return TrainMasks(str(prepared / _RECORDS), numbers, left_out, description)


def _check_missing(
    left_out: Sequence[str], images: Sequence[NamedImage], paths: Sequence[pathlib.Path], flag: str, missing: str
) -> None:
    """Refuses a folder that lacks masks, or all of them."""
    if len(left_out) == len(images):
        raise UserError(f"{flag}: has none of the {len(images)} masks; expected names such as {paths[0]}")
    if left_out and missing == "error":
        raise UserError(
            f"{flag}: {len(left_out)} of {len(images)} images have no mask there: {_some(left_out)}; expected names "
            f"such as {paths[0]}; --train_masks_missing=skip leaves these images out"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (" ..." if len(names) > _NAMED else "")


def _content(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _fingerprint(images: Sequence[NamedImage], paths: Sequence[pathlib.Path]) -> str:
    """A hash of the names of the images and the content of their masks: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    of_files = in_order(lambda path: hashlib.sha256(_content(path)).digest(), paths, available_cores())
    for image, of_file in zip(images, of_files, strict=True):
        digest.update(image.name.encode(errors="surrogateescape") + b"\0" + of_file)
    return digest.hexdigest()[:16]


def _write(
    prepared: pathlib.Path,
    images: Sequence[NamedImage],
    paths: Sequence[pathlib.Path],
    info: DatasetInfo,
    folder: pathlib.Path,
) -> None:
    """Writes the masks as records, in the order of the images; then what they hold."""

    def checked(pair: tuple[NamedImage, pathlib.Path]) -> tuple[bytes, np.ndarray]:
        """On other threads: a mask as it is stored, and the number of its pixels of each value."""
        image, path = pair
        mask = read_mask(_content(path), str(path))
        height, width = mask.indices.shape
        if (height, width) != (image.height, image.width):
            raise UserError(
                f"{path}: the mask is {width}x{height} pixels, its image {image.name} {image.width}x{image.height}; "
                "they must be equal"
            )
        return mask.encoded(), check_indices(mask.indices, info.num_classes, str(path))

    counts = np.zeros(256, np.int64)
    results = in_order(checked, zip(images, paths, strict=True), available_cores())
    with files.written_aside(prepared / _RECORDS) as aside, tf.io.TFRecordWriter(str(aside)) as writer:
        for encoded, of_mask in tqdm.tqdm(results, "train masks", len(images), leave=False, unit=" masks"):
            writer.write(encoded)
            counts += of_mask
        occurring = np.flatnonzero(counts[: info.num_classes])
        if len(occurring) < min(2, info.num_classes):
            held = f"the class {info.class_names[occurring[0]]!r} alone" if len(occurring) else "no labelled pixel"
            raise UserError(f"--train_masks={folder}: the masks hold {held}; expected two classes or more")
    labelled = counts[: info.num_classes].sum() / counts.sum()
    files.write_json(prepared / _DESCRIPTION, {"labelled": float(labelled), "classes": len(occurring)})
