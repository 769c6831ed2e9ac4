"""The mean field of the dense CRF on the CPU: compiled loops over two permutohedral lattices."""

import numpy as np

from deeplab_tf.crf import filtering
from deeplab_tf.crf.gaussian import GaussianFilter, row_layout, zero_rows
from deeplab_tf.crf.lattice import Lattice, bilateral_features, spatial_features
from deeplab_tf.parallel import run, split

# CRFs that can be computed together: a lane must belong to one of them.
_GROUPS = (1, 2, 4, 8)
# Longer rows take as long as several short ones: they are too long for the caches.
_MOST_COLUMNS_TOGETHER = 48


def bilateral_lattice(image: np.ndarray, spatial_std: float, color_std: float, threads: int) -> Lattice:
    """The lattice of the first kernel of the CRF: near in position and in colour."""
    return Lattice(bilateral_features(image, spatial_std, color_std), image.shape[1], threads)


def spatial_lattice(shape: tuple[int, int], spatial_std: float, threads: int) -> Lattice:
    """The lattice of the second kernel of the CRF: near in position."""
    return Lattice(spatial_features(shape, spatial_std), shape[1], threads)


def weights_together(classes: int) -> int:
    """For how many weights of the first kernel at once a `MeanField` of so many classes is fastest."""
    return max(groups for groups in _GROUPS if groups == 1 or groups * classes <= _MOST_COLUMNS_TOGETHER)


class Unaries:
    """The probabilities of one image as the kernels take them.

    Attributes:
        shape: (H, W, C).
        original: float32 [N, C].
        groups, layout: of the kernels; see `filtering.py`.
        columns: int64 [C], the first column of every class in the rows; -1 for a class without one.
        rows: float32 [N, columns].
        rest: float32 [N], the probability of the classes without a column.
        scale: float32 [N], 1 / the sum of all.
    """

    def __init__(self, probabilities: np.ndarray, active: np.ndarray, together: int, threads: int):
        """Lays the probabilities out.

        Args:
            probabilities: float32 [H, W, C].
            active: bool [C], the classes to filter; the messages of the others count as zero.
            together: CRFs to compute together, 8 at the most.
            threads: cores to use at most.
        """
        groups = min(size for size in _GROUPS if size >= together)
        self.shape = probabilities.shape
        self.original = probabilities.reshape(-1, probabilities.shape[2])
        self.groups = (0,) * groups
        self.columns = np.where(active, (np.cumsum(active) - 1) * groups, -1)
        self.layout, columns = row_layout(np.count_nonzero(active) * groups)
        count = len(self.original)
        self.rows = zero_rows(count, columns)
        self.rest, self.scale = np.empty((2, count), np.float32)
        run(
            lambda start, stop: filtering.lay_out(
                self.original, self.columns, self.groups, self.rows, self.rest, self.scale, start, stop
            ),
            split(count, threads),
            threads,
        )


class MeanField:
    """The beliefs about one image, and their update; for several weights of the first kernel at once."""

    def __init__(
        self,
        bilateral: Lattice,
        bilateral_weights: tuple[float, ...],
        spatial: Lattice,
        spatial_weight: float,
        unaries: "Unaries",
        threads: int,
    ):
        """Starts with the probabilities as beliefs.

        Args:
            bilateral: the lattice of the first kernel.
            bilateral_weights: w1; as many as `unaries` were made for, or less.
            spatial: the lattice of the second kernel, with the same parts.
            spatial_weight: w2.
            unaries: of the image; they may be shared.
            threads: cores to use at most.
        """
        columns = unaries.rows.shape[1]
        self._unaries = unaries
        self._threads = threads
        self._bilateral = GaussianFilter(bilateral, columns, threads)
        self._spatial = GaussianFilter(spatial, columns, threads)
        self._count = len(bilateral_weights)
        unused = (bilateral_weights[-1],) * (len(unaries.groups) - self._count)
        self._bilateral_weights = (*bilateral_weights, *unused)
        self._spatial_weights = (spatial_weight,) * len(unaries.groups)
        self._messages = None

    def _over_image_rows(self, kernel, *args):
        width = self._unaries.shape[1]
        pieces = split(self._unaries.shape[0], 4 * self._threads, smallest=8)
        bilateral, spatial = self._messages
        run(
            lambda start, stop: kernel(
                bilateral,
                spatial,
                self._unaries.rows,
                self._unaries.rest,
                *args,
                width,
                self._unaries.groups,
                self._unaries.layout,
                start,
                stop,
            ),
            pieces,
            self._threads,
        )

    def update(self) -> None:
        """One iteration: splats the current beliefs, and blurs them into the messages of the next ones."""
        width = self._unaries.shape[1]
        parts = self._bilateral.lattice.parts
        targets = list(zip(parts, self._bilateral.targets(), self._spatial.targets(), strict=True))
        if self._messages is None:

            def splat(part, *targets):
                for gaussian, (target, first) in zip((self._bilateral, self._spatial), targets, strict=True):
                    lattice = gaussian.lattice
                    filtering.splat(
                        self._unaries.rows,
                        self._unaries.scale,
                        target,
                        first,
                        lattice.vertices,
                        lattice.weights,
                        lattice.corners,
                        self._unaries.layout,
                        part.start,
                        part.stop,
                    )
        else:
            bilateral, spatial = self._messages

            def splat(part, bilateral_target, spatial_target):
                filtering.update(
                    bilateral,
                    spatial,
                    self._unaries.rows,
                    self._unaries.rest,
                    bilateral_target,
                    spatial_target,
                    width,
                    self._unaries.groups,
                    self._unaries.layout,
                    part.start // width,
                    part.stop // width,
                )

        run(splat, targets, self._threads)
        self._messages = (
            self._bilateral.reader(self._bilateral.spread(self._unaries.layout), self._bilateral_weights),
            self._spatial.reader(self._spatial.spread(self._unaries.layout), self._spatial_weights),
        )

    def marginals(self) -> np.ndarray:
        """The current beliefs with the first weight, float32 [H, W, C]."""
        if self._messages is None:
            out = np.maximum(self._unaries.original, filtering.FLOOR) * self._unaries.scale[:, None]
        else:
            out = np.empty_like(self._unaries.original)
            self._over_image_rows(filtering.finish, self._unaries.columns, self._unaries.original, out)
        return out.reshape(self._unaries.shape)

    def labels(self) -> np.ndarray:
        """The most probable classes with the first weight, int32 [H, W]."""
        return self.labels_of_all()[0]

    def labels_of_all(self) -> np.ndarray:
        """The most probable classes with every weight, int32 [weights, H, W]."""
        out = np.empty((len(self._unaries.groups), len(self._unaries.original)), np.int32)
        if self._messages is None:
            out[:] = self._unaries.original.argmax(axis=1)
        else:
            self._over_image_rows(filtering.finish_labels, self._unaries.columns, self._unaries.original, out)
        return out[: self._count].reshape(-1, *self._unaries.shape[:2])

    def scores(self) -> np.ndarray:
        """What the last update took the softmax of with the first weight, log P + messages: float32 [H, W, C]."""
        active = self._unaries.columns >= 0
        rows = np.empty_like(self._unaries.rows)
        out = np.log(np.maximum(self._unaries.original, filtering.FLOOR))
        for reader in self._messages:
            pieces = split(len(rows), self._threads)
            run(
                lambda start, stop, r=reader: filtering.read(*r, rows, self._unaries.layout, start, stop),
                pieces,
                self._threads,
            )
            out[:, active] += rows[:, self._unaries.columns[active]]
        return out.reshape(self._unaries.shape)
