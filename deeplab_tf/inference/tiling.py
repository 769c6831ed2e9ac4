"""Large images in overlapping tiles, blended on the grid of the score map.

Tiles start on the grid that the outputs of every scale share, so that a tile's outputs sit on those of the whole image
and are the same numbers wherever the tile holds all that the network sees. An overlap has three parts: a quarter at
each side, where the tile that ends there counts nothing, and the half between, where one tile fades into the other. So
the result is that of the whole image when the network sees no further than a quarter of the overlap, and has no seam
when it does.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from deeplab_tf.errors import UserError
from deeplab_tf.models import geometry


class Tiling:
    """Cuts images into tiles and puts their score maps together.

    Args:
        size: height and width of a tile, pixels; rounded up to the shared grid, `unit * k + 1`.
        overlap: of neighbouring tiles, pixels; rounded up to a multiple of `unit`.
        output_stride: of the network.
        scales: of its input.

    Attributes:
        unit: pixels between two places where the outputs of all scales meet: 32 for scales 0.5, 0.75 and 1 at stride 8.

    Raises:
        UserError: the tiles would overlap by more than half.
    """

    def __init__(self, size: int, overlap: int, output_stride: int, scales: Sequence[float]):
        self.output_stride = output_stride
        self.unit = output_stride * math.lcm(*(Fraction(scale).limit_denominator(100).denominator for scale in scales))
        self.size = -(-(size - 1) // self.unit) * self.unit + 1
        self.overlap = -(-overlap // self.unit) * self.unit
        if not 0 < 2 * self.overlap < self.size:
            raise UserError(
                f"tile_overlap={overlap}: tiles of {self.size} pixels overlap by {self.overlap} (on the grid of "
                f"{self.unit} pixels that all scales share), expected more than 0 and less than half of a tile"
            )

    def spans(self, length: int) -> list[tuple[int, int]]:
        """The (start, stop) of the tiles along a side of `length` pixels; the last one may be shorter."""
        step = self.size - 1 - self.overlap
        count = max(1, -(-(length - 1 - self.overlap) // step))
        return [(i * step, min(i * step + self.size, length)) for i in range(count)]

    def score_map(self, score: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> np.ndarray:
        """The score map of an image of any size.

        Args:
            score: from a part of the image, uint8 [H, W, 3], to its score map, float32 [h, w, C], up to the end of its
                padding (`DeepLab.score_maps(..., crop=False)`).
            image: uint8 [H, W, 3].

        Returns:
            float32 [h, w, C], likewise up to the end of the image's padding.
        """
        rows, columns = (self.spans(side) for side in image.shape[:2])
        blended = None
        for top, bottom in rows:
            for left, right in columns:
                scores = score(image[top:bottom, left:right])
                if blended is None:
                    sides = (geometry.padded_size(side, self.output_stride) for side in image.shape[:2])
                    sides = [geometry.map_size(side, self.output_stride) for side in sides]
                    blended = np.zeros((*sides, scores.shape[-1]), np.float32)
                height, width = scores.shape[:2]
                row_weights = self._weights(height, top > 0, bottom < image.shape[0])
                column_weights = self._weights(width, left > 0, right < image.shape[1])
                i, j = top // self.output_stride, left // self.output_stride
                blended[i : i + height, j : j + width] += (
                    np.multiply.outer(row_weights, column_weights)[..., None] * scores
                )
        return blended

    def _weights(self, count: int, fades_in: bool, fades_out: bool) -> np.ndarray:
        """What the outputs along a side of a tile count: float32 [count]; with its neighbours' they add up to 1."""
        overlap = self.overlap // self.output_stride
        ramp = np.clip(2 * np.arange(overlap + 1, dtype=np.float32) / overlap - 0.5, 0, 1)
        weights = np.ones(count, np.float32)
        if fades_in:
            weights[: overlap + 1] = ramp
        if fades_out:
            weights[count - overlap - 1 :] *= 1 - ramp
        return weights
