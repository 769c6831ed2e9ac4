"""Evaluation of a segmenter on a data set, image by image, at the original resolution."""

import collections
import concurrent.futures
import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tqdm

from deeplab_tf import files
from deeplab_tf.evaluation.metrics import ConfusionMatrix
from deeplab_tf.evaluation.segmenter import Segmentation, Segmenter

# Images that may wait for the CRF while the network goes on.
_IN_FLIGHT = 2


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        class_names: C names.
        network: confusion matrix of the network alone.
        crf: confusion matrix after the CRF; None without one.
        images: their number.
        seconds: of the whole evaluation.
    """

    class_names: tuple[str, ...]
    network: ConfusionMatrix
    crf: ConfusionMatrix | None
    images: int
    seconds: float

    def table(self) -> str:
        """Per-class intersection over union and the summary figures, in percent, as text."""
        columns = {"network": self.network} | ({"with CRF": self.crf} if self.crf else {})
        width = max(len("frequency-weighted IoU"), *map(len, self.class_names))
        rule = "-" * (width + 11 * len(columns))
        rows = [
            f"{name:<{width}}" + "".join(f"{_percent(matrix.iou[i]):>11}" for matrix in columns.values())
            for i, name in enumerate(self.class_names)
        ]
        summaries = {name: matrix.summary() for name, matrix in columns.items()}
        totals = [
            f"{title:<{width}}" + "".join(f"{_percent(summary[key]):>11}" for summary in summaries.values())
            for key, title in (
                ("mean_iou", "mean IoU"),
                ("pixel_accuracy", "pixel accuracy"),
                ("mean_accuracy", "mean accuracy"),
                ("frequency_weighted_iou", "frequency-weighted IoU"),
            )
        ]
        header = f"{'IoU, %':<{width}}" + "".join(f"{name:>11}" for name in columns)
        return "\n".join([header, rule, *rows, rule, *totals])

    def as_json(self) -> dict[str, Any]:
        """Everything measured, in terms of JSON; figures in [0, 1], null where nothing was counted."""
        matrices = {"network": self.network} | ({"crf": self.crf} if self.crf else {})
        return {
            "images": self.images,
            "seconds": round(self.seconds, 3),
            "class_names": list(self.class_names),
            **{
                name: {key: _or_null(value) for key, value in matrix.summary().items()}
                | {
                    "iou": dict(zip(self.class_names, map(_or_null, matrix.iou), strict=True)),
                    "confusion": matrix.counts.tolist(),
                }
                for name, matrix in matrices.items()
            },
        }

    def save(self, path: str | pathlib.Path) -> None:
        """Writes `as_json()` to a file."""
        files.write_json(path, self.as_json())


def evaluate(
    segmenter: Segmenter,
    examples: Iterable[Mapping[str, Any]],
    *,
    on_example: Callable[[int, Mapping[str, Any], Segmentation, Segmentation | None], None] | None = None,
) -> Evaluation:
    """Counts, over all examples, how the segmenter's labels agree with the truth.

    The CRF, where the segmenter has one, runs on a thread of its own, so the network works on the next image meanwhile;
    no more than a few score maps are in memory at any time.

    Args:
        segmenter: with `info` (the classes).
        examples: {"image": uint8 [H, W, 3], "label": uint8 [H, W]}, NumPy arrays or tensors, as
          `deeplab_tf.data.evaluation_pipeline` gives them.
        on_example: called in order with (index, example, result of the network, result after the CRF or None).

    Raises:
        UserError: a label is no class of the segmenter.
    """
    started = time.monotonic()
    info = segmenter.info
    network = ConfusionMatrix.empty(info.num_classes)
    crf = ConfusionMatrix.empty(info.num_classes) if segmenter.crf else None
    images = 0

    def count(example: Mapping[str, Any], unrefined: Segmentation, refined: Segmentation | None) -> None:
        nonlocal images
        label = np.asarray(example["label"])
        network.add(label, unrefined.labels, info.ignore_label)
        if refined is not None:
            crf.add(label, refined.labels, info.ignore_label)
        if on_example:
            on_example(images, example, unrefined, refined)
        images += 1

    waiting = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as crf_thread:
        for example in tqdm.tqdm(examples, "evaluate", leave=False, unit="image", dynamic_ncols=True):
            image = np.asarray(example["image"])
            unrefined = segmenter.without_crf(image)
            if segmenter.crf is None:
                count(example, unrefined, None)
                continue
            waiting.append((example, unrefined, crf_thread.submit(segmenter.refined, image, unrefined)))
            if len(waiting) > _IN_FLIGHT:
                example, unrefined, refining = waiting.popleft()
                count(example, unrefined, refining.result())
        for example, unrefined, refining in waiting:
            count(example, unrefined, refining.result())
    return Evaluation(info.class_names, network, crf, images, time.monotonic() - started)


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _or_null(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
