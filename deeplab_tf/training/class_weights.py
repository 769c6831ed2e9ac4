"""Weights of the classes in the loss, for data whose classes are unbalanced.  Beyond the paper, which has none."""

import pathlib
from collections.abc import Iterable

import numpy as np
import tqdm

from deeplab_tf.classes import IGNORE_LABEL
from deeplab_tf.errors import UserError


def balanced_class_weights(
    labels: Iterable[np.ndarray], num_classes: int, ignore_label: int = IGNORE_LABEL
) -> list[float]:
    """Median-frequency balancing (Eigen and Fergus 2015): the median of all classes' frequencies over the class's own.

    The frequency of a class is its share of the labelled pixels of the images that it occurs in. Counted with progress,
    one label map at a time.

    Args:
        labels: label maps, integers [H, W].
        num_classes: C.
        ignore_label: not counted.

    Returns:
        C weights; 1 for a class that occurs nowhere.
    """
    pixels, pixels_of_images = np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64)
    for label in tqdm.tqdm(labels, "class frequencies", unit="image", leave=False, dynamic_ncols=True):
        label = np.asarray(label)
        counts = np.bincount(label[label != ignore_label], minlength=num_classes)
        pixels += counts
        pixels_of_images += np.where(counts > 0, counts.sum(), 0)
    occurs = pixels > 0
    frequencies = pixels[occurs] / pixels_of_images[occurs]
    weights = np.ones(num_classes)
    weights[occurs] = np.median(frequencies) / frequencies
    return weights.tolist()


def read_class_weights(path: str | pathlib.Path, class_names: tuple[str, ...]) -> list[float]:
    """Class weights from a text file, one number a line in the order of the labels.

    Raises:
        UserError: as `read_numbers`, or there is another number of lines than there are classes.
    """
    weights = read_numbers(path)
    if len(weights) != len(class_names):
        raise UserError(
            f"{path}: found {len(weights)} weights, expected {len(class_names)}, one a class: {', '.join(class_names)}"
        )
    return weights


def read_numbers(path: str | pathlib.Path) -> list[float]:
    """The numbers in a file of class weights, for whatever classes.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    try:
        lines = pathlib.Path(path).expanduser().read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--class_weights={path}: cannot be read ({reason}); expected 'balanced' or a file") from None
    weights = []
    for number, line in enumerate((line.strip() for line in lines), start=1):
        if not line:
            continue
        try:
            weights.append(float(line))
        except ValueError:
            raise UserError(f"{path}: line {number} is {line!r}, expected a number") from None
        if not 0 <= weights[-1] < np.inf:
            raise UserError(f"{path}: line {number} is {line!r}, expected a finite number of at least 0")
    return weights
