"""Filtering the beliefs of all classes on permutohedral lattices, and the mean-field update: the compiled loops.

Arrays of rows are float32 [rows, columns], the classes innermost, padded to whole registers (see `lanes.py`). `layout`
is a tuple of equal tuples of zeros, which tells a kernel at compile time how to take the columns: `len(layout)` times
`len(layout[0])` registers. A kernel works on the pixels or vertices `start` to `stop`, so that pieces may run at
the same time.

All kernels of a CRF are filtered together: the vertices of their lattices stand one after the other in one array of
rows, and a pixel's `corners` are the vertices around it on all of them. Weights and compatibilities are applied on the
lattice, where the blur ends; so what a pixel reads off its corners is the sum of all messages.

The beliefs are never stored. An update reads the messages of a pixel off the blurred lattices, takes the softmax, and
splats the new beliefs onto the lattices while they are in the cache: an iteration goes through the pixels once.
"""

import math
from typing import NamedTuple

import numpy as np

from deeplab_tf.compiling import kernel
from deeplab_tf.crf import lanes

LANES = lanes.LANES

# Probabilities are raised to this before their logarithm is taken (as pydensecrf's `unary_from_softmax`).
FLOOR = np.float32(1e-5)
# The score of a lane without a class: e to the power of it is nothing.
NOTHING = np.float32(-1e30)

# Pixels that are updated together. A pixel's chain of sums, exponentials and a division is long; those of a run
# overlap. One run follows the other in memory: what is read of the pixels then comes by itself, ahead of time.
RUN = 64

# The rows around a pixel are asked for so many pixels ahead: they lie about, and the cache cannot guess where.
_AHEAD = 24

_ONE_REGISTER = (0,)


class Places(NamedTuple):
    """The vertices around the pixels, on all lattices.

    A weight is barycentric, times what normalises the kernel before or after filtering.
    """

    vertices: np.ndarray  # int32 [N, corners]
    splat_weights: np.ndarray  # float32 [N, corners]
    slice_weights: np.ndarray  # float32 [N, corners]
    corners: tuple[int, ...] | np.ndarray  # anything of so many elements


class Rows(NamedTuple):
    """The unaries of an image as the kernels take them.

    Several CRFs that differ in their weights only may share the rows, lane by lane (the search does so): `groups` is a
    tuple of as many zeros as there are CRFs, 1, 2, 4 or 8, and the score of class c in the g-th CRF is in the column
    `len(groups) * c + g`.
    """

    scores: np.ndarray  # float32 [N, columns], log P; NOTHING in the padding
    rest: np.ndarray  # float32 [N], log P of all the classes without a column, so without messages; [0] if none
    groups: tuple[int, ...]
    layout: tuple[tuple[int, ...], ...]


NO_PLACES = Places(np.empty((0, 0), np.int32), *2 * [np.empty((0, 0), np.float32)], ())


class Field(NamedTuple):
    """The scores of all pixels: their unaries, and their messages on the blurred lattices."""

    values: np.ndarray  # float32 [vertices, columns], the blurred lattices
    corners: tuple[int, ...] | np.ndarray  # as those of the places; of no elements before the first message
    places: Places
    rows: Rows


class Target(NamedTuple):
    """Rows to splat on."""

    values: np.ndarray  # float32 [vertices of the part, columns]
    shifts: np.ndarray  # int32 [corners], the vertex that is the first row, for every corner


class _Beliefs(NamedTuple):
    """The beliefs of `RUN` pixels, up to a factor: scale * values."""

    values: np.ndarray  # float32 [RUN, columns]
    scale: np.ndarray  # float32 [RUN, LANES], a factor for every lane
    rest: np.ndarray  # float32 [RUN, LANES], the belief in the classes without a column, if there are any


@kernel
def _prefetch(field, i, blocks):
    """Asks for the rows around the pixel `_AHEAD` of pixel i."""
    ahead = min(i + _AHEAD, len(field.places.vertices) - 1)
    for r in range(len(field.corners)):
        lanes.prefetch(field.values, field.places.vertices[ahead, r], 0, blocks)


