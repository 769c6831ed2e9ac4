"""Filtering the beliefs of all classes on two permutohedral lattices, and the mean-field update: the compiled loops.

Arrays of rows are float32 [rows, columns], the classes innermost, padded with zeros. `layout` is a tuple of equal
tuples of zeros, which tells a kernel at compile time how to take the columns: `len(layout)` times `len(layout[0])`
registers (see `lanes.py`). A kernel works on the rows `start` to `stop`, so that pieces may run at the same time.

CRFs that differ in the weight of the first kernel only are computed together: they share the places of the vertices,
which is most of the work. `groups` is a tuple of as many zeros as there are, 1, 2, 4 or 8; the value of a class in the
g-th is in the column `len(groups) * class + g`, so that a lane belongs to one CRF throughout.

The beliefs are never stored. An update reads the messages of a pixel off the blurred lattices, takes the softmax, and
splats the new beliefs onto the next lattices while they are in the cache: an iteration goes through the pixels once.
"""

import numpy as np

from deeplab_tf.compiling import kernel
from deeplab_tf.crf import lanes

LANES = lanes.LANES

# Probabilities are raised to this before their logarithm is taken (as pydensecrf's `unary_from_softmax`).
FLOOR = np.float32(1e-5)

# Pixels that are updated together. A pixel's chain of sums, exponentials and a division is long; those of a run
# overlap. Runs are parts of image rows, and those below each other follow each other: their vertices stay in the cache.
RUN = 64

_ONE = np.float32(1)
_REGISTER = (0,)


@kernel
def lay_out(probabilities, columns, groups, rows, rest, scale, start, stop):
    """Lays the probabilities of the pixels out as rows, the same in every group.

    Args:
        probabilities: float32 [N, C].
        columns: int64 [C], the first column of every class in the rows, -1 for a class that is left out.
        groups: see the top.
        rows: float32 [N, columns], filled.
        rest: float32 [N], filled with the probability of the classes that are left out.
        scale: float32 [N], filled with 1 / the sum of all: `FLOOR` may have raised it above one.
        start: the first pixel.
        stop: the pixel after the last.
    """
    for i in range(start, stop):
        left_out = np.float32(0)
        total = np.float32(0)
        for c in range(len(columns)):
            probability = max(probabilities[i, c], FLOOR)
            total += probability
            if columns[c] >= 0:
                for group in range(len(groups)):
                    rows[i, columns[c] + group] = probability
            else:
                left_out += probability
        rest[i] = left_out
        scale[i] = _ONE / total


@kernel
def _slice(values, vertices, weights, corners, i, column, blocks):
    """What pixel i reads off the lattice: the weighted sum of the rows of the d+1 vertices around it."""
    total = lanes.fill(np.float32(0), blocks)
    for r in range(len(corners)):
        total = lanes.multiply_add(weights[i, r], lanes.load(values, vertices[i, r], column, blocks), total)
    return total


@kernel
def _splat(row, values, first, vertices, weights, corners, i, column, blocks):
    """Adds the weighted row of pixel i to the rows of the d+1 vertices around it; values[0] is vertex `first`."""
    for r in range(len(corners)):
        vertex = vertices[i, r] - first
        lanes.store(
            values, vertex, column, lanes.multiply_add(weights[i, r], row, lanes.load(values, vertex, column, blocks))
        )


@kernel
def splat(rows, scale, values, first, vertices, weights, corners, layout, start, stop):
    """Splats scale[i] * rows[i] for the pixels `start` to `stop`; values[0] is vertex `first`."""
    blocks = layout[0]
    zero = lanes.fill(np.float32(0), blocks)
    for i in range(start, stop):
        for column in range(0, LANES * len(blocks) * len(layout), LANES * len(blocks)):
            row = lanes.multiply_add(scale[i], lanes.load(rows, i, column, blocks), zero)
            _splat(row, values, first, vertices, weights, corners, i, column, blocks)


@kernel
def collect(parts, firsts, offsets, values, layout, start, stop):
    """Adds up what the parts of the image have splatted, for the vertices `start` to `stop`, and clears it.

    Args:
        parts: float32 [rows, columns]: in part p, the rows offsets[p] to offsets[p+1] are the vertices from firsts[p].
        firsts: int64 [P].
        offsets: int64 [P+1].
        values: float32 [M+1, columns], filled.
        layout: see the top.
        start: the first vertex.
        stop: the vertex after the last.
    """
    blocks = layout[0]
    zero = lanes.fill(np.float32(0), blocks)
    for vertex in range(start, stop):
        for column in range(0, LANES * len(blocks) * len(layout), LANES * len(blocks)):
            total = zero
            for part in range(len(firsts)):
                row = vertex - firsts[part] + offsets[part]
                if offsets[part] <= row < offsets[part + 1]:
                    total = lanes.add(total, lanes.load(parts, row, column, blocks))
                    lanes.store(parts, row, column, zero)
            lanes.store(values, vertex, column, total)


