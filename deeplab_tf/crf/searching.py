"""Cross-validation of the CRF's parameters, coarse to fine (Sec. 4.1 of the paper, "CRF").

The weight and the standard deviations of the first kernel are searched; those of the second are fixed at 3 and 3. A
lattice depends on the standard deviations only: all weights share it, and are computed together, lane by lane. One
image is refined with several pairs of standard deviations at the same time, on a core each.
"""

import concurrent.futures
import dataclasses
import hashlib
import itertools
import logging
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tqdm

from deeplab_tf.classes import IGNORE_LABEL
from deeplab_tf.compiling import kernel
from deeplab_tf.counts import mean_iou
from deeplab_tf.crf.check import check_axes, check_guide, check_probabilities
from deeplab_tf.crf.dense_crf import DenseCRF
from deeplab_tf.crf.features import bilateral_features, spatial_features
from deeplab_tf.crf.lattice import Lattice
from deeplab_tf.crf.mean_field import MeanField, Potential, Unaries, together
from deeplab_tf.crf.search_result import SearchResult, Trial, searched
from deeplab_tf.errors import UserError
from deeplab_tf.files import written_aside
from deeplab_tf.parallel import available_cores

# The coarse grid of the paper: w1, sigma_alpha, sigma_beta.
WEIGHTS = (3.0, 4.0, 5.0, 6.0)
SPATIAL_STDS = (30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0)
COLOR_STDS = (3.0, 4.0, 5.0, 6.0)
# The stages after the coarse one: steps around the best so far, in steps of the coarse grid. Whole ones lead on from a
# best at the edge of the grid; the finer ones together reach every tenth.
_STEPS = {f"beyond{turn}": 1.0 for turn in range(1, 11)} | {"fine1": 0.5, "fine2": 0.2, "fine3": 0.1}
_SEARCHED = ("bilateral_weight", "bilateral_spatial_std", "bilateral_color_std")

_log = logging.getLogger(__name__)

Sample = tuple[np.ndarray, np.ndarray, np.ndarray]


def search(
    samples: Sequence[Sample],
    num_classes: int,
    *,
    ignore_label: int = IGNORE_LABEL,
    weights: Sequence[float] = WEIGHTS,
    spatial_stds: Sequence[float] = SPATIAL_STDS,
    color_stds: Sequence[float] = COLOR_STDS,
    fixed: DenseCRF | None = None,
    fine: bool = True,
    state_dir: str | os.PathLike | None = None,
    identity: str = "",
    threads: int | None = None,
) -> SearchResult:
    """Finds the parameters of the first kernel that give the highest mean IoU.

    First all combinations of `weights`, `spatial_stds` and `color_stds`; from a best at their edge on beyond it, by up
    to ten steps of the grid; then around the best of all so far by a half, a fifth and a tenth of a step. A best value
    at the edge of what was tried gets a warning: the highest mean IoU may lie beyond.

    Args:
        samples: (image uint8 [H, W, 3], probabilities float [H, W, C], label [H, W]); taken by index when needed, once
            per stage, so a sequence may compute them. Other iterables are kept in memory.
        num_classes: C.
        ignore_label: the label of pixels that do not count.
        weights: w1.
        spatial_stds: sigma_alpha, pixels.
        color_stds: sigma_beta, RGB units.
        fixed: where w2, sigma_gamma, the iterations and the class threshold come from; default:
            those of `DenseCRF`.
        fine: whether to look beyond the grid and between its points as well.
        state_dir: folder for what is done already, so that an interrupted search goes on; None keeps nothing.
        identity: names what makes the probabilities, such as a checkpoint; a search of another one starts afresh.
        threads: the cores to use at most; all by default.

    Returns:
        the trials, among them the best one.

    Raises:
        UserError: if there are no samples, or their labels are not of these classes.
    """
    if not isinstance(samples, Sequence):
        samples = list(samples)
    if len(samples) == 0:
        raise UserError("CRF search: there are no samples: the split is empty")
    stages = _Stages(samples, num_classes, ignore_label, fixed or DenseCRF(), state_dir, identity, threads)
    grid = list(itertools.product(map(float, weights), map(float, spatial_stds), map(float, color_stds)))
    without_crf, trials = stages.run("coarse", grid)
    axes = [sorted(map(float, axis)) for axis in (weights, spatial_stds, color_stds)]
    for stage, step in (_STEPS if fine else {}).items():
        around = [_around(value, axis, step) for value, axis in zip(_best(trials), axes, strict=True)]
        tried = {searched(trial.crf) for trial in trials}
        untried = [point for point in itertools.product(*around) if point not in tried]
        if untried:
            trials += stages.run(stage, untried)[1]
    for name, value, values in zip(_SEARCHED, _best(trials), _values(trials), strict=True):
        if len(values) > 1 and value in (values[0], values[-1]):
            _log.warning(
                "CRF search: the best %s, %g, is at the edge of what was tried (%g to %g): search a wider grid",
                *(name, value, values[0], values[-1]),
            )
    return SearchResult(tuple(trials), without_crf)


