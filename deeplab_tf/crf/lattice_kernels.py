"""Building a permutohedral lattice: the compiled loops.  `lattice.py` explains the notation."""

from typing import NamedTuple

import numpy as np

from deeplab_tf.compiling import kernel
from deeplab_tf.crf import lanes

LANES = lanes.LANES
_EMPTY = np.int32(-1)
_ONE_REGISTER = (0,)


class Embedding(NamedTuple):
    """Pixels by their features, and the lattice around them."""

    features: np.ndarray  # float32 [d, N], C-contiguous
    scale: tuple[float, ...] | np.ndarray  # `elevation(d)`; as a tuple d is known at compile time
    steps: np.ndarray  # int64 [d+1], what a step along each direction adds to a key


class Simplices(NamedTuple):
    """The vertices of the simplex around every pixel, and the pixel's barycentric weights."""

    vertices: np.ndarray  # int32 [N, d+1]
    weights: np.ndarray  # float32 [N, d+1]


class _Coordinates(NamedTuple):
    """Pixels among d+1 coordinates that sum to zero, one pixel in every lane: float32 [d+1, LANES] each."""

    elevated: np.ndarray  # of the pixels, divided by d+1
    base: np.ndarray  # of their simplices' vertices of remainder 0, divided by d+1
    rank: np.ndarray  # the places of `elevated - base` when sorted, largest first


class _Names(NamedTuple):
    """The keys found so far."""

    table: np.ndarray  # int32, of a size that is a power of two: the keys' places in the list, by hash
    keys: np.ndarray  # int64, half as many, in order of appearance


@kernel
def _embed(features, scale, first, coordinates):
    """Fills `_Coordinates` with those of the pixels `first` to `first + LANES` (Adams et al., p. 5 and 10)."""
    elevated, base, rank = coordinates
    d = len(scale)
    zero = lanes.fill(np.float32(0), _ONE_REGISTER)
    down = np.float32(1.0 / (d + 1))
    total = zero
    for j in range(d, 0, -1):
        feature = lanes.load(features, j - 1, first, _ONE_REGISTER)
        scaled = lanes.multiply_add(down * scale[j - 1], feature, zero)
        lanes.store(elevated, j, 0, lanes.multiply_add(np.float32(-j), scaled, total))
        total = lanes.add(total, scaled)
    lanes.store(elevated, 0, 0, total)

    off_plane = zero
    for j in range(d + 1):
        rounded = lanes.round(lanes.load(elevated, j, 0, _ONE_REGISTER))
        lanes.store(base, j, 0, rounded)
        lanes.store(rank, j, 0, zero)
        off_plane = lanes.add(off_plane, rounded)
    for j in range(d):
        rest = lanes.subtract(lanes.load(elevated, j, 0, _ONE_REGISTER), lanes.load(base, j, 0, _ONE_REGISTER))
        rank_j = lanes.load(rank, j, 0, _ONE_REGISTER)
        for k in range(j + 1, d + 1):
            other = lanes.subtract(lanes.load(elevated, k, 0, _ONE_REGISTER), lanes.load(base, k, 0, _ONE_REGISTER))
            lower = lanes.less(rest, other)  # 1 or 0
            rank_j = lanes.add(rank_j, lower)
            higher = lanes.multiply_add(np.float32(-1), lower, lanes.fill(np.float32(1), _ONE_REGISTER))
            lanes.store(rank, k, 0, lanes.add(lanes.load(rank, k, 0, _ONE_REGISTER), higher))
        lanes.store(rank, j, 0, rank_j)
    # Rounding may have left the plane: as many coordinates as needed, those rounded farthest, go one back.
    for j in range(d + 1):
        rank_j = lanes.add(lanes.load(rank, j, 0, _ONE_REGISTER), off_plane)
        too_low = lanes.less(rank_j, zero)
        too_high = lanes.less(lanes.fill(np.float32(d), _ONE_REGISTER), rank_j)
        back = lanes.subtract(too_low, too_high)
        lanes.store(rank, j, 0, lanes.multiply_add(np.float32(d + 1), back, rank_j))
        lanes.store(base, j, 0, lanes.add(lanes.load(base, j, 0, _ONE_REGISTER), back))


@kernel
def _place(table, key):
    """The first place of the hash table to look for `key` (Fibonacci hashing; the table's size is a power of two)."""
    return np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & (len(table) - 1)


@kernel
def _grown(names, size):
    """`_Names` of twice the size with the same content, `size` keys."""
    keys = np.empty(2 * len(names.keys), np.int64)
    keys[:size] = names.keys[:size]
    table = np.full(2 * len(names.table), _EMPTY, np.int32)
    for vertex in range(size):
        place = _place(table, keys[vertex])
        while table[place] != _EMPTY:
            place = (place + 1) & (len(table) - 1)
        table[place] = vertex
    return _Names(table, keys)


