"""The permutohedral lattice: a sparse grid on which a Gaussian filter in many dimensions is cheap.

Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", Eurographics 2010. Every pixel
lies in a simplex of d+1 lattice vertices. Filtering is three sparse linear maps: *splat* the values of the pixels onto
the vertices of their simplices with barycentric weights, *blur* along each of the d+1 lattice directions with weights
1/2, 1, 1/2, and *slice* the values of the vertices back to the pixels.

How the vertices are named. A vertex is written in the paper with d+1 integers that sum to zero and are all congruent
modulo d+1. Its position along feature j, `q_j = (e_0 + ... + e_j - (j+1) e_(j+1)) / (d+1)`, is an integer for every
vertex, and `q` names the vertex uniquely. So a vertex is one 64-bit integer, `sum_j q_j stride_j`; and since that is
linear, a step along a lattice direction adds the same number to every key. With the keys sorted, the neighbours along a
direction are therefore found by walking two sorted lists side by side, and vertices that are near in the image lie near
in memory.
"""

import math
from typing import NamedTuple

import numpy as np

from deeplab_tf.crf import lattice_kernels as kernels
from deeplab_tf.errors import UserError
from deeplab_tf.parallel import run, split

# Vertices that are blurred together: their rows, twice, fit into a core's own cache.
_CACHED_VERTICES = 2048


def elevation(dimensions: int) -> np.ndarray:
    """The factors by which the features are multiplied before they are embedded (Adams et al., p. 5), float32 [d].

    They are such that splatting, blurring and slicing together have a standard deviation of one feature unit.
    """
    axes = np.arange(dimensions, dtype=np.float64)
    return (np.sqrt(2 / 3) * (dimensions + 1) / np.sqrt((axes + 1) * (axes + 2))).astype(np.float32)


def gain(dimensions: int) -> float:
    """What the lattice's result is multiplied by, so that its kernel is 1 at distance zero (as pydensecrf has it)."""
    return 1 / (1 + 2.0**-dimensions)