@kernel
def _blur(values, first_value, no_value, neighbors, blurred, first_blurred, layout, start, stop):
    """`blur`, where values[0] is vertex `first_value`, values[no_value] zero, and blurred[0] vertex `first_blurred`."""
    blocks = layout[0]
    half = np.float32(0.5)
    for vertex in range(start, stop):
        before, after = neighbors[vertex, 0] - first_value, neighbors[vertex, 1] - first_value
        if neighbors[vertex, 0] == len(neighbors):
            before = no_value
        if neighbors[vertex, 1] == len(neighbors):
            after = no_value
        for column in range(0, LANES * len(blocks) * len(layout), LANES * len(blocks)):
            around = lanes.add(lanes.load(values, before, column, blocks), lanes.load(values, after, column, blocks))
            here = lanes.load(values, vertex - first_value, column, blocks)
            lanes.store(blurred, vertex - first_blurred, column, lanes.multiply_add(half, around, here))


@kernel
def blur(values, neighbors, blurred, layout, start, stop):
    """blurred[v] = values[v] + (values[before v] + values[after v]) / 2 along one direction; values[M] is zero."""
    _blur(values, 0, len(neighbors), neighbors, blurred, 0, layout, start, stop)


@kernel
def blur_four(values, neighbors, blurred, cuts, layout, start, stop):
    """Blurs along four directions, the vertices between cuts[start] and cuts[stop] piece by piece.

    Args:
        values: float32 [M+1, columns]; values[M] is zero.
        neighbors: int32 [4, M, 2]; along the last three directions none lie across a cut, so that a piece goes through
            those while it is in the cache.
        blurred: float32 [M+1, columns], filled up to M; blurred[M] is zero.
        cuts: int64 [K+1].
        layout: see the top.
        start: the first piece.
        stop: the piece after the last.
    """
    longest = 0
    for piece in range(start, stop):
        longest = max(longest, cuts[piece + 1] - cuts[piece])
    scratch = np.empty((longest + 1, values.shape[1]), np.float32)
    size = neighbors.shape[1]
    for piece in range(start, stop):
        first, last = cuts[piece], cuts[piece + 1]
        scratch[last - first] = 0
        _blur(values, 0, size, neighbors[0], scratch, first, layout, first, last)
        _blur(scratch, first, last - first, neighbors[1], blurred, 0, layout, first, last)
        _blur(blurred, 0, size, neighbors[2], scratch, first, layout, first, last)
        _blur(scratch, first, last - first, neighbors[3], blurred, 0, layout, first, last)


@kernel
def read(values, vertices, weights, corners, factors, out, layout, start, stop):
    """out[i] = factors * (what pixel i reads off the lattice); factors: float32 [1, LANES], one for every lane."""
    blocks = layout[0]
    factor = lanes.repeat(lanes.load(factors, 0, 0, _REGISTER), blocks)
    for i in range(start, stop):
        for column in range(0, LANES * len(blocks) * len(layout), LANES * len(blocks)):
            row = _slice(values, vertices, weights, corners, i, column, blocks)
            lanes.store(out, i, column, lanes.multiply(factor, row))


@kernel
def _new_beliefs(bilateral, spatial, probabilities, rest, rows, scale, rest_scale, groups, layout, first, count):
    """The beliefs of the pixels from `first` on, up to a factor: scale[k] * rows[k] for pixel first + k.

    Args:
        bilateral: (values [M+1, columns], vertices, weights, corners, factors): the blurred lattice of the first
            kernel; factors: float32 [1, LANES], what is read off it is multiplied by these.
        spatial: the same of the second kernel.
        probabilities: float32 [N, columns], zero in the padding.
        rest: float32 [N], the probability of the classes that are left out: their message counts as zero.
        rows: float32 [RUN, columns], filled.
        scale: float32 [RUN, LANES], filled with a factor for every lane.
        rest_scale: float32 [RUN, LANES], filled with what the probabilities of the classes left out are multiplied by.
        groups: see the top.
        layout: see the top.
        first: the first pixel.
        count: the number of pixels.
    """
    values1, vertices1, weights1, corners1, factors1 = bilateral
    values2, vertices2, weights2, corners2, factors2 = spatial
    blocks = layout[0]
    factor1 = lanes.repeat(lanes.load(factors1, 0, 0, _REGISTER), blocks)
    factor2 = lanes.repeat(lanes.load(factors2, 0, 0, _REGISTER), blocks)
    zero = lanes.fill(np.float32(0), blocks)
    for k in range(count):
        # Messages are sums of products of numbers that are not negative: zero is their least value.
        highest = zero
        for column in range(0, LANES * len(blocks) * len(layout), LANES * len(blocks)):
            message = lanes.add(
                lanes.multiply(factor1, _slice(values1, vertices1, weights1, corners1, first + k, column, blocks)),
                lanes.multiply(factor2, _slice(values2, vertices2, weights2, corners2, first + k, column, blocks)),
            )
            highest = lanes.maximum(highest, message)
            lanes.store(rows, k, column, message)
        no_shift = lanes.fill(np.float32(0), _REGISTER)
        lanes.store(rest_scale, k, 0, lanes.subtract(no_shift, lanes.largest(highest, groups)))
    # softmax(log p + m) = p e^(m - max m) / sum: no logarithm, and no overflow.
    for k in range(count):
        shift = lanes.repeat(lanes.load(rest_scale, k, 0, _REGISTER), blocks)
        total = zero
        for column in range(0, LANES * len(blocks) * len(layout), LANES * len(blocks)):
            row = lanes.exp(lanes.add(lanes.load(rows, k, column, blocks), shift))
            row = lanes.multiply(row, lanes.load(probabilities, first + k, column, blocks))
            total = lanes.add(total, row)
            lanes.store(rows, k, column, row)
        lanes.store(scale, k, 0, lanes.total(total, groups))
    for k in range(count):
        factor = lanes.exp(lanes.load(rest_scale, k, 0, _REGISTER))
        factor_of_all = lanes.inverse(lanes.multiply_add(rest[first + k], factor, lanes.load(scale, k, 0, _REGISTER)))
        lanes.store(scale, k, 0, factor_of_all)
        lanes.store(rest_scale, k, 0, lanes.multiply(factor, factor_of_all))