@kernel
def _read(field, i, column, blocks):
    """The weighted sum of the rows around pixel i."""
    total = lanes.fill(np.float32(0), blocks)
    for r in range(len(field.corners)):
        row = lanes.load(field.values, field.places.vertices[i, r], column, blocks)
        total = lanes.multiply_add(field.places.slice_weights[i, r], row, total)
    return total


@kernel
def _splat(row, target, places, i, column, blocks):
    """Adds the weighted row of pixel i to the rows of all the vertices around it."""
    for r in range(len(places.corners)):
        vertex = places.vertices[i, r] - target.shifts[r]
        before = lanes.load(target.values, vertex, column, blocks)
        lanes.store(target.values, vertex, column, lanes.multiply_add(places.splat_weights[i, r], row, before))


@kernel
def _new_beliefs(field, first, count, beliefs):
    """Fills `_Beliefs` with those of the pixels `first` to `first + count`, `RUN` at most."""
    rows = field.rows
    layout = rows.layout
    blocks = layout[0]
    for k in range(count):
        _prefetch(field, first + k, blocks)
        highest = lanes.fill(NOTHING, blocks)
        for column in range(0, LANES * len(blocks) * len(layout), LANES * len(blocks)):
            score = lanes.load(rows.scores, first + k, column, blocks)
            score = lanes.add(score, _read(field, first + k, column, blocks))
            highest = lanes.maximum(highest, score)
            lanes.store(beliefs.values, k, column, score)
        lanes.store(beliefs.rest, k, 0, lanes.largest(highest, rows.groups))
    for k in range(count):
        shift = lanes.repeat(lanes.load(beliefs.rest, k, 0, _ONE_REGISTER), blocks)
        total = lanes.fill(np.float32(0), blocks)
        for column in range(0, LANES * len(blocks) * len(layout), LANES * len(blocks)):
            belief = lanes.exp(lanes.subtract(lanes.load(beliefs.values, k, column, blocks), shift))
            total = lanes.add(total, belief)
            lanes.store(beliefs.values, k, column, belief)
        lanes.store(beliefs.scale, k, 0, lanes.total(total, rows.groups))
    if len(rows.rest) == 0:
        for k in range(count):
            lanes.store(beliefs.scale, k, 0, lanes.inverse(lanes.load(beliefs.scale, k, 0, _ONE_REGISTER)))
        return
    for k in range(count):
        shift = lanes.load(beliefs.rest, k, 0, _ONE_REGISTER)
        others = lanes.exp(lanes.subtract(lanes.fill(rows.rest[first + k], _ONE_REGISTER), shift))
        factor = lanes.inverse(lanes.add(lanes.load(beliefs.scale, k, 0, _ONE_REGISTER), others))
        lanes.store(beliefs.scale, k, 0, factor)
        lanes.store(beliefs.rest, k, 0, lanes.multiply(others, factor))


@kernel
def _memory(rows):
    """`_Beliefs`, to be filled."""
    values = np.empty((RUN, rows.scores.shape[1]), np.float32)
    return _Beliefs(values, np.empty((RUN, LANES), np.float32), np.empty((RUN, LANES), np.float32))


@kernel
def update(field, target, start, stop):
    """One mean-field update of the pixels `start` to `stop`: beliefs = softmax(log P + messages), added to the target.

    Args:
        field: `Field`.
        target: `Target`.
        start: the first pixel.
        stop: the pixel after the last.
    """
    beliefs = _memory(field.rows)
    places, layout = field.places, field.rows.layout
    blocks = layout[0]
    for first in range(start, stop, RUN):
        count = min(RUN, stop - first)
        _new_beliefs(field, first, count, beliefs)
        for k in range(count):
            ahead = min(first + k + _AHEAD, len(places.vertices) - 1)
            for r in range(len(places.corners)):
                lanes.prefetch(target.values, places.vertices[ahead, r] - target.shifts[r], 0, blocks)
            factor = lanes.repeat(lanes.load(beliefs.scale, k, 0, _ONE_REGISTER), blocks)
            for column in range(0, LANES * len(blocks) * len(layout), LANES * len(blocks)):
                row = lanes.multiply(factor, lanes.load(beliefs.values, k, column, blocks))
                _splat(row, target, places, first + k, column, blocks)