def _best(trials: list[Trial]) -> tuple[float, float, float]:
    return searched(max(trials, key=lambda trial: trial.mean_iou).crf)


def _values(trials: list[Trial]) -> list[list[float]]:
    """Of each parameter the values that were tried, ascending."""
    return [sorted(set(values)) for values in zip(*(searched(trial.crf) for trial in trials), strict=True)]


def _around(value: float, axis: Sequence[float], step: float) -> tuple[float, ...]:
    """The value, and so many steps of the axis to both sides; the value alone where the axis has one."""
    if len(axis) == 1:
        return (value,)
    step *= float(min(np.diff(axis)))
    return tuple(round(near, 6) for near in (value - step, value, value + step) if near > 0)


@kernel
def class_counts(labels, found, num_classes, ignore_label):
    """Pixels [H, W] of every class that are and were found, that are, and that were found: int64 [3, C]."""
    counts = np.zeros((3, num_classes), np.int64)
    for row in range(labels.shape[0]):
        for column in range(labels.shape[1]):
            label, guess = labels[row, column], found[row, column]
            if label != ignore_label:
                counts[0, label] += label == guess
                counts[1, label] += 1
                counts[2, guess] += 1
    return counts


class _Sample(NamedTuple):
    """A sample, ready to be refined."""

    image: np.ndarray  # [H, W, channels]
    label: np.ndarray  # int64 [H, W]
    best: np.ndarray  # int64 [H, W], the most probable classes as they came
    unaries: Unaries
    spatial: Lattice  # of the second kernel


