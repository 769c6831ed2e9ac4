"""Summary of a prepared data set: counts, sizes, class frequencies, and a contact sheet to look at."""

import dataclasses
import os
import pathlib

import numpy as np
import tqdm

from deeplab_tf import pictures
from deeplab_tf.data import catalogue
from deeplab_tf.data.pipeline import evaluation_pipeline, label_pipeline
from deeplab_tf.data.records import Records, record_files

_PAIRS_ON_SHEET = 18


@dataclasses.dataclass(frozen=True)
class SplitSummary:
    """Summary of a split.

    Attributes:
        sizes: int [images, 2], height and width of each image, pixels.
        pixels: int64 [256], number of pixels of each label.
        images: int64 [256], number of images in which each label occurs.
    """

    sizes: np.ndarray
    pixels: np.ndarray
    images: np.ndarray


def summarize_split(directory: str | os.PathLike, split: str) -> SplitSummary:
    """Reads all labels of a split of a prepared data set.

    Raises:
        UserError: the directory or the split is missing or damaged.
    """
    sizes, pixels, images = [], np.zeros(256, np.int64), np.zeros(256, np.int64)
    labels = label_pipeline(directory, split)
    for label in tqdm.tqdm(labels.as_numpy_iterator(), split, int(labels.cardinality()), unit=" images"):
        counts = np.bincount(label.ravel(), minlength=256)
        sizes.append(label.shape)
        pixels += counts
        images += counts > 0
    return SplitSummary(np.array(sizes), pixels, images)


def summarize(directory: str | os.PathLike) -> str:
    """Describes a prepared data set and draws its contact sheet to `contact_sheet.jpg` beside the records.

    Args:
        directory: of the prepared data set (`prepared_directory`).

    Returns:
        tables, as text: the splits with numbers and sizes of images; the classes with their share of the labelled
        pixels and of the images.

    Raises:
        UserError: the directory is missing or damaged.
    """
    info = catalogue.read_info(directory)
    splits = {split: summarize_split(directory, split) for split in record_files(directory)}
    labelled = {split: summary for split, summary in splits.items() if summary.pixels[: info.num_classes].any()}
    lines = [f"{info.name}   {directory}", "", f"{'split':12}{'images':>8}   height x width (median, range)   labelled"]
    lines += [_split_line(split, summary, info.num_classes) for split, summary in splits.items()]
    lines += ["", f"{'class':24}" + "".join(f"{split + ' pixels':>16}{'images':>9}" for split in labelled)]
    for index, name in enumerate(info.class_names):
        lines.append(f"{index:3} {name:20}" + "".join(_share(summary, index, info) for summary in labelled.values()))
    absent = [info.class_names[i] for i in range(info.num_classes) if not any(s.pixels[i] for s in labelled.values())]
    if absent:
        lines += ["", f"never occur: {', '.join(absent)}"]
    if labelled:
        path = pathlib.Path(directory) / "contact_sheet.jpg"
        _draw_sheet(directory, next(iter(labelled)), info, path)
        lines += ["", f"look at {path}"]
    return "\n".join(lines)


def _split_line(split: str, summary: SplitSummary, num_classes: int) -> str:
    (least, most), middle = (summary.sizes.min(0), summary.sizes.max(0)), np.median(summary.sizes, 0).astype(int)
    ranges = " x ".join(f"{low}..{high}" if low != high else f"{low}" for low, high in zip(least, most, strict=True))
    size = f"{middle[0]} x {middle[1]}" + (f" ({ranges})" if (least != most).any() else "")
    share = summary.pixels[:num_classes].sum() / summary.pixels.sum()
    return f"{split:12}{len(summary.sizes):8}   {size:32}{share:9.1%}"


def _share(summary: SplitSummary, index: int, info: catalogue.DatasetInfo) -> str:
    """Share of a class in the labelled pixels, and of the images in which it occurs."""
    pixels = summary.pixels[index] / summary.pixels[: info.num_classes].sum()
    return f"{pixels:16.2%}{summary.images[index] / len(summary.sizes):9.1%}"


def _draw_sheet(directory: str | os.PathLike, split: str, info: catalogue.DatasetInfo, path: pathlib.Path) -> None:
    """Draws examples that are spread evenly over the split."""
    step = max(1, len(Records(record_files(directory)[split])) // _PAIRS_ON_SHEET)
    examples = evaluation_pipeline(directory, split, num_shards=step).take(_PAIRS_ON_SHEET)
    pairs = [(example["image"], example["label"]) for example in examples.as_numpy_iterator()]
    pictures.save_picture(path, pictures.contact_sheet(pairs, info.class_names, info.palette))