@kernel
def update(bilateral, spatial, probabilities, rest, next_bilateral, next_spatial, width, groups, layout, start, stop):
    """One mean-field update of the image rows `start` to `stop`: beliefs = softmax(log probabilities + messages).

    The new beliefs are splatted onto `next_bilateral`, (values, the vertex of values[0]), for the first kernel and onto
    `next_spatial` for the second. `width` is the number of pixels in an image row; the other arguments are those of
    `_new_beliefs`.
    """
    rows = np.empty((RUN, probabilities.shape[1]), np.float32)
    scale = np.empty((RUN, LANES), np.float32)
    rest_scale = np.empty((RUN, LANES), np.float32)
    blocks = layout[0]
    for left in range(0, width, RUN):
        count = min(RUN, width - left)
        for y in range(start, stop):
            first = y * width + left
            _new_beliefs(bilateral, spatial, probabilities, rest, rows, scale, rest_scale, groups, layout, first, count)
            for k in range(count):
                factor = lanes.repeat(lanes.load(scale, k, 0, _REGISTER), blocks)
                for column in range(0, LANES * len(blocks) * len(layout), LANES * len(blocks)):
                    row = lanes.multiply(factor, lanes.load(rows, k, column, blocks))
                    values, first_vertex = next_bilateral
                    _splat(
                        row, values, first_vertex, bilateral[1], bilateral[2], bilateral[3], first + k, column, blocks
                    )
                    values, first_vertex = next_spatial
                    _splat(row, values, first_vertex, spatial[1], spatial[2], spatial[3], first + k, column, blocks)


@kernel
def finish(bilateral, spatial, probabilities, rest, columns, original, out, width, groups, layout, start, stop):
    """The beliefs of the image rows `start` to `stop` after a last update, of the first group, written to out [N, C].

    `original` are the probabilities of all classes, float32 [N, C]; `columns` is that of `lay_out`; the other arguments
    are those of `update`.
    """
    rows = np.empty((RUN, probabilities.shape[1]), np.float32)
    scale = np.empty((RUN, LANES), np.float32)
    rest_scale = np.empty((RUN, LANES), np.float32)
    for left in range(0, width, RUN):
        count = min(RUN, width - left)
        for y in range(start, stop):
            first = y * width + left
            _new_beliefs(bilateral, spatial, probabilities, rest, rows, scale, rest_scale, groups, layout, first, count)
            for k in range(count):
                for c in range(len(columns)):
                    if columns[c] >= 0:
                        out[first + k, c] = rows[k, columns[c]] * scale[k, 0]
                    else:
                        out[first + k, c] = max(original[first + k, c], FLOOR) * rest_scale[k, 0]


@kernel
def finish_labels(bilateral, spatial, probabilities, rest, columns, original, out, width, groups, layout, start, stop):
    """The most probable classes of the image rows `start` to `stop` after a last update: out [groups, N]."""
    rows = np.empty((RUN, probabilities.shape[1]), np.float32)
    scale = np.empty((RUN, LANES), np.float32)
    rest_scale = np.empty((RUN, LANES), np.float32)
    for left in range(0, width, RUN):
        count = min(RUN, width - left)
        for y in range(start, stop):
            first = y * width + left
            _new_beliefs(bilateral, spatial, probabilities, rest, rows, scale, rest_scale, groups, layout, first, count)
            for group in range(len(groups)):
                for k in range(count):
                    highest = np.float32(-1)
                    for c in range(len(columns)):
                        if columns[c] >= 0:
                            belief = rows[k, columns[c] + group] * scale[k, group]
                        else:
                            belief = max(original[first + k, c], FLOOR) * rest_scale[k, group]
                        if belief > highest:
                            highest = belief
                            out[group, first + k] = c