class _Stages:
    """Runs grids over the samples, and remembers which samples are done."""

    def __init__(self, samples, num_classes, ignore_label, fixed, state_dir, identity, threads):
        self.samples = samples
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.fixed = fixed
        self.state_dir = pathlib.Path(state_dir) if state_dir is not None else None
        self.identity = identity
        self.threads = threads or available_cores()

    def run(self, stage: str, grid: list[tuple[float, float, float]]) -> tuple[float, list[Trial]]:
        """The mean IoU without the CRF, and the trials of a grid of (w1, sigma_alpha, sigma_beta)."""
        counts = np.zeros((len(grid) + 1, 3, self.num_classes), np.int64)
        done = np.zeros(len(self.samples), bool)
        settings = (grid, len(self.samples), self.num_classes, self.ignore_label, self.fixed, self.identity)
        fingerprint = hashlib.sha256(repr(settings).encode()).hexdigest()
        state_file = self.state_dir / f"crf_search_{stage}.npz" if self.state_dir else None
        if state_file and state_file.is_file():
            with np.load(state_file) as state:
                if str(state["fingerprint"]) == fingerprint:
                    counts, done = state["counts"], state["done"]
        pairs = sorted({point[1:] for point in grid})

        def settle(index, unrefined, futures):
            new = np.zeros_like(counts)
            new[-1] = unrefined
            for future in futures:
                for place, found in future.result():
                    new[place] = found
                    progress.update()
            np.add(counts, new, out=counts)
            done[index] = True
            if state_file:
                with written_aside(state_file) as path:
                    np.savez(path, counts=counts, done=done, fingerprint=fingerprint)

        bar = {"total": len(grid) * len(done), "initial": len(grid) * int(done.sum()), "unit": "CRF"}
        with (
            tqdm.tqdm(desc=f"{stage} search", dynamic_ncols=True, leave=False, **bar) as progress,
            concurrent.futures.ThreadPoolExecutor(self.threads) as pool,
        ):
            before = None
            try:
                for index in np.flatnonzero(~done):
                    sample = self._sample(self.samples[index], index)
                    # The cores refine this image while this thread makes the probabilities of the next one.
                    futures = [pool.submit(self._trials, sample, pair, grid) for pair in pairs]
                    unrefined = self._counts(sample, sample.best)
                    if before:
                        settle(*before)
                    before = index, unrefined, futures
                if before:
                    settle(*before)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        trials = [
            Trial(stage, self._crf(point), float(mean_iou(found)))
            for point, found in zip(grid, counts[:-1], strict=True)
        ]
        return float(mean_iou(counts[-1])), trials

    def _crf(self, point) -> DenseCRF:
        return dataclasses.replace(self.fixed, **dict(zip(_SEARCHED, point, strict=True)))

    def _sample(self, sample, index):
        """A sample, checked, and what does not depend on what is searched."""
        image, probabilities, label = (np.asarray(array) for array in sample)
        probabilities, peaks = check_probabilities(probabilities)
        shape = probabilities.shape[:-1]
        image = check_guide(image, shape, self.fixed.bilateral_color_std)
        if probabilities.shape[2] != self.num_classes:
            raise UserError(
                f"CRF search: the probabilities of sample {index} have {probabilities.shape[2]} classes, expected "
                f"{self.num_classes}"
            )
        check_axes(self._crf((1.0, 1.0, 1.0)), label.ndim, image.shape[-1], self.num_classes)
        if label.shape != image.shape[:2]:
            raise UserError(f"CRF search: the label of sample {index} has shape {label.shape}, its image {image.shape}")
        labelled = label[label != self.ignore_label]
        if labelled.size and not 0 <= labelled.min() <= labelled.max() < self.num_classes:
            raise UserError(
                f"CRF search: the label of sample {index} has values up to {labelled.max()}, expected less than "
                f"{self.num_classes}, or {self.ignore_label} for none"
            )
        active = peaks >= min(self.fixed.class_threshold, peaks.max())
        groups = together(np.count_nonzero(active))
        if self.fixed.compatibility is not None:
            active[:], groups = True, 1
        return _Sample(
            image,
            label.astype(np.int64),
            probabilities.argmax(-1),
            Unaries.of_probabilities(probabilities.reshape(-1, self.num_classes), active, groups, threads=1),
            Lattice(spatial_features(shape, self.fixed.spatial_std)),
        )

    def _counts(self, sample, found):
        return class_counts(sample.label, found, self.num_classes, self.ignore_label)

    def _trials(self, sample, pair, grid):
        """The counts of all points of the grid with one pair of standard deviations: [(place in the grid, counts)]."""
        bilateral = Lattice(bilateral_features(sample.image, *pair))
        costs = 1.0 if self.fixed.compatibility is None else np.asarray(self.fixed.compatibility)
        spatial = Potential(sample.spatial, self.fixed.normalization, self.fixed.spatial_weight * costs)
        places = [place for place, point in enumerate(grid) if point[1:] == pair]
        groups = len(sample.unaries.rows.groups)
        results = []
        for first in range(0, len(places), groups):
            some = places[first : first + groups]
            weights = [grid[place][0] for place in some]
            if groups > 1:
                potential, by_crf = Potential(bilateral, self.fixed.normalization, 1.0), weights
            else:
                potential, by_crf = Potential(bilateral, self.fixed.normalization, weights[0] * costs), None
            field = MeanField([potential, spatial], sample.unaries, factors=by_crf)
            for _ in range(int(self.fixed.iterations)):
                field.update()
            found = field.labels_of_all().reshape(-1, *sample.label.shape)
            results += [(place, self._counts(sample, labels)) for place, labels in zip(some, found, strict=True)]
        return results
