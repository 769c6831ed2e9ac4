"""The mean field of the dense CRF on the CPU: compiled loops over two permutohedral lattices."""

import numpy as np

from deeplab_tf.crf import filtering
from deeplab_tf.crf.compiling import run, split
from deeplab_tf.crf.lattice import Lattice, bilateral_features, spatial_features

# CRFs that can be computed together: a lane must belong to one of them.
_GROUPS = (1, 2, 4, 8)
# Longer rows take as long as several short ones: they are too long for the caches.
_MOST_COLUMNS_TOGETHER = 48
# Registers of classes that a kernel works on at a time, at most: wider rows are taken in pieces.
_MOST_REGISTERS = 4


def _layout(values: int) -> tuple[tuple[tuple[int, ...], ...], int]:
    """The `layout` argument of the kernels for rows of so many values, and the number of their columns."""
    registers = -(-values // filtering.LANES)
    pieces = -(-registers // _MOST_REGISTERS)
    registers = -(-registers // pieces)
    return ((0,) * registers,) * pieces, pieces * registers * filtering.LANES


def _zero_rows(count: int, columns: int) -> np.ndarray:
    """Rows of zeros, float32 [count, columns], that start on a cache line."""
    memory = np.zeros(count * columns + 16, np.float32)
    first = -memory.ctypes.data % 64 // 4
    return memory[first : first + count * columns].reshape(count, columns)


class GaussianFilter:
    """A Gaussian filter of the pixels of one image, normalised as D^(-1/2) K D^(-1/2), D the row sums of K.

    Values of all classes go in by `targets` (a kernel splats onto them) and come out by `spread` (a kernel reads).
    """

    def __init__(self, lattice: Lattice, columns: int, threads: int):
        """Args: lattice; columns: of the rows that are filtered; threads: cores to use at most."""
        self.lattice = lattice
        self._threads = threads
        self._values = _zero_rows(lattice.size + 1, columns)
        self._spare = _zero_rows(lattice.size + 1, columns)
        sizes = [part.last_vertex - part.first_vertex for part in lattice.parts]
        self._offsets = np.cumsum([0, *sizes])
        self._firsts = np.array([part.first_vertex for part in lattice.parts])
        self._parts = _zero_rows(self._offsets[-1], columns) if len(sizes) > 1 else None

    def targets(self) -> list[tuple[np.ndarray, int]]:
        """For every part of the lattice, rows of zeros to splat on and the vertex of the first."""
        if self._parts is None:
            self._spare[:] = 0
            return [(self._spare, 0)]
        edges = zip(self._offsets[:-1], self._offsets[1:], strict=True)
        return [(self._parts[start:stop], first) for (start, stop), first in zip(edges, self._firsts, strict=True)]

    def spread(self, layout: tuple) -> np.ndarray:
        """Blurs what was splatted on the targets: float32 [M+1, columns], valid until the next call."""
        lattice, threads = self.lattice, self._threads
        pieces = split(lattice.size, 4 * threads)
        if self._parts is not None:
            run(
                lambda start, stop: filtering.collect(
                    self._parts, self._firsts, self._offsets, self._spare, layout, start, stop
                ),
                pieces,
                threads,
            )
        values, spare = self._spare, self._values
        across = 2 if lattice.cuts is not None else len(lattice.neighbors)
        for neighbors in lattice.neighbors[:across]:
            run(
                lambda start, stop, *arrays: filtering.blur(*arrays, layout, start, stop),
                [(*piece, values, neighbors, spare) for piece in pieces],
                threads,
            )
            values, spare = spare, values
        if lattice.cuts is not None:
            within = lattice.neighbors[across:]
            run(
                lambda start, stop: filtering.blur_four(values, within, spare, lattice.cuts, layout, start, stop),
                split(len(lattice.cuts) - 1, 4 * threads, smallest=1),
                threads,
            )
            values, spare = spare, values
        self._values, self._spare = values, spare
        return values

    def reader(self, values: np.ndarray, weights: tuple[float, ...]) -> tuple:
        """What the kernels need to read the filtered rows, times the weight of every group."""
        factors = np.tile(np.float32(np.multiply(weights, self.lattice.gain)), filtering.LANES // len(weights))
        return (
            values,
            self.lattice.vertices,
            self.lattice.weights,
            self.lattice.corners,
            factors[None],
        )


def filtered(lattice: Lattice, values: np.ndarray) -> np.ndarray:
    """Filters values of the pixels, float32 [N, C], with the normalised Gaussian kernel of a lattice."""
    count, classes = values.shape
    layout, columns = _layout(classes)
    gaussian = GaussianFilter(lattice, columns, 1)
    rows = _zero_rows(count, columns)
    rows[:, :classes] = values
    for part, (target, first) in zip(lattice.parts, gaussian.targets(), strict=True):
        filtering.splat(
            rows,
            np.ones(count, np.float32),
            target,
            first,
            lattice.vertices,
            lattice.weights,
            lattice.corners,
            layout,
            part.start,
            part.stop,
        )
    filtering.read(*gaussian.reader(gaussian.spread(layout), (1.0,)), rows, layout, 0, count)
    return rows[:, :classes].copy()


def bilateral_lattice(image: np.ndarray, spatial_std: float, color_std: float, threads: int) -> Lattice:
    """The lattice of the first kernel of the CRF: near in position and in colour."""
    return Lattice(bilateral_features(image, spatial_std, color_std), image.shape[1], threads)


def spatial_lattice(shape: tuple[int, int], spatial_std: float, threads: int) -> Lattice:
    """The lattice of the second kernel of the CRF: near in position."""
    return Lattice(spatial_features(shape, spatial_std), shape[1], threads)


def weights_together(classes: int) -> int:
    """For how many weights of the first kernel at once a `MeanField` of so many classes is fastest."""
    return max(groups for groups in _GROUPS if groups == 1 or groups * classes <= _MOST_COLUMNS_TOGETHER)


def unary_energy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The sum over all pixels of -log P of their label; float32 [H, W, C] and integers [H, W]."""
    of_label = np.take_along_axis(probabilities, labels[..., None], axis=-1)
    return float(-np.log(np.maximum(of_label, filtering.FLOOR)).sum(dtype=np.float64))


def pairwise_energy(lattice: Lattice, labels: np.ndarray) -> float:
    """The sum of the normalised kernel over all pairs of pixels of different labels; integers [H, W]."""
    found, labels = np.unique(labels.ravel(), return_inverse=True)
    near = filtered(lattice, (labels[:, None] == np.arange(len(found))).astype(np.float32))
    # Row i of `near` is what the pixels of every label are to pixel i: all but those of its own count, twice a pair.
    own = np.take_along_axis(near, labels[:, None], axis=1)
    return (float(near.sum(dtype=np.float64)) - float(own.sum(dtype=np.float64))) / 2


class MeanField:
    """The beliefs about one image, and their update; for several weights of the first kernel at once."""

    def __init__(
        self,
        bilateral: Lattice,
        bilateral_weights: tuple[float, ...],
        spatial: Lattice,
        spatial_weight: float,
        probabilities: np.ndarray,
        active: np.ndarray,
        threads: int,
    ):
        """Starts with the probabilities as beliefs.

        Args:
            bilateral: the lattice of the first kernel.
            bilateral_weights: w1; 8 at the most.
            spatial: the lattice of the second kernel, with the same parts.
            spatial_weight: w2.
            probabilities: float32 [H, W, C].
            active: bool [C], the classes to filter; the messages of the others count as zero.
            threads: cores to use at most.
        """
        self._shape = probabilities.shape
        self._original = probabilities.reshape(-1, probabilities.shape[2])
        # Where every class has its column in the rows; -1 for a class without one.
        groups = min(size for size in _GROUPS if size >= len(bilateral_weights))
        self._count = len(bilateral_weights)
        self._groups = (0,) * groups
        self._columns = np.where(active, (np.cumsum(active) - 1) * groups, -1)
        self._layout, columns = _layout(np.count_nonzero(active) * groups)
        self._threads = threads
        self._bilateral = GaussianFilter(bilateral, columns, threads)
        self._spatial = GaussianFilter(spatial, columns, threads)
        unused = (bilateral_weights[-1],) * (groups - self._count)
        self._bilateral_weights = (*bilateral_weights, *unused)
        self._spatial_weights = (spatial_weight,) * groups
        count = len(self._original)
        self._probabilities = _zero_rows(count, columns)
        self._rest, self._scale = np.empty((2, count), np.float32)
        self._over_parts(
            filtering.lay_out,
            self._original,
            self._columns,
            self._groups,
            self._probabilities,
            self._rest,
            self._scale,
        )
        self._messages = None

    def _over_parts(self, kernel, *args):
        parts = [(part.start, part.stop) for part in self._bilateral.lattice.parts]
        run(lambda start, stop: kernel(*args, start, stop), parts, self._threads)

    def _over_image_rows(self, kernel, *args):
        width = self._shape[1]
        pieces = split(self._shape[0], 4 * self._threads, smallest=8)
        bilateral, spatial = self._messages
        run(
            lambda start, stop: kernel(
                bilateral,
                spatial,
                self._probabilities,
                self._rest,
                *args,
                width,
                self._groups,
                self._layout,
                start,
                stop,
            ),
            pieces,
            self._threads,
        )

    def update(self) -> None:
        """One iteration: splats the current beliefs, and blurs them into the messages of the next ones."""
        width = self._shape[1]
        parts = self._bilateral.lattice.parts
        targets = list(zip(parts, self._bilateral.targets(), self._spatial.targets(), strict=True))
        if self._messages is None:

            def splat(part, *targets):
                for gaussian, (target, first) in zip((self._bilateral, self._spatial), targets, strict=True):
                    lattice = gaussian.lattice
                    filtering.splat(
                        self._probabilities,
                        self._scale,
                        target,
                        first,
                        lattice.vertices,
                        lattice.weights,
                        lattice.corners,
                        self._layout,
                        part.start,
                        part.stop,
                    )
        else:
            bilateral, spatial = self._messages

            def splat(part, bilateral_target, spatial_target):
                filtering.update(
                    bilateral,
                    spatial,
                    self._probabilities,
                    self._rest,
                    bilateral_target,
                    spatial_target,
                    width,
                    self._groups,
                    self._layout,
                    part.start // width,
                    part.stop // width,
                )

        run(splat, targets, self._threads)
        self._messages = (
            self._bilateral.reader(self._bilateral.spread(self._layout), self._bilateral_weights),
            self._spatial.reader(self._spatial.spread(self._layout), self._spatial_weights),
        )

    def marginals(self) -> np.ndarray:
        """The current beliefs with the first weight, float32 [H, W, C]."""
        if self._messages is None:
            out = np.maximum(self._original, filtering.FLOOR) * self._scale[:, None]
        else:
            out = np.empty_like(self._original)
            self._over_image_rows(filtering.finish, self._columns, self._original, out)
        return out.reshape(self._shape)

    def labels(self) -> np.ndarray:
        """The most probable classes with the first weight, int32 [H, W]."""
        return self.labels_of_all()[0]

    def labels_of_all(self) -> np.ndarray:
        """The most probable classes with every weight, int32 [weights, H, W]."""
        out = np.empty((len(self._groups), len(self._original)), np.int32)
        if self._messages is None:
            out[:] = self._original.argmax(axis=1)
        else:
            self._over_image_rows(filtering.finish_labels, self._columns, self._original, out)
        return out[: self._count].reshape(-1, *self._shape[:2])

    def scores(self) -> np.ndarray:
        """What the last update took the softmax of with the first weight, log P + messages: float32 [H, W, C]."""
        active = self._columns >= 0
        rows = np.empty_like(self._probabilities)
        out = np.log(np.maximum(self._original, filtering.FLOOR))
        for reader in self._messages:
            self._over_parts(filtering.read, *reader, rows, self._layout)
            out[:, active] += rows[:, self._columns[active]]
        return out.reshape(self._shape)
