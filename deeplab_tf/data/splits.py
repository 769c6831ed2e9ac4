"""The splits of prepared data: which records a split has, and what a record holds."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from deeplab_tf.data import catalogue
from deeplab_tf.data.records import Records, record_files
from deeplab_tf.errors import UserError

# A part of a split: "train", "train[60:]" or "<data set>:train".
_PART = re.compile(r"(?:(?P<dataset>[^:\[\]]+):)?(?P<name>[^:\[\]]+)(?:\[(?P<first>-?\d*):(?P<end>-?\d*)\])?")
_ENCODED, _FILENAME, _MASK = "image/encoded", "image/filename", "image/segmentation/class/encoded"
_FEATURES = {key: tf.io.FixedLenFeature([], tf.string, default_value="") for key in (_ENCODED, _FILENAME, _MASK)}
_FEATURES |= {f"image/{key}": tf.io.FixedLenFeature([], tf.int64, default_value=0) for key in ("height", "width")}


def open_split(directory: str | os.PathLike, split: str) -> Records:
    """The records of a split, or of several joined by "+", each record once.

    A part may be a slice, "train[60:]", as TFDS writes it: of the numbers of its records, whose order was drawn when
    the data set was prepared and is the same on every machine. "<data set>:<split>" is of another data set beside this
    one: "train+cityscapes/coarse:train_extra" has fine and coarse annotations in one training (Sec. 4.4).

    Raises:
        UserError: the directory or the split is missing or damaged.
    """
    parts = [_part(directory, part) for part in split.split("+")]
    records = Records(list(dict.fromkeys(path for paths, _ in parts for path in paths)))
    numbers = np.concatenate([records.numbers_of(paths)[window] for paths, window in parts])
    return records.chosen(list(dict.fromkeys(numbers.tolist())))


def _part(directory: str | os.PathLike, part: str) -> tuple[list[str], slice]:
    """The record files of one part of a split, and which of their records are meant."""
    match = _PART.fullmatch(part)
    if not match:
        raise UserError(f"split {part!r}: expected a name such as train, train[60:], train[:60] or <data set>:train")
    first, end = (int(match[name]) if match[name] else None for name in ("first", "end"))
    if match["dataset"]:
        directory = _beside(directory, match["dataset"])
    return _split_files(directory, match["name"]), slice(first, end)


def _split_files(directory: str | os.PathLike, split: str) -> list[str]:
    """The record files of a split, or of one that stands for several."""
    files = record_files(directory)
    metadata_file = os.path.join(directory, "metadata.json")
    unions = catalogue.read_metadata(directory)["unions"] if os.path.exists(metadata_file) else {}
    unions = {name: parts for name, parts in unions.items() if all(part in files for part in parts)}
    parts = unions.get(split, [split])
    missing = [part for part in parts if part not in files]
    if missing:
        raise UserError(f"{directory}: no split {missing[0]!r}; it has {', '.join([*files, *unions])}")
    return [path for part in parts for path in files[part]]


def _beside(directory: str | os.PathLike, dataset: str) -> str:
    """The directory of another data set that is prepared in the same data_dir, with the same classes."""
    own = catalogue.read_info(directory)
    data_dir = pathlib.Path(directory).parents[own.name.count("/") + 1]
    other = catalogue.prepared_directory(dataset, data_dir)
    if catalogue.read_info(other).class_names != own.class_names:
        raise UserError(
            f"split {dataset}:...: the classes of {dataset!r} are not those of {own.name!r}, so they cannot be joined"
        )
    return other


def parse_record(record: tf.Tensor, mask: tf.Tensor | None = None) -> dict:
    """The contents of a record: "encoded" (the image), "mask", "filename", "height", "width".

    Args:
        record: scalar string, serialised.
        mask: another mask in place of its own, a PNG.
    """
    parsed = tf.io.parse_single_example(record, _FEATURES)
    return {
        "encoded": parsed[_ENCODED],
        "mask": parsed[_MASK] if mask is None else mask,
        "filename": parsed[_FILENAME],
        "height": parsed["image/height"],
        "width": parsed["image/width"],
    }


def split_size(directory: str | os.PathLike, split: str) -> int:
    """Number of examples of a split, as the pipelines read it.

    Raises:
        UserError: the directory or the split is missing or damaged.
    """
    return len(open_split(directory, split))


@dataclasses.dataclass(frozen=True)
class NamedImage:
    """The name of an image's file, and its height and width in pixels."""

    name: str
    height: int
    width: int


def named_images(directory: str | os.PathLike, split: str) -> Iterator[NamedImage]:
    """One pass over the names and sizes of a split's images, in the records' order.

    Raises:
        UserError: the directory or the split is missing or damaged.
    """
    records = open_split(directory, split)
    names = (
        records.read(tf.data.Dataset.range(len(records)))
        .map(parse_record)
        .map(lambda read: (read["filename"], read["height"], read["width"]))
    )
    for name, height, width in names.as_numpy_iterator():
        yield NamedImage(name.decode(errors="surrogateescape"), int(height), int(width))
