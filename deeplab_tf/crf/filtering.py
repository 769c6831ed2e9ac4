"""Filtering the beliefs of all classes on a permutohedral lattice, and the mean-field update: the compiled loops.

Arrays of rows are float32 [rows, columns], columns a multiple of `LANES * len(blocks)`: the classes innermost, padded
with zeros. A kernel takes them `len(blocks)` registers at a time (see `lanes.py`). Each works on the rows `start` to
`stop` and writes only those, so that pieces may run at the same time.
"""

import numpy as np

from deeplab_tf.crf import lanes
from deeplab_tf.crf.compiling import kernel

LANES = lanes.LANES

# Probabilities are raised to this before their logarithm is taken (as pydensecrf's `unary_from_softmax`).
FLOOR = np.float32(1e-5)


@kernel
def start(probabilities, columns, rows, beliefs, rest, rest_scale, start, stop):
    """Lays the probabilities of the pixels out as rows, and makes them the first beliefs.

    Args:
        probabilities: float32 [N, C].
        columns: int64 [C], the column of every class in the rows, -1 for a class that is left out.
        rows: float32 [N, columns], filled.
        beliefs: float32 [N, columns], filled.
        rest: float32 [N], filled with the probability of the classes that are left out.
        rest_scale: float32 [N], filled with what `rest` is multiplied by to become a belief.
        start: the first pixel.
        stop: the pixel after the last.
    """
    for i in range(start, stop):
        total = np.float32(0)
        for c in range(len(columns)):
            probability = max(probabilities[i, c], FLOOR)
            total += probability
            if columns[c] >= 0:
                rows[i, columns[c]] = probability
            else:
                rest[i] += probability
        rest_scale[i] = 1 / total
        for column in range(rows.shape[1]):
            beliefs[i, column] = rows[i, column] / total


@kernel
def expand(beliefs, columns, probabilities, rest_scale, out, start, stop):
    """The beliefs about all classes, out [N, C], from rows and from the probabilities of the classes left out."""
    for i in range(start, stop):
        for c in range(len(columns)):
            if columns[c] >= 0:
                out[i, c] = beliefs[i, columns[c]]
            else:
                out[i, c] = max(probabilities[i, c], FLOOR) * rest_scale[i]


@kernel
def splat(beliefs, starts, pixels, splat_weights, values, blocks, start, stop):
    """values[v] = sum of weight * beliefs[pixel] over the pixels around vertex v: N(d+1) rows read, M written."""
    for column in range(0, values.shape[1], LANES * len(blocks)):
        for vertex in range(start, stop):
            total = lanes.fill(np.float32(0), blocks)
            for place in range(starts[vertex], starts[vertex + 1]):
                row = lanes.load(beliefs, pixels[place], column, blocks)
                total = lanes.multiply_add(splat_weights[place], row, total)
            lanes.store(values, vertex, column, total)


@kernel
def blur(values, neighbors, blurred, blocks, start, stop):
    """blurred[v] = values[v] + (values[before v] + values[after v]) / 2 along one direction; values[M] is zero."""
    for column in range(0, values.shape[1], LANES * len(blocks)):
        for vertex in range(start, stop):
            before = lanes.load(values, neighbors[vertex, 0], column, blocks)
            after = lanes.load(values, neighbors[vertex, 1], column, blocks)
            here = lanes.load(values, vertex, column, blocks)
            lanes.store(blurred, vertex, column, lanes.multiply_add(np.float32(0.5), lanes.add(before, after), here))


@kernel
def _slice(values, vertices, weights, i, column, blocks):
    """The row of pixel i: the weighted sum of the rows of the d+1 vertices around it."""
    total = lanes.fill(np.float32(0), blocks)
    for r in range(vertices.shape[1]):
        row = lanes.load(values, vertices[i, r], column, blocks)
        total = lanes.multiply_add(weights[i, r], row, total)
    return total


@kernel
def slice_rows(values, vertices, weights, norms, factor, out, blocks, start, stop):
    """out[i] = factor * norm of i * (the filtered row of pixel i)."""
    zero = lanes.fill(np.float32(0), blocks)
    for column in range(0, values.shape[1], LANES * len(blocks)):
        for i in range(start, stop):
            row = _slice(values, vertices, weights, i, column, blocks)
            lanes.store(out, i, column, lanes.multiply_add(factor * norms[i], row, zero))


@kernel
def update(bilateral, spatial, probabilities, rest, rest_scale, beliefs, blocks, start, stop):
    """One mean-field update of the pixels: beliefs = softmax(log probabilities + messages).

    Args:
        bilateral: (values [M+1, columns], vertices, weights, norms, factor): the blurred lattice of the first kernel.
        spatial: the same of the second kernel.
        probabilities: float32 [N, columns], zero in the padding.
        rest: float32 [N], the probability of the classes that are left out: their message counts as zero.
        rest_scale: float32 [N], filled with what `rest` is multiplied by to become a belief.
        beliefs: float32 [N, columns], filled.
        blocks: the registers to work on at a time.
        start: the first pixel.
        stop: the pixel after the last.
    """
    values1, vertices1, weights1, norms1, factor1 = bilateral
    values2, vertices2, weights2, norms2, factor2 = spatial
    zero = lanes.fill(np.float32(0), blocks)
    for i in range(start, stop):
        # Messages are sums of products of numbers that are not negative: zero is their least value.
        highest = zero
        for column in range(0, beliefs.shape[1], LANES * len(blocks)):
            message = lanes.multiply_add(
                factor1 * norms1[i], _slice(values1, vertices1, weights1, i, column, blocks), zero
            )
            message = lanes.multiply_add(
                factor2 * norms2[i], _slice(values2, vertices2, weights2, i, column, blocks), message
            )
            highest = lanes.maximum(highest, message)
            lanes.store(beliefs, i, column, message)
        # softmax(log p + m) = p e^(m - max m) / sum: no logarithm, and no overflow.
        shift = lanes.fill(-lanes.largest(highest), blocks)
        total = zero
        for column in range(0, beliefs.shape[1], LANES * len(blocks)):
            row = lanes.exp(lanes.add(lanes.load(beliefs, i, column, blocks), shift))
            row = lanes.multiply(row, lanes.load(probabilities, i, column, blocks))
            total = lanes.add(total, row)
            lanes.store(beliefs, i, column, row)
        rest_factor = np.exp(-lanes.largest(highest))
        scale = 1 / (lanes.total(total) + rest[i] * rest_factor)
        rest_scale[i] = scale * rest_factor
        for column in range(0, beliefs.shape[1], LANES * len(blocks)):
            row = lanes.load(beliefs, i, column, blocks)
            lanes.store(beliefs, i, column, lanes.multiply_add(scale, row, zero))
