"""The interval of a mean IoU, and whether a change between two evaluations of the same images is more than noise."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from deeplab_tf.counts import ImageCounts, iou, mean_iou
from deeplab_tf.errors import UserError

SAMPLES = 2_000
LEVEL = 0.95
_ENDS = (50 * (1 - LEVEL), 50 * (1 + LEVEL))  # percentiles
# The bootstrap knows the images only by its sample: below this many its intervals are too narrow to be trusted.
FEWEST_IMAGES = 20


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The IoU of two evaluations of the same images, in [0, 1]; rows are the C classes, then their mean.

    Attributes:
        names: C + 1 names.
        first: IoU of this evaluation, float64 [C + 1]; NaN where a class does not occur.
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
        """Whether the interval excludes 0, bool [C + 1]; nowhere with fewer than `FEWEST_IMAGES` images."""
        return ((self.low > 0) | (self.high < 0)) & (self.images >= FEWEST_IMAGES)

    def table(self, first_name: str, second_name: str) -> str:
        """The comparison as text, in percent; a `significant` change is marked "better" or "worse"."""
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
        stage = "after the CRF" if self.after_crf else "of the network alone"
        lines.append(f"\nthis: {first_name}; other: {second_name}; labels {stage}, {self.images} images, interval by")
        lines.append(f"bootstrap over images ({SAMPLES} samples); without a verdict the change may be noise")
        if self.images < FEWEST_IMAGES:
            lines.append(f"no verdicts: {self.images} images are too few, they need {FEWEST_IMAGES}")
        return "\n".join(line.rstrip() for line in lines)


def compare(first: ImageCounts, second: ImageCounts, *, samples: int = SAMPLES, seed: int = 0) -> Comparison:
    """Compares two evaluations by the images of the first, which the second must have too.

    The interval is that of the percentiles of `samples` resamplings of the images, with replacement; both evaluations
    get the same images each time, so what is hard for both does not widen it (a paired bootstrap).

    Args:
        first: counts of one evaluation.
        second: counts of the other. After the CRF both are compared when both have one.
        samples: number of resamplings.
        seed: of the resamplings.

    Raises:
        UserError: they differ in classes, images, or truths.
    """
    check_comparable(first, second)
    place = {name: i for i, name in enumerate(second.filenames)}
    after_crf = first.crf is not None and second.crf is not None
    a, b = (counts.crf if after_crf else counts.network for counts in (first, second))
    b = b[[place[name] for name in first.filenames]]

    differences = _sampled(a, b, samples, seed)
    # A class of few images is missing from some samples; those say nothing of it.
    occurs = ~np.isnan(differences).all(axis=0)
    low, high = np.full((2, differences.shape[1]), np.nan)
    low[occurs], high[occurs] = np.nanpercentile(differences[:, occurs], _ENDS, axis=0)
    first_iou, second_iou = (_with_mean(counts.sum(axis=0)) for counts in (a, b))
    return Comparison((*first.class_names, "mean IoU"), first_iou, second_iou, low, high, len(a), after_crf)


def mean_iou_interval(
    counts: np.ndarray, *, before: np.ndarray | None = None, samples: int = SAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """The ends of the interval of a mean IoU that the choice of the images leaves open, by bootstrap over them.

    Args:
        counts: int64 [N, 3, C], of `ImageCounts`.
        before: those of other labels of the same images; the interval is that of the change since.
        samples: number of resamplings.
        seed: of the resamplings.

    Returns:
        None where there are fewer than `FEWEST_IMAGES` images, or nothing was counted.
    """
    if len(counts) < FEWEST_IMAGES or np.isnan(mean_iou(counts.sum(axis=0))):
        return None
    return tuple(map(float, np.nanpercentile(_sampled(counts, before, samples, seed)[:, -1], _ENDS)))


def check_classes(run: Sequence[str], other: Sequence[str], name: str) -> None:
    """Refuses to score or to compare classes as those of another list.

    Args:
        run: names of the classes of the run.
        other: names of the others.
        name: whose the others are, for the message, such as "--dataset=voc2012".

    Raises:
        UserError: the names differ, or their order.
    """
    if tuple(run) == tuple(other):
        return
    if len(run) != len(other):
        found = f"{len(other)} classes, the run has {len(run)}"
    else:
        number = next(i for i, (a, b) in enumerate(zip(run, other, strict=True)) if a != b)
        found = f"{other[number]!r} as class {number}, the run has {run[number]!r}"
    raise UserError(f"{name} has different classes: found {found}; expected the same classes in the same order")


def check_comparable(first: ImageCounts, second: ImageCounts) -> None:
    """Refuses counts that are not of the same classes, images and truths.

    Raises:
        UserError: they differ; or the second lacks an image of the first.
    """
    if first.class_names != second.class_names:
        raise UserError(f"compare: different classes: {', '.join(first.class_names)}; {', '.join(second.class_names)}")
    place = {name: i for i, name in enumerate(second.filenames)}
    missing = [name for name in first.filenames if name not in place]
    if missing or not first.filenames:
        found = f"{missing[0]} is missing from the other" if missing else "there are none"
        raise UserError(f"compare: the evaluations must be of the same images; {found}")
    others = second.network[[place[name] for name in first.filenames]]
    if (first.network[:, 1] != others[:, 1]).any():
        raise UserError("compare: the true masks of the two evaluations differ: they are of different data")


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The entries of two `Evaluation.made_with` that differ, by name: (of the first, of the second)."""
    return {
        name: (first.get(name), second.get(name)) for name in {**first, **second} if first.get(name) != second.get(name)
    }


def _resamplings(images: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Counts of each image in each resampling, int64 [S, images]: a hundred at a time, for images may be many."""
    random = np.random.default_rng(seed)
    for start in range(0, samples, 100):
        yield random.multinomial(images, np.full(images, 1 / images), size=min(100, samples - start))


def _sampled(counts: np.ndarray, before: np.ndarray | None, samples: int, seed: int) -> np.ndarray:
    """IoU of all resamplings, less that of `before` where it is given, float64 [samples, C + 1]."""
    return np.concatenate(
        [
            _resampled(counts, times) - (0 if before is None else _resampled(before, times))
            for times in _resamplings(len(counts), samples, seed)
        ]
    )


def _resampled(counts: np.ndarray, times: np.ndarray) -> np.ndarray:
    """IoU by class and mean, float64 [S, C + 1], of counts [N, 3, C] with each image taken `times` [S, N]."""
    images, _, classes = counts.shape
    summed = times.astype(np.float64) @ counts.reshape(images, -1).astype(np.float64)
    return _with_mean(summed.reshape(-1, 3, classes))


def _with_mean(counts: np.ndarray) -> np.ndarray:
    """IoU by class, then their mean: [..., 3, C] -> [..., C + 1]."""
    return np.concatenate([iou(counts), mean_iou(counts)[..., np.newaxis]], axis=-1)
