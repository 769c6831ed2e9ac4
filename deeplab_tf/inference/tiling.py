"""Large images in overlapping tiles, blended on the grid of the score map.

Tiles start on the grid that the outputs of every scale share, so that a tile's outputs sit on those of the whole image
and are the same numbers wherever the tile holds all that the network sees. An overlap has three parts: at least a
quarter at each side, where the tile that ends there counts nothing, and the middle, where one tile fades into the
other. So the result is that of the whole image when the network sees no further than a quarter of the overlap, and has
no seam when it does.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import tensorflow as tf

from deeplab_tf.errors import UserError
from deeplab_tf.models import geometry


class Tiling:
    """Cuts images into tiles and puts their score maps together, in a graph.

    Args:
        size: height and width of a tile, pixels; rounded up to the shared grid, `grid * k + 1`.
        overlap: of neighbouring tiles, pixels, at least; rounded up to a multiple of `grid`.
        output_stride: of the network.
        scales: of its input.

    Attributes:
        grid: pixels between two places where the outputs of all scales meet: 32 for scales 0.5, 0.75 and 1 at stride 8.

    Raises:
        UserError: the tiles would overlap by more than half.
    """

    def __init__(self, size: int, overlap: int, output_stride: int, scales: Sequence[float]):
        self.output_stride = output_stride
        self.grid = output_stride * math.lcm(*(Fraction(scale).limit_denominator(100).denominator for scale in scales))
        self.size = -(-(size - 1) // self.grid) * self.grid + 1
        self.overlap = -(-overlap // self.grid) * self.grid
        if not 0 < 2 * self.overlap < self.size:
            raise UserError(
                f"--tile_size={size} --tile_overlap={overlap}: on the grid of {self.grid} pixels that all scales "
                f"share, tiles of {self.size} overlap by {self.overlap}; expected 1 or more, less than half of a tile"
            )

    def starts(self, length: tf.Tensor | int) -> tf.Tensor:
        """First pixels of the tiles along a side of `length` pixels: int32 [tiles], from 0 on.

        As many as the overlap needs, spread evenly: all tiles have the full size, but for less than `grid` pixels of
        the last one, or for an image that is smaller than a tile.
        """
        step = self.size - 1 - self.overlap
        count = tf.maximum(1, -((1 + self.overlap - length) // step))
        places = tf.maximum(0, -((self.size - length) // self.grid))  # on the grid, of the last tile
        return tf.range(count) * places // tf.maximum(1, count - 1) * self.grid

    def score_map(self, score: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor, num_classes: int) -> tf.Tensor:
        """The score maps of a batch of images of any one size, tile after tile: the memory of one tile at a time.

        Args:
            score: from a part of the images, uint8 [B, H, W, 3], to its score maps, float32 [B, h, w, C], up to the end
                of its padding (`DeepLab.score_maps(..., crop=False)`).
            images: uint8 [B, H, W, 3].
            num_classes: C.

        Returns:
            float32 [B, h, w, C], likewise up to the end of the images' padding.
        """
        batch, height, width = tf.unstack(tf.shape(images)[:3])
        tops, lefts = self.starts(height), self.starts(width)
        stride = self.output_stride
        map_width = geometry.map_size(geometry.padded_size(width, stride), stride)
        map_height = geometry.map_size(geometry.padded_size(height, stride), stride)

        def strip(row: tf.Tensor) -> tf.Tensor:
            """The blended score maps of the tiles of one row."""
            part = images[:, tops[row] : tops[row] + self.size]

            def tile(column: tf.Tensor) -> tf.Tensor:
                return score(part[:, :, lefts[column] : lefts[column] + self.size])

            rows = geometry.map_size(geometry.padded_size(tf.shape(part)[1], stride), stride)
            return self._blend(tile, lefts, (batch, rows, map_width, num_classes), axis=2)

        return self._blend(strip, tops, (batch, map_height, map_width, num_classes), axis=1)

    def _blend(self, part: Callable[[tf.Tensor], tf.Tensor], starts: tf.Tensor, shape: tuple, axis: int) -> tf.Tensor:
        """The weighted sum of parts of a map, part(0), part(1) ..., where they lie along one axis of it."""

        def add(i: tf.Tensor, blended: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            scores = part(i)
            count, before = tf.shape(scores)[axis], starts[i] // self.output_stride
            weights = self._weights(starts, i, count)
            scores *= tf.reshape(weights, [-1] + [1] * (3 - axis))
            padding = [[0, 0]] * 4
            padding[axis] = [before, tf.shape(blended)[axis] - before - count]
            return i + 1, blended + tf.pad(scores, padding)

        _, blended = tf.while_loop(
            lambda i, _: i < tf.size(starts),
            add,
            (0, tf.zeros(tf.stack(shape))),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, None, None, shape[-1]])),
            parallel_iterations=1,
        )
        return blended

    def _weights(self, starts: tf.Tensor, i: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """Blend weight of each output along one side of tile i: float32 [count]; with its neighbours' they add up to 1.

        Args:
            starts: of the tiles along a side.
            i: number of the tile.
            count: outputs of the tile along the side.
        """
        outputs = tf.range(count)
        first, last = i == 0, i == tf.size(starts) - 1
        before, here = starts[tf.maximum(i - 1, 0)], starts[i]
        after = starts[tf.minimum(i + 1, tf.size(starts) - 1)]
        rising = self._ramp(outputs, before + self.size - 1 - here)
        falling = 1 - self._ramp(outputs - (after - here) // self.output_stride, here + self.size - 1 - after)
        return tf.where(first, 1.0, rising) * tf.where(last, 1.0, falling)

    def _ramp(self, places: tf.Tensor, overlap: tf.Tensor) -> tf.Tensor:
        """From 0 to 1 around the middle of an overlap in pixels, at outputs that are numbered from its beginning.

        Where tiles overlap by more than they have to, they still fade within half of the least overlap: so no more than
        two tiles count anywhere.
        """
        middle = tf.cast(overlap, tf.float32) / (2 * self.output_stride)
        width = self.overlap / (2 * self.output_stride)
        return tf.clip_by_value((tf.cast(places, tf.float32) - middle) / width + 0.5, 0, 1)
