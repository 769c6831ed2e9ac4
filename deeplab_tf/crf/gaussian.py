"""The Gaussian filters of a dense CRF: permutohedral lattices, and the memory that the compiled loops work on."""

import math
from typing import NamedTuple

import numpy as np

from deeplab_tf.crf import filtering, lattice_kernels
from deeplab_tf.crf.lattice import Lattice
from deeplab_tf.parallel import run, split

# How a kernel K is normalised, D being the diagonal of its row sums: by which power of D before and after filtering.
NORMALIZATIONS = {"none": (0, 0), "before": (1, 0), "after": (0, 1), "symmetric": (0.5, 0.5)}
# The corners of the two kernels of a picture: loops are compiled for this number; other numbers share one form.
_USUAL_CORNERS = 3 + 6
# Registers of classes that a kernel works on at a time, at most: wider rows are taken in pieces.
_MOST_REGISTERS = 4


def row_layout(values: int) -> tuple[tuple[tuple[int, ...], ...], int]:
    """The `layout` of `filtering.py` for rows of so many values, and the number of their columns."""
    registers = -(-values // filtering.LANES)
    pieces = -(-registers // _MOST_REGISTERS)
    registers = -(-registers // pieces)
    return ((0,) * registers,) * pieces, pieces * registers * filtering.LANES


def aligned_rows(count: int, columns: int, zero: bool = True) -> np.ndarray:
    """Rows float32 [count, columns] that start on a cache line; of zeros, or of anything."""
    memory = (np.zeros if zero else np.empty)(count * columns + 16, np.float32)
    first = -memory.ctypes.data % 64 // 4
    return memory[first : first + count * columns].reshape(count, columns)


def _factors(one):
    """Factors of the pixels before and after a filter; one array where both are the same."""
    before, after = normalizers(one.lattice.response, one.normalization)
    factor = one.weight * one.lattice.gain
    if before is after and factor >= 0:
        before = after = before * np.float32(math.sqrt(factor))
    else:
        after = after * np.float32(factor)
    return before, after


def normalizers(response: np.ndarray, normalization: str) -> tuple[np.ndarray, np.ndarray]:
    """Factors of the pixels before and after filtering, float32 [N] each, from the row sums of the kernel."""
    response = response + np.float32(1e-20)
    divisors = {0: np.ones_like, 0.5: np.sqrt, 1: np.positive}
    before, after = NORMALIZATIONS[normalization]
    inverse = 1 / divisors[before](response)
    return inverse, inverse if before == after else 1 / divisors[after](response)


class Filter(NamedTuple):
    """One Gaussian filter of the pixels.

    Attributes:
        lattice: of its features.
        normalization: of the kernel, among `NORMALIZATIONS`.
        weight: what the result is multiplied by.
        matrix: what the result is multiplied by besides, if anything: float32 [classes, columns], from classes to
            columns; or [1, columns], the factor of every column.
    """

    lattice: Lattice
    normalization: str = "symmetric"
    weight: float = 1.0
    matrix: np.ndarray | None = None


def _counted(corners):
    """Something of so many elements: a tuple, for whose length numba compiles, where that is usual; or an array."""
    return (0,) * corners if corners == _USUAL_CORNERS else np.zeros(corners, np.int8)


class _Vertices(NamedTuple):
    """The part of a `Lattice` that the blur needs."""

    size: int
    corners: int
    neighbors: np.ndarray
    leading: int
    cuts: np.ndarray | None


class Filters:
    """Gaussian filters of the same pixels, whose results are added up.

    Rows of all classes go in by `targets` (kernels splat onto them), are blurred, and come out by `places` (kernels
    read what lies around a pixel).

    Attributes:
        places: `filtering.Places`, of all lattices one after the other.
    """

    def __init__(self, filters: list[Filter], columns: int, threads: int):
        """Places the pixels on all lattices.

        Args:
            filters: one at least, whose lattices are of the same pixels in the same parts.
            columns: of the rows that will be filtered.
            threads: the cores to use at most.
        """
        self._lattices = [one.lattice for one in filters]
        self._matrices = [one.matrix for one in filters]
        self._threads = threads
        # The row after a lattice's vertices is that of the vertices that do not exist: zero.
        self._edges = np.cumsum([0, *(lattice.size + 1 for lattice in self._lattices)])
        self._values = aligned_rows(self._edges[-1], columns)
        self._spare = aligned_rows(self._edges[-1], columns)
        self._ranges = [(part.start, part.stop) for part in self._lattices[0].parts]
        self.places = self._placed(filters)
        self._make_parts(columns)
        # The places of the pixels on each lattice are not needed any more, and are as large as `places`.
        self._lattices = [
            _Vertices(lattice.size, lattice.corners, lattice.neighbors, lattice.leading, lattice.cuts)
            for lattice in self._lattices
        ]

    def _placed(self, filters):
        count = self._ranges[-1][1]
        corners = sum(lattice.corners for lattice in self._lattices)
        vertices = np.empty((count, corners), np.int32)
        weights = np.empty((count, corners), np.float32)
        factors = [_factors(one) for one in filters]
        same = all(before is after for before, after in factors)
        places = filtering.Places(vertices, weights, weights if same else np.empty_like(weights), _counted(corners))
        first_corner = 0
        for lattice, edge, (before, after) in zip(self._lattices, self._edges[:-1], factors, strict=True):
            both = before[None] if same else np.stack([before, after])
            arguments = lattice.simplices, both, edge, first_corner, places
            run(lattice_kernels.place, [(*arguments, *piece) for piece in self._ranges], self._threads)
            first_corner += lattice.corners
        return places

    def _make_parts(self, columns):
        """The memory that every part of the image splats on, where there are several."""
        corners = [lattice.corners for lattice in self._lattices]
        if len(self._ranges) == 1:
            self._parts = None
            self._targets = [filtering.Target(self._spare, np.zeros(sum(corners), np.int32))]
            return
        sizes = np.array(
            [[part.last_vertex - part.first_vertex for part in lattice.parts] for lattice in self._lattices]
        )
        firsts = np.array([[part.first_vertex for part in lattice.parts] for lattice in self._lattices])
        # In the memory, the lattices stand one after the other, and in each of them the parts.
        offsets = np.cumsum([0, *sizes.ravel()])
        memory = aligned_rows(offsets[-1], columns)
        ends = [offsets[k * len(self._ranges) :][: len(self._ranges) + 1] for k in range(len(corners))]
        self._parts = [filtering.Parts(memory, *one) for one in zip(firsts, ends, strict=True)]
        starts = np.array([offset[:-1] for offset in ends])
        shifts = firsts + self._edges[:-1, None] - starts
        self._targets = [filtering.Target(memory, np.repeat(shift, corners).astype(np.int32)) for shift in shifts.T]

    def targets(self) -> list[tuple[int, int, filtering.Target]]:
        """For every part: its first pixel, the one after its last, and the rows to splat on."""
        if self._parts is None:
            self._spare[:] = 0
        return [(*pixels, target) for pixels, target in zip(self._ranges, self._targets, strict=True)]

    def blur(self, layout: tuple[int, ...]) -> np.ndarray:
        """Blurs what was splatted on the targets.

        Args:
            layout: see `filtering.py`.

        Returns:
            float32 [vertices, columns], valid until the next call.
        """
        if self._parts is not None:
            self._over_vertices(
                lambda k, start, stop: filtering.collect(self._parts[k], self._of(k, self._spare), layout, start, stop)
            )
        self._passes(layout)
        mixed = [k for k, matrix in enumerate(self._matrices) if matrix is not None]
        if mixed:
            self._over_vertices(
                lambda k, start, stop: filtering.mix(self._of(k, self._values), self._matrices[k], layout, start, stop),
                mixed,
            )
        return self._values

    def _passes(self, layout):
        """Blurs all lattices along all directions, from `_spare` to `_values`."""
        plain = [lattice.leading if lattice.cuts is not None else lattice.corners for lattice in self._lattices]
        passes = [count + (lattice.cuts is not None) for count, lattice in zip(plain, self._lattices, strict=True)]
        for k, count in enumerate(passes):
            if count % 2 == 0:  # so that it ends in `_values`
                np.copyto(self._of(k, self._values), self._of(k, self._spare))

        def blur(k, turn, start, stop):
            memories = (self._spare, self._values) if (passes[k] - turn) % 2 else (self._values, self._spare)
            source, blurred = (self._of(k, rows) for rows in memories)
            lattice = self._lattices[k]
            if turn < plain[k]:
                filtering.blur(source, lattice.neighbors[turn], blurred, layout, start, stop)
            else:
                filtering.blur_in_pieces(source, lattice.neighbors[turn:], blurred, lattice.cuts, layout, start, stop)

        for turn in range(max(passes)):
            work = []
            for k, lattice in enumerate(self._lattices):
                if turn < passes[k]:
                    pieces = (
                        split(lattice.size, 4 * self._threads)
                        if turn < plain[k]
                        else split(len(lattice.cuts) - 1, 4 * self._threads, smallest=1)
                    )
                    work += [(k, turn, *piece) for piece in pieces]
            run(blur, work, self._threads)

    def _of(self, k, rows):
        return rows[self._edges[k] : self._edges[k + 1]]

    def _over_vertices(self, work, lattices=None):
        """Calls work(k, start, stop) for pieces of the vertices of the lattices."""
        pieces = [
            (k, *piece)
            for k in (range(len(self._lattices)) if lattices is None else lattices)
            for piece in split(self._lattices[k].size, 4 * self._threads)
        ]
        run(work, pieces, self._threads)
