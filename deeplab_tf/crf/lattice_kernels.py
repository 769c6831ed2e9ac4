"""Building a permutohedral lattice: the compiled loops.  `lattice.py` explains the notation."""

import math

import numpy as np

from deeplab_tf.crf.compiling import kernel

_EMPTY = np.int32(-1)


@kernel
def _place(table, key):
    """The first place of the hash table to look for `key` (Fibonacci hashing; the table's size is a power of two)."""
    return np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & (len(table) - 1)


@kernel
def _grown(table, keys, size):
    """A table and a key list of twice the size, with the same content."""
    larger_keys = np.empty(2 * len(keys), np.int64)
    larger_keys[:size] = keys[:size]
    larger_table = np.full(2 * len(table), _EMPTY, np.int32)
    for vertex in range(size):
        place = _place(larger_table, keys[vertex])
        while larger_table[place] != _EMPTY:
            place = (place + 1) & (len(larger_table) - 1)
        larger_table[place] = vertex
    return larger_table, larger_keys


@kernel
def locate(features, scale, steps, vertices, weights, start, stop):
    """Finds the simplex of the pixels `start` to `stop` (Adams et al., p. 5 and 10).

    Args:
        features: float32 [N, d].
        scale: `elevation(d)`, as a tuple so that d is known at compile time.
        steps: int64 [d+1], what a step along each direction adds to a key.
        vertices: int32 [N, d+1], filled with places in the returned keys.
        weights: float32 [N, d+1], filled with barycentric weights.
        start: the first pixel.
        stop: the pixel after the last.

    Returns:
        int64 [M'], the key of every vertex found, in order of appearance.
    """
    d = len(scale)
    elevated = np.empty(d + 1, np.float32)
    base = np.empty(d + 1, np.float32)
    rank = np.empty(d + 1, np.int64)
    by_rank = np.empty(d + 1, np.float32)
    step_by_rank = np.empty(d + 1, np.int64)
    last_keys = np.zeros(d + 1, np.int64)
    last_vertices = np.full(d + 1, _EMPTY, np.int32)
    table = np.full(1 << 12, _EMPTY, np.int32)
    keys = np.empty(1 << 11, np.int64)
    size = 0
    for i in range(start, stop):
        # Elevate onto the plane of d+1 coordinates that sum to zero.
        total = np.float32(0)
        for j in range(d, 0, -1):
            scaled = features[i, j - 1] * scale[j - 1]
            elevated[j] = total - j * scaled
            total += scaled
        elevated[0] = total

        # The nearest vertex of remainder 0 has the coordinates (d+1) base; `rank` sorts what is left, largest first.
        off_plane = 0
        for j in range(d + 1):
            elevated[j] *= np.float32(1.0 / (d + 1))
            base[j] = math.floor(elevated[j] + np.float32(0.5))
            off_plane += int(base[j])
            rank[j] = 0
        for j in range(d):
            rest = elevated[j] - base[j]
            for k in range(j + 1, d + 1):
                lower = rest < elevated[k] - base[k]
                rank[j] += lower
                rank[k] += not lower
        # Rounding may have left the plane: the coordinates that were rounded farthest go one back.
        key = 0
        for j in range(d + 1):
            rank[j] += off_plane
            if rank[j] < 0:
                rank[j] += d + 1
                base[j] += 1
            elif rank[j] > d:
                rank[j] -= d + 1
                base[j] -= 1
            by_rank[rank[j]] = elevated[j] - base[j]
            step_by_rank[rank[j]] = steps[j]
            key += int(base[j]) * steps[j]

        for remainder in range(d + 1):
            if remainder == 0:
                weights[i, 0] = 1 + by_rank[d] - by_rank[0]
            else:
                weights[i, remainder] = by_rank[d - remainder] - by_rank[d + 1 - remainder]
                key -= step_by_rank[d + 1 - remainder]
            if key != last_keys[remainder] or last_vertices[remainder] == _EMPTY:
                place = _place(table, key)
                while table[place] != _EMPTY and keys[table[place]] != key:
                    place = (place + 1) & (len(table) - 1)
                if table[place] == _EMPTY:
                    if size == len(keys):
                        table, keys = _grown(table, keys, size)
                        place = _place(table, key)
                        while table[place] != _EMPTY:
                            place = (place + 1) & (len(table) - 1)
                    keys[size] = key
                    table[place] = size
                    size += 1
                last_keys[remainder] = key
                last_vertices[remainder] = table[place]
            vertices[i, remainder] = last_vertices[remainder]
    return keys[:size].copy()


@kernel
def rename(vertices, names, counts, start, stop):
    """Replaces every vertex v of the pixels `start` to `stop` by names[v], and counts how often each new name occurs."""
    for i in range(start, stop):
        for r in range(vertices.shape[1]):
            vertex = names[vertices[i, r]]
            vertices[i, r] = vertex
            counts[vertex] += 1


@kernel
def transpose(vertices, weights, places, pixels, splat_weights, start, stop):
    """Writes the pixels `start` to `stop` into the lists of their vertices, from places[vertex] on (it advances)."""
    for i in range(start, stop):
        for r in range(vertices.shape[1]):
            place = places[vertices[i, r]]
            places[vertices[i, r]] = place + 1
            pixels[place] = i
            splat_weights[place] = weights[i, r]


@kernel
def find_neighbors(keys, step, neighbors, start, stop):
    """Finds the vertices one step before and after the vertices `start` to `stop`: walks sorted lists side by side."""
    size = len(keys)
    before = np.searchsorted(keys, keys[start] - step)
    after = np.searchsorted(keys, keys[start] + step)
    for vertex in range(start, stop):
        while before < size and keys[before] < keys[vertex] - step:
            before += 1
        while after < size and keys[after] < keys[vertex] + step:
            after += 1
        found = before < size and keys[before] == keys[vertex] - step
        neighbors[vertex, 0] = before if found else size
        found = after < size and keys[after] == keys[vertex] + step
        neighbors[vertex, 1] = after if found else size


@kernel
def mass(starts, splat_weights, masses, start, stop):
    """What the vertices `start` to `stop` gather from pixels that are all one."""
    for vertex in range(start, stop):
        total = np.float32(0)
        for place in range(starts[vertex], starts[vertex + 1]):
            total += splat_weights[place]
        masses[vertex] = total


@kernel
def blur_mass(masses, neighbors, blurred, start, stop):
    """The blur of `filtering.blur`, for one value a vertex; masses[M] is the zero of vertices that do not exist."""
    for vertex in range(start, stop):
        around = masses[neighbors[vertex, 0]] + masses[neighbors[vertex, 1]]
        blurred[vertex] = masses[vertex] + np.float32(0.5) * around


@kernel
def symmetric_norm(vertices, weights, masses, gain, norms, start, stop):
    """norms = 1/sqrt(gain * slice(masses)) for the pixels `start` to `stop`."""
    for i in range(start, stop):
        total = np.float32(0)
        for r in range(vertices.shape[1]):
            total += weights[i, r] * masses[vertices[i, r]]
        norms[i] = 1 / math.sqrt(gain * total + np.float32(1e-20))


@kernel
def scale_by_pixel(splat_weights, pixels, norms, start, stop):
    """Multiplies the splat weights `start` to `stop` by the norm of their pixel."""
    for place in range(start, stop):
        splat_weights[place] *= norms[pixels[place]]
