"""The three linear maps of Winograd's algorithm for a 3x3 convolution, and their adjoints, as compiled loops.

With the interpolation points 0, 1, -1, 2 and infinity, the matrices are

          |  2 -1 -2  1  0 |        | 1/2    0    0  |
          |  0  2  1 -1  0 |        | 1/2  1/2  1/2  |         | 1  1  1  1  0 |
    B^T = |  0 -2  3 -1  0 |    G = | 1/6 -1/6  1/6  |   A^T = | 0  1 -1  2  0 |
          |  0 -1  0  1  0 |        | 1/6  1/3  2/3  |         | 0  1  1  4  1 |
          |  0  2 -1 -2  1 |        |  0     0    1  |

Maps are float32 [B, H, W, C], tiles float32 [25, tiles, C], kernels float32 [9, n], transformed ones [25, n].
A call treats the tiles, or bands of tiles, or columns of a kernel, from `start` to `stop`. The patch [5, 5, C] of one
tile stays in the cache; it is transformed along one axis and then along the other.
"""

import numpy as np

from deeplab_tf.compiling import kernel

OUTPUTS = 3  # of a tile, along a side
INPUTS = 5
TILE_AREA = INPUTS * INPUTS

# A plain 2 would make a product float64.
_2, _3, _4 = np.float32(2), np.float32(3), np.float32(4)
_HALF, _SIXTH = np.float32(1 / 2), np.float32(1 / 6)
_COLUMNS = 128  # of a kernel that are transformed together


