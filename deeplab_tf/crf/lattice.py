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
# Pixels that are worth a thread.
_SMALLEST_PART = 1024


def elevation(dimensions: int) -> np.ndarray:
    """The factors by which the features are multiplied before they are embedded (Adams et al., p. 5), float32 [d].

    They are such that splatting, blurring and slicing together have a standard deviation of one feature unit.
    """
    axes = np.arange(dimensions, dtype=np.float64)
    return (np.sqrt(2 / 3) * (dimensions + 1) / np.sqrt((axes + 1) * (axes + 2))).astype(np.float32)


def key_steps(reach: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """The difference of keys between a vertex and its neighbour along each lattice direction.

    Args:
        reach: the length of the range of every feature, [d]; of one that may be negative, twice its largest magnitude.
        order: the features from the most to the least significant in the key.

    Returns:
        int64 [d+1]; the vertex with the coordinates e has the key `steps @ e / (d+1)`.

    Raises:
        UserError: if there are more positions than fit into 63 bits.
    """
    dimensions = len(reach)
    axes = np.arange(dimensions)
    # A feature f_j reaches the position q_j = (j+1)(j+2)/(d+1) times its scaled value. The vertices of its simplex lie
    # at most 2(j+1) away and their neighbours j+1 more: with that margin at both ends no two vertices share a key.
    positions = (axes + 1.0) * (axes + 2) / (dimensions + 1) * elevation(dimensions) * reach
    if not positions.max() < 2**31:
        raise _too_far(reach)
    sizes = [int(size) for size in np.ceil(positions) + 2 * (3 * (axes + 1) + 1)]
    if math.prod(sizes) >= 2**62:
        raise _too_far(reach)
    strides = np.zeros(dimensions, np.int64)
    stride = 1
    for axis in reversed(order):
        strides[axis] = stride
        stride *= sizes[axis]
    # A step along direction k changes q_j by 1 for j >= k, by -(j+1) for j = k-1, and not at all for smaller j.
    changes = np.tril(np.ones((dimensions, dimensions + 1), np.int64))
    changes[axes, axes + 1] = -(axes + 1)
    return strides @ changes


def _too_far(reach):
    return UserError(
        f"dense CRF: the features span {np.max(reach):.3g} standard deviations of a kernel, too many for the lattice: "
        "use larger standard deviations"
    )


def reach_of(features: np.ndarray) -> np.ndarray:
    """The range of every feature, as `key_steps` takes it, for features float32 [d, N].

    Raises:
        UserError: if they are not finite.
    """
    lowest, highest = features.min(axis=1).astype(np.float64), features.max(axis=1).astype(np.float64)
    if not np.isfinite(lowest).all() or not np.isfinite(highest).all():
        raise UserError("dense CRF: the features of a kernel contain values that are not finite (NaN or infinity)")
    return np.where(lowest < 0, 2 * np.maximum(-lowest, highest), highest)


def check_reach(features: np.ndarray) -> None:
    """Refuses what no lattice can hold, for the backends that do not notice; see `reach_of` and `key_steps`."""
    key_steps(reach_of(features), tuple(range(len(features))))


def _key_order(features: np.ndarray, reach: np.ndarray) -> tuple[int, ...]:
    """The features by how little they change from a pixel to the next: what is near in the image is near in memory."""
    some = features[:, : 1 << 14]
    changes = np.abs(np.diff(some, axis=1)).mean(axis=1) if some.shape[1] > 1 else np.zeros(len(features))
    return tuple(int(axis) for axis in np.argsort(changes / np.maximum(reach, 1e-30), kind="stable"))


def _leading(order: tuple[int, ...]) -> int:
    """Number of the first features, at least two, that are the most significant ones of the key; 0: all."""
    for count in range(2, len(order)):
        if set(order[:count]) == set(range(count)):
            return count
    return len(order)


class Part(NamedTuple):
    """A range of pixels, and the range of vertices around them."""

    start: int
    stop: int
    first_vertex: int
    last_vertex: int


class Lattice:
    """The vertices around a set of features, and how pixels and vertices hang together.

    Attributes:
        corners: d+1, the vertices around a pixel.
        simplices: `lattice_kernels.Simplices` of the pixels.
        response: float32 [N], the filter's response where all pixels are one: the row sums of its kernel.
        neighbors: int32 [d+1, M, 2], the vertices before and after every vertex along every direction; M for none.
        gain: what filtered values are multiplied by, so that the kernel is 1 at distance zero (as pydensecrf has it).
        parts: the pixels in one range per thread.
        leading: the directions to blur along first, all at once. Along the others but the first no neighbours lie
            across a cut: they change the less significant features only.
        cuts: int64 [K+1], where ranges of vertices end; None where there are no such directions.
        size: M, the number of vertices.
    """

    def __init__(self, features: np.ndarray, threads: int = 1):
        """Builds the lattice.

        Args:
            features: float [d, N], in units of the kernel's standard deviations.
            threads: the cores to use at most, and the number of parts at most.

        Raises:
            UserError: if the features are not finite, or span too many standard deviations.
        """
        features = np.ascontiguousarray(features, np.float32)
        dimensions, count = features.shape
        pixel_ranges = split(count, threads, _SMALLEST_PART)
        reach = reach_of(features)
        order = _key_order(features, reach)
        steps = key_steps(reach, order)
        # numba compiles for the length of a tuple: that takes seconds, and is for the features of pictures.
        scale = tuple(elevation(dimensions)) if dimensions in (2, 5) else elevation(dimensions)
        self.gain = 1 / (1 + 2.0**-dimensions)
        self.corners = dimensions + 1
        shape = (count, dimensions + 1)
        self.simplices = kernels.Simplices(np.empty(shape, np.int32), np.empty(shape, np.float32))

        # Every core finds the vertices of one part of the image; then they get common names, in key order.
        embedding = kernels.Embedding(features, scale, steps)
        found = run(lambda start, stop: kernels.locate(embedding, self.simplices, start, stop), pixel_ranges, threads)
        keys, names = np.unique(np.concatenate(found), return_inverse=True)
        names = np.split(names.astype(np.int32), np.cumsum([len(part) for part in found])[:-1])
        run(
            lambda part, start, stop: kernels.rename(self.simplices.vertices, names[part], start, stop),
            [(part, *pixels) for part, pixels in enumerate(pixel_ranges)],
            threads,
        )
        self.parts = [
            Part(*pixels, int(part.min()), int(part.max()) + 1)
            for pixels, part in zip(pixel_ranges, names, strict=True)
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
        self.leading = _leading(order)
        cut = self.leading < dimensions
        self.cuts = kernels.find_cuts(self.neighbors[self.leading + 1 :], _CACHED_VERTICES) if cut else None
        self.response = self._response(threads)

    def _response(self, threads):
        masses = np.zeros(self.size + 1, np.float32)

        def splat(part):
            found = np.zeros(part.last_vertex - part.first_vertex, np.float32)
            kernels.splat_ones(self.simplices, found, part.first_vertex, part.start, part.stop)
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
        response = np.empty(len(self.simplices.vertices), np.float32)
        run(
            lambda part: kernels.read_ones(self.simplices, masses, self.gain, response, part.start, part.stop),
            [(part,) for part in self.parts],
            threads,
        )
        return response
