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

import numpy as np

from deeplab_tf.crf import lattice_kernels as kernels
from deeplab_tf.crf.compiling import run, split
from deeplab_tf.errors import UserError


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
    # A feature f_j reaches the position q_j = (j+1)(j+2)/(d+1) times its scaled value. The vertices of its simplex lie at
    # most 2(j+1) away and their neighbours j+1 more: with that margin at both ends no two vertices share a key.
    reach = (axes + 1.0) * (axes + 2) / (dimensions + 1) * elevation(dimensions) * extent
    sizes = [int(size) for size in np.ceil(reach) + 2 * (3 * (axes + 1) + 1)]
    if math.prod(sizes) >= 2**62:
        raise UserError(
            f"dense CRF: the image spans {np.max(extent):.3g} standard deviations of a kernel, too many for the lattice: "
            "use larger standard deviations"
        )
    strides = np.zeros(dimensions, np.int64)
    stride = 1
    for axis in reversed(order):
        strides[axis] = stride
        stride *= sizes[axis]
    # A step along direction k changes q_j by 1 for j >= k, by -(j+1) for j = k-1, and not at all for smaller j.
    changes = np.tril(np.ones((dimensions, dimensions + 1), np.int64))
    changes[axes, axes + 1] = -(axes + 1)
    return strides @ changes


def spatial_features(shape: tuple[int, int], spatial_std: float) -> np.ndarray:
    """Positions in units of the spatial kernel's standard deviation: float32 [H*W, 2] of (x, y)."""
    height, width = shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([x.ravel() / np.float32(spatial_std), y.ravel() / np.float32(spatial_std)], axis=1)


def bilateral_features(image: np.ndarray, spatial_std: float, color_std: float) -> np.ndarray:
    """Positions and colours in units of their standard deviations: float32 [H*W, 5] of (x, y, R, G, B)."""
    colors = image.reshape(-1, 3).astype(np.float32) / np.float32(color_std)
    return np.concatenate([spatial_features(image.shape[:2], spatial_std), colors], axis=1)


class Lattice:
    """The vertices around a set of features, and how pixels and vertices hang together.

    Attributes:
        vertices: int32 [N, d+1], the vertices of the simplex around every pixel.
        weights: float32 [N, d+1], their barycentric weights.
        starts: int32 [M+1], where the pixels of every vertex start in `pixels` and `splat_weights`.
        pixels: int32 [N*(d+1)], the pixels that every vertex gathers from.
        splat_weights: float32 [N*(d+1)], their barycentric weights, times `norms`.
        neighbors: int32 [d+1, M, 2], the two neighbours of every vertex along every direction; M where there is none.
        norms: float32 [N], 1/sqrt(the filter's response to one): the symmetric normalisation (as pydensecrf).
    """

    def __init__(self, features: np.ndarray, order: tuple[int, ...], threads: int = 1):
        """Args: features: float32 [N, d], none negative; order: of the features in the keys, major to minor."""
        count, dimensions = features.shape
        steps = key_steps(features.max(axis=0), order)
        scale = tuple(elevation(dimensions))
        self.gain = 1 / (1 + 2.0**-dimensions)  # as pydensecrf: makes up for the blur's gain
        self.threads = threads

        # Every core finds the vertices of one part of the image; then they get common names, in the order of their keys.
        self.vertices = np.empty((count, dimensions + 1), np.int32)
        self.weights = np.empty((count, dimensions + 1), np.float32)
        parts = split(count, threads, smallest=32768)
        found = run(
            lambda start, stop: kernels.locate(features, scale, steps, self.vertices, self.weights, start, stop),
            parts,
            threads,
        )
        keys, names = np.unique(np.concatenate(found), return_inverse=True)
        names = np.split(names.astype(np.int32), np.cumsum([len(part) for part in found])[:-1])
        self._gather_lists(len(keys), names, parts)

        self.neighbors = np.empty((dimensions + 1, len(keys), 2), np.int32)
        for direction, step in enumerate(steps):
            self._over_vertices(kernels.find_neighbors, keys, step, self.neighbors[direction])
        self._normalize()

    @property
    def size(self) -> int:
        """The number of vertices."""
        return len(self.starts) - 1

    def _over_vertices(self, kernel, *args):
        run(lambda start, stop: kernel(*args, start, stop), split(self.size, 4 * self.threads), self.threads)

    def _over_pixels(self, kernel, *args):
        run(lambda start, stop: kernel(*args, start, stop), split(len(self.vertices), 4 * self.threads), self.threads)

    def _gather_lists(self, size, names, parts):
        """Sorts the pixels by vertex: a counting sort in which every part of the image has its own places."""
        counts = np.zeros((len(parts), size), np.int32)
        numbered = [(part, *part_range) for part, part_range in enumerate(parts)]
        run(
            lambda part, start, stop: kernels.rename(self.vertices, names[part], counts[part], start, stop),
            numbered,
            self.threads,
        )
        self.starts = np.zeros(size + 1, np.int32)
        np.cumsum(counts.sum(axis=0), out=self.starts[1:])
        places = np.cumsum(counts, axis=0, dtype=np.int32) - counts + self.starts[:-1]
        self.pixels = np.empty(self.vertices.size, np.int32)
        self.splat_weights = np.empty(self.vertices.size, np.float32)
        run(
            lambda part, start, stop: kernels.transpose(
                self.vertices, self.weights, places[part], self.pixels, self.splat_weights, start, stop
            ),
            numbered,
            self.threads,
        )

    def _normalize(self):
        """Computes the norms, and multiplies the splat weights by them."""
        masses, blurred = np.zeros((2, self.size + 1), np.float32)
        self._over_vertices(kernels.mass, self.starts, self.splat_weights, masses)
        for neighbors in self.neighbors:
            self._over_vertices(kernels.blur_mass, masses, neighbors, blurred)
            masses, blurred = blurred, masses
        self.norms = np.empty(len(self.vertices), np.float32)
        self._over_pixels(kernels.symmetric_norm, self.vertices, self.weights, masses, self.gain, self.norms)
        pieces = split(self.pixels.size, 4 * self.threads)
        run(
            lambda start, stop: kernels.scale_by_pixel(self.splat_weights, self.pixels, self.norms, start, stop),
            pieces,
            self.threads,
        )