@kernel
def finish(field, columns, original, out, start, stop):
    """The beliefs of the pixels `start` to `stop` after a last update, of the first group.

    Args:
        field: `Field`.
        columns: int64 [C], the first column of every class, -1 for a class without one.
        original: float32 [N, C], the probabilities; read for the classes without a column only.
        out: float32 [N, C], filled.
        start: the first pixel.
        stop: the pixel after the last.
    """
    rows = field.rows
    beliefs = _memory(rows)
    for first in range(start, stop, RUN):
        count = min(RUN, stop - first)
        _new_beliefs(field, first, count, beliefs)
        if len(rows.rest) == 0:
            for k in range(count):
                for c in range(len(columns)):
                    out[first + k, c] = beliefs.values[k, c * len(rows.groups)] * beliefs.scale[k, 0]
            continue
        for k in range(count):
            for c in range(len(columns)):
                if columns[c] >= 0:
                    out[first + k, c] = beliefs.values[k, columns[c]] * beliefs.scale[k, 0]
                else:
                    share = beliefs.rest[k, 0] / np.float32(math.exp(rows.rest[first + k]))
                    out[first + k, c] = max(original[first + k, c], FLOOR) * share


@kernel
def finish_labels(field, columns, original, out, start, stop):
    """The most probable classes of the pixels `start` to `stop` after a last update: out int32 [groups, N].

    The arguments are those of `finish`.
    """
    rows = field.rows
    beliefs = _memory(rows)
    for first in range(start, stop, RUN):
        count = min(RUN, stop - first)
        _new_beliefs(field, first, count, beliefs)
        for group in range(len(rows.groups)):
            for k in range(count):
                highest = np.float32(-1)
                for c in range(len(columns)):
                    if columns[c] >= 0:
                        belief = beliefs.values[k, columns[c] + group] * beliefs.scale[k, group]
                    else:
                        share = beliefs.rest[k, group] / np.float32(math.exp(rows.rest[first + k]))
                        belief = max(original[first + k, c], FLOOR) * share
                    if belief > highest:
                        highest = belief
                        out[group, first + k] = c


@kernel
def splat(values, places, target, layout, start, stop):
    """Adds the rows `values` [N, columns] of the pixels `start` to `stop` to the target; see `update`."""
    blocks = layout[0]
    for i in range(start, stop):
        for column in range(0, LANES * len(blocks) * len(layout), LANES * len(blocks)):
            _splat(lanes.load(values, i, column, blocks), target, places, i, column, blocks)


@kernel
def read(field, out, start, stop):
    """out[i] = the sum of all messages to pixel i, for the pixels `start` to `stop`; out: float32 [N, columns]."""
    layout = field.rows.layout
    blocks = layout[0]
    for i in range(start, stop):
        for column in range(0, LANES * len(blocks) * len(layout), LANES * len(blocks)):
            lanes.store(out, i, column, _read(field, i, column, blocks))


class Parts(NamedTuple):
    """Sums that the parts of the image have splatted on one lattice: part p on the vertices from firsts[p] on."""

    values: np.ndarray  # float32 [rows, columns]; those of part p are offsets[p] to offsets[p+1]
    firsts: np.ndarray  # int64 [P]
    offsets: np.ndarray  # int64 [P+1]


@kernel
def collect(parts, values, layout, start, stop):
    """Adds up what the parts of the image have splatted, for the vertices `start` to `stop`, and clears it.

    Args:
        parts: `Parts`.
        values: float32 [vertices, columns], filled.
        layout: see the top.
        start: the first vertex.
        stop: the vertex after the last.
    """
    blocks = layout[0]
    zero = lanes.fill(np.float32(0), blocks)
    for vertex in range(start, stop):
        for column in range(0, LANES * len(blocks) * len(layout), LANES * len(blocks)):
            total = zero
            for part in range(len(parts.firsts)):
                row = vertex - parts.firsts[part] + parts.offsets[part]
                if parts.offsets[part] <= row < parts.offsets[part + 1]:
                    total = lanes.add(total, lanes.load(parts.values, row, column, blocks))
                    lanes.store(parts.values, row, column, zero)
            lanes.store(values, vertex, column, total)