@kernel
def _locate_until_full(embedding, simplices, names, size, start, stop):
    """`locate`, until the list of keys might be full: returns the next pixel and the number of keys, `size` before."""
    features, scale, steps = embedding
    vertices, weights = simplices
    table, keys = names
    d = len(scale)
    elevated = np.empty((d + 1, LANES), np.float32)
    base = np.empty((d + 1, LANES), np.float32)
    rank = np.empty((d + 1, LANES), np.float32)
    coordinates = _Coordinates(elevated, base, rank)
    last = np.zeros((d, LANES), np.float32)
    by_rank = np.empty(d + 1, np.float32)
    step_by_rank = np.empty(d + 1, np.int64)
    for first in range(start, stop, LANES):
        if size + LANES * (d + 1) > len(keys):
            return first, size
        if first + LANES <= features.shape[1]:
            _embed(features, scale, first, coordinates)
        else:  # a register would reach beyond the memory
            for j in range(d):
                for i in range(first, features.shape[1]):
                    last[j, i - first] = features[j, i]
            _embed(last, scale, 0, coordinates)
        for lane in range(min(LANES, stop - first)):
            i = first + lane
            key = np.int64(0)
            for j in range(d + 1):
                place = int(rank[j, lane])
                by_rank[place] = elevated[j, lane] - base[j, lane]
                step_by_rank[place] = steps[j]
                key += np.int64(base[j, lane]) * steps[j]
            weights[i, 0] = 1 + by_rank[d] - by_rank[0]
            for r in range(1, d + 1):
                weights[i, r] = by_rank[d - r] - by_rank[d + 1 - r]
            for r in range(d + 1):
                if r > 0:  # from the vertex of remainder r-1 to that of r: a step back along the next direction
                    key -= step_by_rank[d + 1 - r]
                place = _place(table, key)
                vertex = table[place]
                while vertex != _EMPTY and keys[vertex] != key:
                    place = (place + 1) & (len(table) - 1)
                    vertex = table[place]
                if vertex == _EMPTY:
                    keys[size] = key
                    table[place] = size
                    vertex = np.int32(size)
                    size += 1
                vertices[i, r] = vertex
    return stop, size


@kernel
def locate(embedding, simplices, start, stop):
    """Finds the vertices around the pixels `start` to `stop` and their barycentric weights.

    Args:
        embedding: `Embedding`.
        simplices: `Simplices`, filled; the vertices with places in the returned keys.
        start: the first pixel.
        stop: the pixel after the last.

    Returns:
        int64 [M'], the key of every vertex found, in order of appearance.
    """
    names = _Names(np.full(1 << 13, _EMPTY, np.int32), np.empty(1 << 12, np.int64))
    size = 0
    while True:
        start, size = _locate_until_full(embedding, simplices, names, size, start, stop)
        if start == stop:
            return names.keys[:size].copy()
        names = _grown(names, size)


@kernel
def rename(vertices, names, start, stop):
    """Replaces every vertex v of the pixels `start` to `stop` by names[v]."""
    for i in range(start, stop):
        for r in range(vertices.shape[1]):
            vertices[i, r] = names[vertices[i, r]]


@kernel
def find_neighbors(keys, step, neighbors, start, stop):
    """Notes who is one step after the vertices `start` to `stop`, and that they are one step before those.

    Args:
        keys: int64 [M], sorted.
        step: what the step adds to a key, not zero.
        neighbors: int32 [M, 2], filled where there is a neighbour: before, after.
        start: the first vertex.
        stop: the vertex after the last.
    """
    size = len(keys)
    after = np.searchsorted(keys, keys[start] + step)
    for vertex in range(start, stop):
        key = keys[vertex] + step
        while after < size and keys[after] < key:
            after += 1
        if after < size and keys[after] == key:
            neighbors[vertex, 1] = after
            neighbors[after, 0] = vertex


@kernel
def find_cuts(neighbors, smallest):
    """Cuts of [0, M], `smallest` or more apart, that no neighbours of [directions, M, 2] lie across: int64."""
    size = neighbors.shape[1]
    cuts = np.empty(size // smallest + 2, np.int64)
    cuts[0] = 0
    count = 1
    reach = 0
    for vertex in range(size):
        if vertex > reach and vertex - cuts[count - 1] >= smallest:
            cuts[count] = vertex
            count += 1
        for direction in range(neighbors.shape[0]):
            for side in range(2):
                neighbor = neighbors[direction, vertex, side]
                if neighbor < size:
                    reach = max(reach, neighbor)
        reach = max(reach, vertex)
    cuts[count] = size
    return cuts[: count + 1].copy()


@kernel
def splat_ones(simplices, masses, first, start, stop):
    """Splats pixels that are all one: masses[v - first] gets the weights of the pixels `start` to `stop`."""
    for i in range(start, stop):
        for r in range(simplices.vertices.shape[1]):
            masses[simplices.vertices[i, r] - first] += simplices.weights[i, r]


@kernel
def blur_ones(masses, neighbors, blurred, start, stop):
    """The blur of `filtering.blur`, for one value a vertex; masses[M] is the zero of vertices that do not exist."""
    for vertex in range(start, stop):
        around = masses[neighbors[vertex, 0]] + masses[neighbors[vertex, 1]]
        blurred[vertex] = masses[vertex] + np.float32(0.5) * around


@kernel
def read_ones(simplices, masses, gain, response, start, stop):
    """Reads one value a vertex: response [N] = gain * sum of weights * masses, for the pixels `start` to `stop`."""
    for i in range(start, stop):
        total = np.float32(0)
        for r in range(simplices.vertices.shape[1]):
            total += simplices.weights[i, r] * masses[simplices.vertices[i, r]]
        response[i] = gain * total


@kernel
def place(simplices, factors, first_vertex, first_corner, places, start, stop):
    """Writes the pixels `start` to `stop` of one lattice into `filtering.Places`.

    Args:
        simplices: `Simplices`, of the lattice.
        factors: float32 [2, N], what pixels are multiplied by before and after filtering; [1, N] if `places` has one
            array for both.
        first_vertex: what is added to the vertices.
        first_corner: the first of the d+1 columns to write.
        places: `filtering.Places`.
        start: the first pixel.
        stop: the pixel after the last.
    """
    for i in range(start, stop):
        for r in range(simplices.vertices.shape[1]):
            weight = simplices.weights[i, r]
            places.vertices[i, first_corner + r] = simplices.vertices[i, r] + first_vertex
            places.splat_weights[i, first_corner + r] = weight * factors[0, i]
            if len(factors) > 1:
                places.slice_weights[i, first_corner + r] = weight * factors[1, i]
