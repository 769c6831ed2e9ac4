"""Large images in overlapping tiles inside a graph: `deeplab_tf.inference.tiling` in TensorFlow operations."""

from collections.abc import Callable

import tensorflow as tf

from deeplab_tf.inference.tiling import Tiling
from deeplab_tf.models import geometry


def tiled_score_map(
    score: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor, num_classes: int, tiling: Tiling
) -> tf.Tensor:
    """The score maps of a batch of images of any one size, tile after tile: the memory of one tile at a time.

    Args:
        score: from a part of the images, uint8 [B, H, W, 3], to its score maps, float32 [B, h, w, C], up to the end of
            its padding.
        images: uint8 [B, H, W, 3].
        num_classes: C.
        tiling: the tiles.

    Returns:
        float32 [B, h, w, C], likewise up to the end of the images' padding.
    """
    batch, height, width = tf.unstack(tf.shape(images)[:3])
    stride, step = tiling.output_stride, tiling.size - 1 - tiling.overlap
    # As `Tiling.spans` counts, without the quotient of a negative number, which ONNX rounds up.
    rows, columns = ((tf.maximum(1, side - 1 - tiling.overlap) + step - 1) // step for side in (height, width))
    map_height, map_width = (geometry.map_size(geometry.padded_size(side, stride), stride) for side in (height, width))

    def add_tile(tile: tf.Tensor, blended: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        top, left = tile // columns * step, tile % columns * step
        bottom, right = tf.minimum(top + tiling.size, height), tf.minimum(left + tiling.size, width)
        scores = score(images[:, top:bottom, left:right])
        row_weights = _weights(tiling, tf.shape(scores)[1], top > 0, bottom < height)
        column_weights = _weights(tiling, tf.shape(scores)[2], left > 0, right < width)
        scores *= (row_weights[:, tf.newaxis] * column_weights)[..., tf.newaxis]
        above, before = top // stride, left // stride
        below, after = map_height - above - tf.shape(scores)[1], map_width - before - tf.shape(scores)[2]
        return tile + 1, blended + tf.pad(scores, [[0, 0], [above, below], [before, after], [0, 0]])

    _, blended = tf.while_loop(
        lambda tile, _: tile < rows * columns,
        add_tile,
        (0, tf.zeros(tf.stack([batch, map_height, map_width, num_classes]))),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, None, None, num_classes])),
        parallel_iterations=1,
    )
    return blended


def _weights(tiling: Tiling, count: tf.Tensor, fades_in: tf.Tensor, fades_out: tf.Tensor) -> tf.Tensor:
    """What the outputs along a side of a tile count: float32 [count]; with its neighbours' they add up to 1."""
    overlap = tiling.overlap // tiling.output_stride

    def ramp(places: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(2 * tf.cast(places, tf.float32) / overlap - 0.5, 0, 1)

    places = tf.range(count)
    rising = tf.where(fades_in, ramp(places), 1.0)
    return rising * tf.where(fades_out, 1 - ramp(places - (count - overlap - 1)), 1.0)
