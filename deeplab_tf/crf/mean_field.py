"""The mean field of the dense CRF on the CPU: compiled loops over permutohedral lattices."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from deeplab_tf.crf import filtering
from deeplab_tf.crf.gaussian import Filter, Filters, aligned_rows, row_layout
from deeplab_tf.crf.lattice import Lattice
from deeplab_tf.parallel import run, split

# CRFs that can be computed together: a lane must belong to one of them.
_GROUPS = (1, 2, 4, 8)
# Longer rows take as long as several short ones: they are too long for the caches.
_MOST_COLUMNS_TOGETHER = 48
_NONE = np.empty((0, 0), np.float32)
# Pixels whose unaries are laid out at a time: they stay in the cache.
_CHUNK = 2048


class Potential(NamedTuple):
    """A pairwise potential: a Gaussian kernel over features, and what it costs that two pixels have two labels.

    Attributes:
        lattice: of the features.
        normalization: of the kernel, among `gaussian.NORMALIZATIONS`.
        compatibility: a number w, the Potts model: w off the diagonal, 0 on it; or the costs float [C, C], a row for
            the label of the pixel that gets the message; or float [C], the diagonal of such a matrix, 0 off it.
    """

    lattice: Lattice
    normalization: str
    compatibility: float | np.ndarray


def together(classes: int) -> int:
    """Number of CRFs of so many classes that are computed fastest together, lane by lane."""
    return max(groups for groups in _GROUPS if groups == 1 or groups * classes <= _MOST_COLUMNS_TOGETHER)


class Unaries:
    """The unaries of one image as the kernels take them.

    Attributes:
        classes: C.
        original: float32 [N, C], the probabilities; None where the unaries came as energies.
        columns: int64 [C], the first column of every class in the rows; -1 for a class without one.
        rows: `filtering.Rows`.
    """

    @classmethod
    def of_probabilities(
        cls, probabilities: np.ndarray, active: np.ndarray, groups: int = 1, threads: int = 1
    ) -> "Unaries":
        """The unaries -log P, where P counts as at least `filtering.FLOOR`.

        Args:
            probabilities: float32 [N, C].
            active: bool [C], the classes with messages; those of the others count as zero.
            groups: CRFs to compute together; 8 at the most.
            threads: cores to use at most.
        """

        def scores(start, stop):
            floored = np.maximum(probabilities[start:stop], filtering.FLOOR)
            return np.log(floored, out=floored)

        unaries = cls(scores, probabilities.shape, active, groups, threads)
        unaries.original = probabilities
        return unaries

    @classmethod
    def of_energies(cls, energies: np.ndarray, threads: int = 1) -> "Unaries":
        """Any unaries, float32 [C, N]; finite."""

        def scores(start, stop):
            return -energies[:, start:stop].T

        classes, count = energies.shape
        return cls(scores, (count, classes), np.ones(classes, bool), 1, threads)

    def __init__(self, scores, shape, active, groups, threads):
        count, self.classes = shape
        self.original = None
        groups = min(size for size in _GROUPS if size >= groups)
        self.columns = np.where(active, (np.cumsum(active) - 1) * groups, -1)
        used = np.count_nonzero(active) * groups
        layout, columns = row_layout(used)
        rows = aligned_rows(count, columns, zero=False)
        rest = np.empty(0 if active.all() else count, np.float32)

        def lay_out(start, stop):
            for first in range(start, stop, _CHUNK):
                last = min(stop, first + _CHUNK)
                block = scores(first, last)
                if active.all():
                    kept = block
                else:
                    kept = block[:, active]
                    rest[first:last] = np.log(np.exp(block[:, ~active]).sum(axis=1))
                for group in range(groups):
                    rows[first:last, group:used:groups] = kept
                rows[first:last, used:] = filtering.NOTHING

        run(lay_out, split(count, threads), threads)
        self.rows = filtering.Rows(rows, rest, (0,) * groups, layout)

    def empty(self) -> np.ndarray:
        """Rows like those of the scores, of anything."""
        return aligned_rows(*self.rows.scores.shape, zero=False)


class MeanField:
    """The beliefs about one image, and their update."""

    def __init__(
        self, potentials: list[Potential], unaries: Unaries, threads: int = 1, factors: np.ndarray | None = None
    ):
        """Starts with the softmax of the negative unaries as beliefs.

        Args:
            potentials: of the pixels; their lattices have the same parts.
            unaries: of the image; they may be shared.
            threads: cores to use at most.
            factors: float [CRFs], for several CRFs at once: each multiplies the first potential, a Potts model, by its
                own; as many as `unaries` were made for, or less.
        """
        rows = unaries.rows
        self._unaries = unaries
        self._threads = threads
        self._pieces = split(len(rows.scores), 4 * threads, smallest=8 * filtering.RUN)
        filters = [self._filter_of(potential) for potential in potentials]
        self._crfs = 1 if factors is None else len(factors)
        if factors is not None:
            of_lane = np.resize(np.append(factors, [factors[-1]] * (len(rows.groups) - self._crfs)), len(rows.groups))
            by_lane = np.resize(of_lane, rows.scores.shape[1]).astype(np.float32)
            filters[0] = filters[0]._replace(matrix=by_lane[None])
        self._filters = Filters(filters, rows.scores.shape[1], threads) if filters else None
        self._values = np.zeros((1, rows.scores.shape[1]), np.float32)
        self.restart()

    def restart(self) -> None:
        """Back to the beliefs before the first update: no messages yet."""
        self._corners = self._filters.places.corners[:0] if self._filters else ()

    def _filter_of(self, potential):
        compatibility = np.asarray(potential.compatibility, np.float32)
        if compatibility.ndim == 0:
            # Potts: all classes' beliefs sum to the same, so what speaks against the others speaks for the own.
            return Filter(potential.lattice, potential.normalization, float(compatibility))
        rows = len(compatibility) if compatibility.ndim == 2 else 1
        matrix = np.zeros((rows, self._unaries.rows.scores.shape[1]), np.float32)
        matrix[:, self._unaries.columns] = -compatibility.T
        return Filter(potential.lattice, potential.normalization, matrix=matrix)

    def update(self) -> None:
        """One iteration: splats the current beliefs, and blurs them into the messages of the next ones."""
        if self._filters is None:
            return

        field = self._field()
        self._filter(lambda start, stop, target: filtering.update(field, target, start, stop))

    def update_from(self, beliefs: np.ndarray) -> None:
        """One iteration from other beliefs than the current ones, float32 [N, C]."""
        if self._filters is None:
            return
        rows = self._unaries.empty()
        rows[:, self._unaries.classes :] = 0
        rows[:, : self._unaries.classes] = beliefs
        places, layout = self._filters.places, self._unaries.rows.layout

        self._filter(lambda start, stop, target: filtering.splat(rows, places, target, layout, start, stop))

    def _filter(self, splat):
        run(splat, self._filters.targets(), self._threads)
        self._values = self._filters.blur(self._unaries.rows.layout)
        self._corners = self._filters.places.corners

    def _field(self):
        places = self._filters.places if self._filters else filtering.NO_PLACES
        return filtering.Field(self._values, self._corners, places, self._unaries.rows)

    def _over_pixels(self, kernel, out):
        # Read for classes without a column only; then they came as probabilities.
        original = _NONE if self._unaries.original is None else self._unaries.original
        field, columns = self._field(), self._unaries.columns
        run(
            lambda start, stop: kernel(field, columns, original, out, start, stop),
            self._pieces,
            self._threads,
        )
        return out

    def marginals(self) -> np.ndarray:
        """The current beliefs of the first CRF, float32 [N, C]."""
        count = len(self._unaries.rows.scores)
        return self._over_pixels(filtering.finish, np.empty((count, self._unaries.classes), np.float32))

    def labels(self) -> np.ndarray:
        """The most probable classes of the first CRF, int32 [N]."""
        return self.labels_of_all()[0]

    def labels_of_all(self) -> np.ndarray:
        """The most probable classes of every CRF, int32 [CRFs, N]."""
        rows = self._unaries.rows
        out = np.empty((len(rows.groups), len(rows.scores)), np.int32)
        return self._over_pixels(filtering.finish_labels, out)[: self._crfs]

    def scores(self) -> np.ndarray:
        """The argument of the first CRF's last softmax, float32 [N, C]; for unaries from probabilities."""
        return np.log(np.maximum(self._unaries.original, filtering.FLOOR)) + self.messages()

    def messages(self) -> np.ndarray:
        """The first CRF's messages in the last update, float32 [N, C], added to its negative unaries."""
        out = np.zeros((len(self._unaries.rows.scores), self._unaries.classes), np.float32)
        if len(self._corners):
            rows = self._unaries.empty()
            field = self._field()
            run(
                lambda start, stop: filtering.read(field, rows, start, stop),
                split(len(rows), self._threads),
                self._threads,
            )
            active = self._unaries.columns >= 0
            out[:, active] = rows[:, self._unaries.columns[active]]
        return out


def gaussian_filter(
    lattice: Lattice, classes: int, normalization: str = "symmetric", threads: int = 1
) -> Callable[[np.ndarray], np.ndarray]:
    """The normalised Gaussian kernel of a lattice, as a function of the pixels' values: float32 [N, C] to [N, C]."""
    unaries = Unaries.of_energies(np.zeros((classes, len(lattice.response)), np.float32), threads)
    field = MeanField([Potential(lattice, normalization, 1.0)], unaries, threads)

    def filtered(values):
        field.update_from(values)
        return field.messages()

    return filtered