def key_steps(extent: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """What one step along each lattice direction adds to the key of a vertex.

    Args:
        extent: the largest value of every feature, [d]; the smallest is zero.
        order: the features from the most to the least significant in the key.

    Returns:
        int64 [d+1]; the vertex with the coordinates e has the key `steps @ e / (d+1)`.

    Raises:
        UserError: if there are more positions than fit into 63 bits.
    """
    dimensions = len(extent)
    axes = np.arange(dimensions)
    # A feature f_j reaches the position q_j = (j+1)(j+2)/(d+1) times its scaled value. The vertices of its simplex lie
    # at most 2(j+1) away and their neighbours j+1 more: with that margin at both ends no two vertices share a key.
    reach = (axes + 1.0) * (axes + 2) / (dimensions + 1) * elevation(dimensions) * extent
    if not reach.max() < 2**31:
        raise _too_far(extent)
    sizes = [int(size) for size in np.ceil(reach) + 2 * (3 * (axes + 1) + 1)]
    if math.prod(sizes) >= 2**62:
        raise _too_far(extent)
    strides = np.zeros(dimensions, np.int64)
    stride = 1
    for axis in reversed(order):
        strides[axis] = stride
        stride *= sizes[axis]
    # A step along direction k changes q_j by 1 for j >= k, by -(j+1) for j = k-1, and not at all for smaller j.
    changes = np.tril(np.ones((dimensions, dimensions + 1), np.int64))
    changes[axes, axes + 1] = -(axes + 1)
    return strides @ changes


def _too_far(extent):
    return UserError(
        f"dense CRF: the image spans {np.max(extent):.3g} standard deviations of a kernel, too many for the "
        "lattice: use larger standard deviations"
    )


def spatial_features(shape: tuple[int, int], spatial_std: float) -> np.ndarray:
    """Positions in units of the kernel's standard deviation: float32 [2, H*W], x and y."""
    height, width = shape
    features = np.empty((2, height, width), np.float32)
    features[0] = np.arange(width, dtype=np.float32) / np.float32(spatial_std)
    features[1] = np.arange(height, dtype=np.float32)[:, None] / np.float32(spatial_std)
    return features.reshape(2, -1)


def bilateral_features(image: np.ndarray, spatial_std: float, color_std: float) -> np.ndarray:
    """Positions and colours in units of their standard deviations: float32 [5, H*W], x, y, R, G and B."""
    colors = image.reshape(-1, 3).T / np.float32(color_std)
    return np.concatenate([spatial_features(image.shape[:2], spatial_std), colors])


def check_reach(image: np.ndarray, parameters) -> None:
    """Refuses what no lattice can hold, for the engines that do not notice.

    Args:
        image: uint8 [H, W, 3].
        parameters: a `DenseCRF`.

    Raises:
        UserError: if the image spans too many standard deviations.
    """
    size = np.array(image.shape[1::-1]) - 1.0
    color_extent = image.reshape(-1, 3).max(axis=0) / parameters.bilateral_color_std
    key_steps(np.concatenate([size / parameters.bilateral_spatial_std, color_extent]), (1, 0, 2, 3, 4))
    key_steps(size / parameters.spatial_std, (1, 0))


class Part(NamedTuple):
    """A range of pixels, and the range of vertices around them."""

    start: int
    stop: int
    first_vertex: int
    last_vertex: int


class Lattice:
    """The vertices around a set of features, and how pixels and vertices hang together.

    Attributes:
        vertices: int32 [N, d+1], the vertices of the simplex around every pixel.
        weights: float32 [N, d+1], their barycentric weights, divided by the square root of the filter's response to one
            at the pixel: the symmetric normalisation (as pydensecrf).
        corners: a tuple of d+1 zeros, which tells the kernels d at compile time.
        neighbors: int32 [d+1, M, 2], the vertices before and after every vertex along every direction; M for none.
        gain: what filtered values are multiplied by, to make up for the gain of the blur (as pydensecrf).
        parts: the pixels in one range per thread.
        cuts: int64 [K+1], with colours: where ranges of vertices end that the last three directions do not leave, which
            change the colour only.
        size: M, the number of vertices.
    """

    def __init__(self, features: np.ndarray, width: int, threads: int = 1):
        """Builds the lattice.

        Args:
            features: float32 [d, N], none negative; x and y first.
            width: the pixels in an image row.
            threads: the cores to use, and the number of parts at most.
        """
        dimensions, count = features.shape
        # Keys by y, then x, then colour: what is near in the image is near in memory.
        steps = key_steps(features.max(axis=1), (1, 0, *range(2, dimensions)))
        scale = tuple(elevation(dimensions))
        features = np.pad(features, ((0, 0), (0, kernels.LANES)))
        self.gain = 1 / (1 + 2.0**-dimensions)
        self.corners = (0,) * (dimensions + 1)
        self.vertices = np.empty((count, dimensions + 1), np.int32)
        self.weights = np.empty((count, dimensions + 1), np.float32)

        # Every core finds the vertices of one part of the image; then they get common names, in key order.
        ranges = [(start * width, stop * width) for start, stop in split(count // width, threads, smallest=16)]
        found = run(
            lambda start, stop: kernels.locate(features, scale, steps, self.vertices, self.weights, start, stop),
            ranges,
            threads,
        )
        keys, names = np.unique(np.concatenate(found), return_inverse=True)
        names = np.split(names.astype(np.int32), np.cumsum([len(part) for part in found])[:-1])
        run(
            lambda part, start, stop: kernels.rename(self.vertices, names[part], start, stop),
            [(part, *pixels) for part, pixels in enumerate(ranges)],
            threads,
        )
        self.parts = [
            Part(*pixels, int(part.min()), int(part.max()) + 1) for pixels, part in zip(ranges, names, strict=True)
        ]
        self.size = len(keys)
        self.neighbors = np.full((dimensions + 1, self.size, 2), self.size, np.int32)
        pieces = split(self.size, 4 * threads)
        run(
            lambda direction, start, stop: kernels.find_neighbors(
                keys, steps[direction], self.neighbors[direction], start, stop
            ),
            [(direction, *piece) for direction in range(dimensions + 1) for piece in pieces],
            threads,
        )
        self.cuts = kernels.find_cuts(self.neighbors[3:], _CACHED_VERTICES) if dimensions == 5 else None
        self._normalize(threads)

    def _normalize(self, threads):
        masses = np.zeros(self.size + 1, np.float32)

        def splat(part):
            found = np.zeros(part.last_vertex - part.first_vertex, np.float32)
            kernels.splat_ones(self.vertices, self.weights, found, part.first_vertex, part.start, part.stop)
            return found

        for part, found in zip(self.parts, run(splat, [(part,) for part in self.parts], threads), strict=True):
            masses[part.first_vertex : part.last_vertex] += found
        blurred = np.zeros_like(masses)
        pieces = split(self.size, 4 * threads)
        for neighbors in self.neighbors:
            run(
                lambda start, stop, *arrays: kernels.blur_ones(*arrays, start, stop),
                [(*piece, masses, neighbors, blurred) for piece in pieces],
                threads,
            )
            masses, blurred = blurred, masses
        run(
            lambda part: kernels.normalize(self.vertices, self.weights, masses, self.gain, part.start, part.stop),
            [(part,) for part in self.parts],
            threads,
        )