@kernel
def tiles_along(side, rate):
    """Number of tiles that cover a side of a map, those of all its `rate` sub-maps together."""
    outputs_along = (side + rate - 1) // rate  # of the longest sub-map
    return rate * ((outputs_along + OUTPUTS - 1) // OUTPUTS)


@kernel
def input_tiles(x, rate, start, stop, tiles):
    """B^T x B of every tile's inputs x."""
    patch = np.empty((INPUTS, INPUTS, x.shape[3]), np.float32)
    for tile in range(start, stop):
        image, top, left = _first_output(tile, x, rate)
        _read(x, image, top - rate, left - rate, rate, patch)
        _b(patch.reshape((INPUTS, INPUTS * x.shape[3])))
        for i in range(INPUTS):
            _b(patch[i])
        _write_tile(patch, tiles, tile)


@kernel
def input_tiles_adjoint(tiles, rate, start, stop, x):
    """The sum of B t B^T over the tiles t, where they lie on the map.

    A band is every `rate`-th row of an image; the tiles of different bands do not overlap.
    """
    patch = np.empty((INPUTS, INPUTS, x.shape[3]), np.float32)
    tiles_of_band = tiles.shape[1] // (x.shape[0] * rate)
    for band in range(start, stop):
        x[band // rate, band % rate :: rate] = 0
        for tile in range(band * tiles_of_band, (band + 1) * tiles_of_band):
            _read_tile(tiles, tile, patch)
            _b_adjoint(patch.reshape((INPUTS, INPUTS * x.shape[3])))
            for i in range(INPUTS):
                _b_adjoint(patch[i])
            image, top, left = _first_output(tile, x, rate)
            _add(patch, x, image, top - rate, left - rate, rate)


@kernel
def output_tiles(tiles, rate, start, stop, y):
    """A^T t A of every tile t, where it lies on the map."""
    patch = np.empty((INPUTS, INPUTS, y.shape[3]), np.float32)
    for tile in range(start, stop):
        _read_tile(tiles, tile, patch)
        _a(patch.reshape((INPUTS, INPUTS * y.shape[3])))
        for i in range(OUTPUTS):
            _a(patch[i])
        image, top, left = _first_output(tile, y, rate)
        for i in range(OUTPUTS):
            for j in range(OUTPUTS):
                row, column = top + i * rate, left + j * rate
                if row < y.shape[1] and column < y.shape[2]:
                    _copy(patch[i, j], y[image, row, column])


@kernel
def output_tiles_adjoint(y, rate, start, stop, tiles):
    """A y A^T of every tile's outputs y."""
    patch = np.empty((INPUTS, INPUTS, y.shape[3]), np.float32)
    for tile in range(start, stop):
        image, top, left = _first_output(tile, y, rate)
        _read(y, image, top, left, rate, patch[:OUTPUTS, :OUTPUTS])
        for i in range(OUTPUTS):
            _a_adjoint(patch[i])
        _a_adjoint(patch.reshape((INPUTS, INPUTS * y.shape[3])))
        _write_tile(patch, tiles, tile)


@kernel
def transformed_kernel(w, start, stop, u):
    """G w G^T of every column."""
    for first in range(start, stop, _COLUMNS):
        last = min(first + _COLUMNS, stop)
        patch = np.empty((INPUTS, INPUTS, last - first), np.float32)
        for i in range(OUTPUTS):
            for j in range(OUTPUTS):
                _copy(w[OUTPUTS * i + j, first:last], patch[i, j])
            _g(patch[i])
        _g(patch.reshape((INPUTS, INPUTS * patch.shape[2])))
        for i in range(INPUTS):
            for j in range(INPUTS):
                _copy(patch[i, j], u[INPUTS * i + j, first:last])


@kernel
def transformed_kernel_adjoint(u, start, stop, w):
    """G^T u G of every column."""
    for first in range(start, stop, _COLUMNS):
        last = min(first + _COLUMNS, stop)
        patch = np.empty((INPUTS, INPUTS, last - first), np.float32)
        for i in range(INPUTS):
            for j in range(INPUTS):
                _copy(u[INPUTS * i + j, first:last], patch[i, j])
        _g_adjoint(patch.reshape((INPUTS, INPUTS * patch.shape[2])))
        for i in range(OUTPUTS):
            _g_adjoint(patch[i])
            for j in range(OUTPUTS):
                _copy(patch[i, j], w[OUTPUTS * i + j, first:last])


@kernel
def _first_output(tile, x, rate):
    """The image, row and column of a tile's first output on a map."""
    down, across = tiles_along(x.shape[1], rate) // rate, tiles_along(x.shape[2], rate)
    row, column = tile // across, tile % across
    band, row = row // down, row % down
    return (
        band // rate,
        row * OUTPUTS * rate + band % rate,
        column // rate * OUTPUTS * rate + column % rate,
    )


@kernel
def _copy(source, target):
    """Faster than numba's assignment of slices."""
    for c in range(len(target)):
        target[c] = source[c]


@kernel
def _read_tile(tiles, tile, patch):
    for i in range(INPUTS):
        for j in range(INPUTS):
            _copy(tiles[INPUTS * i + j, tile], patch[i, j])


@kernel
def _write_tile(patch, tiles, tile):
    for i in range(INPUTS):
        for j in range(INPUTS):
            _copy(patch[i, j], tiles[INPUTS * i + j, tile])


@kernel
def _read(x, image, top, left, rate, patch):
    """Fills a patch with positions of a map that are `rate` apart; 0 beyond the border."""
    for i in range(patch.shape[0]):
        for j in range(patch.shape[1]):
            row, column = top + i * rate, left + j * rate
            if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                _copy(x[image, row, column], patch[i, j])
            else:
                for c in range(patch.shape[2]):
                    patch[i, j, c] = 0


@kernel
def _add(patch, x, image, top, left, rate):
    """Adds a patch to positions of a map that are `rate` apart; what lies beyond the border is left out."""
    for i in range(patch.shape[0]):
        for j in range(patch.shape[1]):
            row, column = top + i * rate, left + j * rate
            if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                position = x[image, row, column]
                for c in range(patch.shape[2]):
                    position[c] += patch[i, j, c]


# Each of the following multiplies the columns of a patch [5, n] by a matrix, in place.


@kernel
def _b(x):
    """By B^T."""
    for c in range(x.shape[1]):
        x0, x1, x2, x3, x4 = x[0, c], x[1, c], x[2, c], x[3, c], x[4, c]
        x[0, c] = _2 * (x0 - x2) - x1 + x3
        x[1, c] = _2 * x1 + x2 - x3
        x[2, c] = _3 * x2 - _2 * x1 - x3
        x[3, c] = x3 - x1
        x[4, c] = _2 * (x1 - x3) - x2 + x4


@kernel
def _b_adjoint(x):
    """By B."""
    for c in range(x.shape[1]):
        x0, x1, x2, x3, x4 = x[0, c], x[1, c], x[2, c], x[3, c], x[4, c]
        x[0, c] = _2 * x0
        x[1, c] = _2 * (x1 - x2 + x4) - x0 - x3
        x[2, c] = _3 * x2 - _2 * x0 + x1 - x4
        x[3, c] = x0 - x1 - x2 + x3 - _2 * x4
        x[4, c] = x4


@kernel
def _a(x):
    """By A^T: five rows become three."""
    for c in range(x.shape[1]):
        x0, x1, x2, x3, x4 = x[0, c], x[1, c], x[2, c], x[3, c], x[4, c]
        x[0, c] = x0 + x1 + x2 + x3
        x[1, c] = x1 - x2 + _2 * x3
        x[2, c] = x1 + x2 + _4 * x3 + x4


@kernel
def _a_adjoint(x):
    """By A: three rows become five."""
    for c in range(x.shape[1]):
        x0, x1, x2 = x[0, c], x[1, c], x[2, c]
        x[1, c] = x0 + x1 + x2
        x[2, c] = x0 - x1 + x2
        x[3, c] = x0 + _2 * x1 + _4 * x2
        x[4, c] = x2


@kernel
def _g(x):
    """By G: three rows become five."""
    for c in range(x.shape[1]):
        x0, x1, x2 = x[0, c], x[1, c], x[2, c]
        x[0, c] = _HALF * x0
        x[1, c] = _HALF * (x0 + x1 + x2)
        x[2, c] = _SIXTH * (x0 - x1 + x2)
        x[3, c] = _SIXTH * (x0 + _2 * x1 + _4 * x2)
        x[4, c] = x2


@kernel
def _g_adjoint(x):
    """By G^T: five rows become three."""
    for c in range(x.shape[1]):
        x0, x1, x2, x3, x4 = _HALF * x[0, c], _HALF * x[1, c], _SIXTH * x[2, c], _SIXTH * x[3, c], x[4, c]
        x[0, c] = x0 + x1 + x2 + x3
        x[1, c] = x1 - x2 + _2 * x3
        x[2, c] = x1 + x2 + _4 * x3 + x4
