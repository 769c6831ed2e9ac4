"""The mean field of the dense CRF on the CPU: compiled loops over two permutohedral lattices."""

import numpy as np

from deeplab_tf.crf import filtering
from deeplab_tf.crf.compiling import run, split
from deeplab_tf.crf.lattice import Lattice, bilateral_features, spatial_features

# Registers of classes that a kernel works on at a time, at most: the rows of wider arrays are taken in pieces. Every
# number from 1 to here is compiled once.
_MOST_BLOCKS = 4


def _blocks(classes: int) -> tuple[tuple[int, ...], int]:
    """The `blocks` argument of the kernels for so many classes, and the number of columns of the rows."""
    registers = -(-classes // filtering.LANES)
    pieces = -(-registers // _MOST_BLOCKS)
    blocks = -(-registers // pieces)
    return (0,) * blocks, pieces * blocks * filtering.LANES


class GaussianFilter:
    """A normalised Gaussian filter of the pixels of one image: D^(-1/2) K D^(-1/2), D the row sums of K."""

    def __init__(self, features: np.ndarray, order: tuple[int, ...], threads: int):
        """Args: features, order, threads: of `Lattice`."""
        self.lattice = Lattice(features, order, threads)
        self.threads = threads
        self._values = self._spare = np.empty((0, 0), np.float32)

    def spread(self, beliefs: np.ndarray, blocks: tuple[int, ...]) -> np.ndarray:
        """Splats and blurs rows: float32 [N, columns] -> [M+1, columns], valid until the next call."""
        lattice, threads = self.lattice, self.threads
        if self._values.shape[1] != beliefs.shape[1]:
            self._values, self._spare = np.zeros((2, lattice.size + 1, beliefs.shape[1]), np.float32)
        values, spare = self._values, self._spare
        pieces = split(lattice.size, 4 * threads)
        run(
            lambda start, stop: filtering.splat(
                beliefs, lattice.starts, lattice.pixels, lattice.splat_weights, values, blocks, start, stop
            ),
            pieces,
            threads,
        )
        for neighbors in lattice.neighbors:
            run(
                lambda start, stop, *arrays: filtering.blur(*arrays, blocks, start, stop),
                [(start, stop, values, neighbors, spare) for start, stop in pieces],
                threads,
            )
            values, spare = spare, values
        self._values, self._spare = values, spare
        return values

    def reader(self, values: np.ndarray, weight: float) -> tuple:
        """What the kernels need to read `weight` times the filtered rows off the lattice."""
        lattice = self.lattice
        return values, lattice.vertices, lattice.weights, lattice.norms, np.float32(weight * lattice.gain)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Filters float32 [N, C] over the pixels."""
        count, classes = values.shape
        blocks, columns = _blocks(classes)
        rows = np.zeros((count, columns), np.float32)
        rows[:, :classes] = values
        filtering.slice_rows(*self.reader(self.spread(rows, blocks), 1.0), rows, blocks, 0, count)
        return rows[:, :classes].copy()


def bilateral_filter(image: np.ndarray, spatial_std: float, color_std: float, threads: int) -> GaussianFilter:
    """The first kernel of the CRF: near in position and in colour."""
    # Keys by y, then x, then colour: vertices that are near in the image lie near in memory.
    return GaussianFilter(bilateral_features(image, spatial_std, color_std), (1, 0, 2, 3, 4), threads)


def spatial_filter(shape: tuple[int, int], spatial_std: float, threads: int) -> GaussianFilter:
    """The second kernel of the CRF: near in position."""
    return GaussianFilter(spatial_features(shape, spatial_std), (1, 0), threads)


class MeanField:
    """The beliefs about one image, and their update."""

    def __init__(
        self,
        bilateral: GaussianFilter,
        bilateral_weight: float,
        spatial: GaussianFilter,
        spatial_weight: float,
        probabilities: np.ndarray,
        active: np.ndarray,
        threads: int,
    ):
        """Starts with the probabilities as beliefs.

        Args:
            bilateral: the filter of the first kernel.
            bilateral_weight: w1.
            spatial: the filter of the second kernel.
            spatial_weight: w2.
            probabilities: float32 [H, W, C], positive.
            active: bool [C], the classes to filter; the messages of the others count as zero.
            threads: cores to use at most.
        """
        self._bilateral, self._bilateral_weight = bilateral, bilateral_weight
        self._spatial, self._spatial_weight = spatial, spatial_weight
        self._shape = probabilities.shape
        self._input = probabilities.reshape(-1, probabilities.shape[2])
        # Where every class has its column in the rows; -1 for a class without one.
        self._columns = np.where(active, np.cumsum(active) - 1, -1)
        self._blocks, columns = _blocks(np.count_nonzero(active))
        self._threads = threads
        self._probabilities, self._beliefs = np.zeros((2, len(self._input), columns), np.float32)
        self._rest, self._rest_scale = np.zeros((2, len(self._input)), np.float32)
        self._over_pixels(
            filtering.start,
            self._input,
            self._columns,
            self._probabilities,
            self._beliefs,
            self._rest,
            self._rest_scale,
        )

    def _over_pixels(self, kernel, *args):
        run(lambda start, stop: kernel(*args, start, stop), split(len(self._beliefs), 4 * self._threads), self._threads)

    def update(self) -> None:
        """One iteration: both messages from the current beliefs, then the new beliefs."""
        self._read_bilateral = self._bilateral.reader(
            self._bilateral.spread(self._beliefs, self._blocks), self._bilateral_weight
        )
        self._read_spatial = self._spatial.reader(
            self._spatial.spread(self._beliefs, self._blocks), self._spatial_weight
        )
        self._over_pixels(
            filtering.update,
            self._read_bilateral,
            self._read_spatial,
            self._probabilities,
            self._rest,
            self._rest_scale,
            self._beliefs,
            self._blocks,
        )

    def marginals(self) -> np.ndarray:
        """The current beliefs, float32 [H, W, C]."""
        out = np.empty_like(self._input)
        self._over_pixels(filtering.expand, self._beliefs, self._columns, self._input, self._rest_scale, out)
        return out.reshape(self._shape)

    def scores(self) -> np.ndarray:
        """What the last update took the softmax of, log P + messages: float32 [H, W, C]."""
        rows = np.empty_like(self._beliefs)
        out = np.log(np.maximum(self._input, filtering.FLOOR))
        for reader in (self._read_bilateral, self._read_spatial):
            self._over_pixels(filtering.slice_rows, *reader, rows, self._blocks)
            out[:, self._columns >= 0] += rows[:, : np.count_nonzero(self._columns >= 0)]
        return out.reshape(self._shape)
