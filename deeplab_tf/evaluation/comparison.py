"""Two runs on the same images: what changed, per class, and whether it is more than noise."""

import dataclasses
import os
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from deeplab_tf.counts import ImageCounts, iou, mean_iou
from deeplab_tf.errors import UserError
from deeplab_tf.run_folder import CHECKPOINTS, IMAGE_COUNTS_FILE

SAMPLES = 2_000
LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The IoU of two runs over the same images, in [0, 1]; rows are the C classes, then their mean.

    Attributes:
        names: C + 1 names.
        first: IoU of the one run, float64 [C + 1]; NaN where a class does not occur.
        second: of the other.
        low: lower end of the interval of first - second, float64 [C + 1].
        high: upper end.
        images: number of images.
        after_crf: whether the labels are those after the CRF.
    """

    names: tuple[str, ...]
    first: np.ndarray
    second: np.ndarray
    low: np.ndarray
    high: np.ndarray
    images: int
    after_crf: bool

    @property
    def significant(self) -> np.ndarray:
        """Whether the interval excludes 0, bool [C + 1]."""
        return (self.low > 0) | (self.high < 0)

    def table(self, first_name: str, second_name: str) -> str:
        """The comparison as text, in percent; a class whose interval excludes 0 is marked "better" or "worse"."""
        width = max(map(len, self.names))
        lines = [f"{'IoU, %':<{width}}{'this':>9}{'other':>9}{'change':>9}   {LEVEL:.0%} interval"]
        lines.append("-" * (width + 48))
        for i, name in enumerate(self.names):
            if i == len(self.names) - 1:
                lines.append(lines[1])
            if np.isnan(self.first[i] - self.second[i]):
                lines.append(f"{name:<{width}}{'-':>9}{'-':>9}{'-':>9}")
                continue
            verdict = ("better" if self.low[i] > 0 else "worse") if self.significant[i] else ""
            values = (self.first[i], self.second[i], self.first[i] - self.second[i], self.low[i], self.high[i])
            a, b, change, low, high = (100 * value for value in values)
            lines.append(f"{name:<{width}}{a:9.2f}{b:9.2f}{change:+9.2f}   {low:+6.2f} to {high:+6.2f}  {verdict}")
        step = "after the CRF" if self.after_crf else "of the network alone"
        lines.append(f"\nthis: {first_name}; other: {second_name}; labels {step}, {self.images} images, interval by")
        lines.append(f"bootstrap over images ({SAMPLES} samples); without a verdict the change may be noise")
        return "\n".join(line.rstrip() for line in lines)


def compare(first: ImageCounts, second: ImageCounts, *, samples: int = SAMPLES, seed: int = 0) -> Comparison:
    """Compares two evaluations by the images of the first, which the second must have too.

    The interval is that of the percentiles of `samples` resamplings of the images, with replacement; both runs get the
    same images each time, so what is hard for both does not widen it (a paired bootstrap).

    Args:
        first: one run.
        second: the other. After the CRF both are compared when both have one.
        samples: number of resamplings.
        seed: of the resamplings.

    Raises:
        UserError: other classes, other images, or other truths.
    """
    if first.class_names != second.class_names:
        raise UserError(f"compare: the runs have other classes: {first.class_names} and {second.class_names}")
    place = {name: i for i, name in enumerate(second.filenames)}
    missing = [name for name in first.filenames if name not in place]
    if missing or not first.filenames:
        found = f"{missing[0]} is missing from the other" if missing else "there are none"
        raise UserError(f"compare: both runs must be evaluated on the same images; {found}")
    after_crf = first.crf is not None and second.crf is not None
    a, b = (counts.crf if after_crf else counts.network for counts in (first, second))
    b = b[[place[name] for name in first.filenames]]
    if (a[:, 1] != b[:, 1]).any():
        raise UserError("compare: the masks of the two runs differ; were they evaluated on the same data set?")

    images = len(a)
    times = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=samples)
    differences = _resampled(a, times) - _resampled(b, times)
    # A class of few images is missing from some samples; those say nothing of it.
    occurs = ~np.isnan(differences).all(axis=0)
    low, high = np.full((2, differences.shape[1]), np.nan)
    tail = 50 * (1 - LEVEL)
    low[occurs], high[occurs] = np.nanpercentile(differences[:, occurs], (tail, 100 - tail), axis=0)
    first_iou, second_iou = (_with_mean(counts.sum(axis=0)) for counts in (a, b))
    return Comparison((*first.class_names, "mean IoU"), first_iou, second_iou, low, high, images, after_crf)


def counts_of_run(
    model_dir: str | pathlib.Path, needed: Callable[[ImageCounts], bool], evaluate_it: Callable[[], ImageCounts]
) -> ImageCounts:
    """The counts of another run: from its last evaluation if that is newer than its checkpoint and has what is needed.

    Args:
        model_dir: folder of the run.
        needed: whether counts have what the comparison needs.
        evaluate_it: evaluates the run, where they do not.
    """
    path = pathlib.Path(model_dir).expanduser() / IMAGE_COUNTS_FILE
    checkpoint = tf.train.latest_checkpoint(str(path.parent / CHECKPOINTS))
    if path.is_file() and checkpoint and path.stat().st_mtime >= os.path.getmtime(f"{checkpoint}.index"):
        counts = ImageCounts.load(path)
        if needed(counts):
            return counts
    return evaluate_it()


def _resampled(counts: np.ndarray, times: np.ndarray) -> np.ndarray:
    """IoU by class and mean, float64 [S, C + 1], of counts [N, 3, C] with each image taken `times` [S, N]."""
    images, _, classes = counts.shape
    summed = times.astype(np.float64) @ counts.reshape(images, -1).astype(np.float64)
    return _with_mean(summed.reshape(-1, 3, classes))


def _with_mean(counts: np.ndarray) -> np.ndarray:
    """IoU by class, then their mean: [..., 3, C] -> [..., C + 1]."""
    return np.concatenate([iou(counts), mean_iou(counts)[..., np.newaxis]], axis=-1)
