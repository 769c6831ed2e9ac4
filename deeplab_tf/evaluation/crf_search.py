"""The search for a run's CRF parameters, on the images of a data set."""

import collections.abc
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplab_tf import crf
from deeplab_tf.crf.search_result import SearchResult
from deeplab_tf.inference.segmenter import Segmenter

# Validation images in the paper's search (Sec. 4.1.1).
IMAGES = 100


class Samples(collections.abc.Sequence):
    """Images uint8 [H, W, 3], the network's probabilities float32 [H, W, C], and labels uint8 [H, W].

    A sample is computed when it is asked for; asking in ascending order reads the examples once.

    Args:
        segmenter: its network is used, not its CRF.
        examples: a `tf.data.Dataset` or another sized iterable, as for `evaluate`.
    """

    def __init__(self, segmenter: Segmenter, examples: collections.abc.Collection[Mapping[str, Any]]):
        self._segmenter = segmenter
        self._examples = examples
        self._next, self._iterator = 0, iter(examples)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        if index < self._next:
            self._next, self._iterator = 0, iter(self._examples)
        while self._next <= index:
            example = next(self._iterator)
            self._next += 1
        image = np.asarray(example["image"])
        return image, self._segmenter.without_crf(image).probabilities, np.asarray(example["label"])


def search_crf(
    segmenter: Segmenter,
    examples: collections.abc.Collection[Mapping[str, Any]],
    model_dir: str | os.PathLike,
    *,
    dataset: str,
    split: str,
) -> SearchResult:
    """Searches the CRF's parameters for a segmenter; goes on where an interrupted search of the same was.

    Writes to `model_dir`: crf.json, which says what it was searched for, crf_search.csv and crf_search.png.

    Args:
        segmenter: with `info`.
        examples: as for `evaluate`; the paper takes `IMAGES` of them.
        model_dir: folder of the run.
        dataset: name of the data set, for the record.
        split: likewise.

    Raises:
        UserError: there are no examples, or their labels are not of the segmenter's classes.
    """
    model_dir = pathlib.Path(model_dir).expanduser()
    of_network = {name: value for name, value in segmenter.settings.items() if name != "crf"}
    searched_for = {"dataset": dataset, "split": split, "images": len(examples), **of_network}
    result = crf.search(
        Samples(segmenter, examples),
        segmenter.info.num_classes,
        ignore_label=segmenter.info.ignore_label,
        state_dir=model_dir,
        identity=json.dumps(searched_for, sort_keys=True),
    )
    result.write(model_dir, searched_for)
    return result
