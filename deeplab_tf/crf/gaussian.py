"""The Gaussian filter of the dense CRF: a permutohedral lattice, and the memory that its kernels work on."""

import numpy as np

from deeplab_tf.crf import filtering
from deeplab_tf.crf.lattice import Lattice
from deeplab_tf.parallel import run, split

# Registers of classes that a kernel works on at a time, at most: wider rows are taken in pieces.
_MOST_REGISTERS = 4


def row_layout(values: int) -> tuple[tuple[tuple[int, ...], ...], int]:
    """The `layout` argument of the kernels for rows of so many values, and the number of their columns."""
    registers = -(-values // filtering.LANES)
    pieces = -(-registers // _MOST_REGISTERS)
    registers = -(-registers // pieces)
    return ((0,) * registers,) * pieces, pieces * registers * filtering.LANES


def zero_rows(count: int, columns: int) -> np.ndarray:
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
        self._values = zero_rows(lattice.size + 1, columns)
        self._spare = zero_rows(lattice.size + 1, columns)
        sizes = [part.last_vertex - part.first_vertex for part in lattice.parts]
        self._offsets = np.cumsum([0, *sizes])
        self._firsts = np.array([part.first_vertex for part in lattice.parts])
        self._parts = zero_rows(self._offsets[-1], columns) if len(sizes) > 1 else None

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
    layout, columns = row_layout(classes)
    gaussian = GaussianFilter(lattice, columns, 1)
    rows = zero_rows(count, columns)
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