class _Window(NamedTuple):
    """The rows of a range of vertices."""

    values: np.ndarray  # float32 [vertices, columns]
    first: int  # the vertex of the first row
    zero: int  # a row that is zero, for the vertices that do not exist


@kernel
def _blur(source, neighbors, blurred, layout, start, stop):
    """`blur` from one `_Window` to another."""
    blocks = layout[0]
    half = np.float32(0.5)
    for vertex in range(start, stop):
        before, after = neighbors[vertex, 0] - source.first, neighbors[vertex, 1] - source.first
        if neighbors[vertex, 0] == len(neighbors):
            before = source.zero
        if neighbors[vertex, 1] == len(neighbors):
            after = source.zero
        for column in range(0, LANES * len(blocks) * len(layout), LANES * len(blocks)):
            row_before = lanes.load(source.values, before, column, blocks)
            around = lanes.add(row_before, lanes.load(source.values, after, column, blocks))
            here = lanes.load(source.values, vertex - source.first, column, blocks)
            lanes.store(blurred.values, vertex - blurred.first, column, lanes.multiply_add(half, around, here))


@kernel
def blur(values, neighbors, blurred, layout, start, stop):
    """Blurs the vertices `start` to `stop` of one lattice along one direction.

    blurred[v] = values[v] + (values[before v] + values[after v]) / 2

    Args:
        values: float32 [M+1, columns]; values[M] is zero.
        neighbors: int32 [M, 2]; M for none.
        blurred: float32 [M+1, columns], filled up to M.
        layout: see the top.
        start: the first vertex.
        stop: the vertex after the last.
    """
    none = len(neighbors)
    _blur(_Window(values, 0, none), neighbors, _Window(blurred, 0, none), layout, start, stop)


@kernel
def blur_in_pieces(values, neighbors, blurred, cuts, layout, start, stop):
    """Blurs along several directions, the vertices between cuts[start] and cuts[stop] piece by piece.

    Args:
        values: as in `blur`.
        neighbors: int32 [D, M, 2], two directions at least. Along all but the first none lie across a cut, so that a
            piece goes through those while it is in the cache.
        blurred: as in `blur`.
        cuts: int64 [K+1].
        layout: see the top.
        start: the first piece.
        stop: the piece after the last.
    """
    longest = 0
    for piece in range(start, stop):
        longest = max(longest, cuts[piece + 1] - cuts[piece])
    scratch = np.empty((longest + 1, values.shape[1]), np.float32)
    directions, size = neighbors.shape[0], neighbors.shape[1]
    before, whole = _Window(values, 0, size), _Window(blurred, 0, size)
    for piece in range(start, stop):
        first, last = cuts[piece], cuts[piece + 1]
        scratch[last - first] = 0
        alone = _Window(scratch, first, last - first)
        # Such that the last of the directions, which alternate between the two memories, ends in `blurred`.
        in_scratch = directions % 2 == 0
        if in_scratch:
            _blur(before, neighbors[0], alone, layout, first, last)
        else:
            _blur(before, neighbors[0], whole, layout, first, last)
        for direction in range(1, directions):
            if in_scratch:
                _blur(alone, neighbors[direction], whole, layout, first, last)
            else:
                _blur(whole, neighbors[direction], alone, layout, first, last)
            in_scratch = not in_scratch


@kernel
def mix(values, matrix, layout, start, stop):
    """Multiplies the rows `start` to `stop` in place: values[v] @ matrix, or values[v] * matrix[0] if that has one row.

    `matrix` is float32 [classes, columns], zero in the padding: the messages of every class to all.
    """
    blocks = layout[0]
    before = np.empty(len(matrix), np.float32)
    for vertex in range(start, stop):
        for c in range(len(matrix)):
            before[c] = values[vertex, c]
        for column in range(0, LANES * len(blocks) * len(layout), LANES * len(blocks)):
            if len(matrix) == 1:
                row = lanes.load(values, vertex, column, blocks)
                total = lanes.multiply(lanes.load(matrix, 0, column, blocks), row)
            else:
                total = lanes.fill(np.float32(0), blocks)
                for c in range(len(matrix)):
                    total = lanes.multiply_add(before[c], lanes.load(matrix, c, column, blocks), total)
            lanes.store(values, vertex, column, total)
