"""Images for the calibration of int8 models: the ranges of values inside the network are those that these have."""

import itertools
import os

import numpy as np

from deeplab_tf import pictures
from deeplab_tf.data import pipeline

COUNT = 32  # images; the ranges hardly change with more


def from_folder(pattern: str) -> list[np.ndarray]:
    """At most `COUNT` of a folder's images, evenly spaced, uint8 [H, W, 3] each.

    Args:
        pattern: an image, a folder of images, or a glob.

    Raises:
        UserError: there is none, or one cannot be read.
    """
    paths = pictures.find_images(pattern)
    chosen = np.unique(np.linspace(0, len(paths) - 1, COUNT).round().astype(int))
    return [pictures.read_photograph(paths[i]) for i in chosen]


def from_data_set(directory: str | os.PathLike, split: str) -> list[np.ndarray]:
    """The first `COUNT` images of a split of a prepared data set, whose records are shuffled; uint8 [H, W, 3] each.

    Args:
        directory: the prepared data set.
        split: what the run was trained on.

    Raises:
        UserError: the data set is not there any more, or has no such split.
    """
    examples = pipeline.evaluation_pipeline(directory, split, limit=COUNT)
    return [example["image"] for example in itertools.islice(examples.as_numpy_iterator(), COUNT)]
