"""The loss of the paper: cross-entropy over the labelled positions of every score map."""

from collections.abc import Sequence

import tensorflow as tf

from deeplab_tf.classes import IGNORE_LABEL
from deeplab_tf.models import geometry


def labels_on_grid(labels: tf.Tensor, output_stride: int, scale: float = 1.0) -> tf.Tensor:
    """Labels at the pixels that the positions of a score map sit on.

    Position i of the map of an unscaled image sits on pixel output_stride * i, so this is `labels[:, ::8, ::8]`;
    position i of the map of a scaled image sits on that pixel there, and takes the nearest one of the unscaled image.

    Args:
        labels: integers [B, H, W], H and W static.
        output_stride: input pixels per position.
        scale: of the input that the map is computed from.

    Returns:
        [B, h, w], same type as `labels`, with as many positions as the score map has.
    """
    for axis in (1, 2):
        pixels = geometry.map_pixels(labels.shape[axis], scale, output_stride)
        labels = tf.gather(labels, tf.cast(tf.floor(pixels + 0.5), tf.int32), axis=axis)
    return labels


def interpolated_to_labels(
    score_map: tf.Tensor, scale: float, height: int, width: int, output_stride: int
) -> tf.Tensor:
    """The score map of a scaled input, interpolated to the positions of the unscaled one, corners aligned.

    The release takes the loss of scale 0.75 there, whose own positions sit between labelled pixels; 0.5 and 1 sit on
    some, and keep their own.

    Args:
        score_map: float32 [B, h, w, C] of the input at `scale`.
        scale: of the input.
        height: of the image, pixels.
        width: likewise.
        output_stride: input pixels per position.

    Returns:
        float32 [B, (height-1)//output_stride + 1, (width-1)//output_stride + 1, C].
    """
    positions = []
    for side in (height, width):
        padded = geometry.padded_size(side, output_stride)
        count = geometry.map_size(side, output_stride)
        positions.append(geometry.aligned_positions(count, padded, geometry.scaled_size(padded, scale)))
    return geometry.sample(score_map, *positions)


def position_weights(
    labels: tf.Tensor,
    ignore_label: int = IGNORE_LABEL,
    class_weights: Sequence[float] | None = None,
    by_image: bool = False,
) -> tf.Tensor:
    """The weight of each position in the loss: 1 where labelled (in the paper), 0 where ignored.

    Args:
        labels: integers [B, h, w].
        ignore_label: the label of positions without a class.
        class_weights: a weight for each class instead of 1 (beyond the paper).
        by_image: whether the weights of each image add up to 1, however many of its positions are labelled, as in the
            release's ResNet-101, which takes one image at a time.

    Returns:
        float32 [B, h, w].
    """
    labels = tf.cast(labels, tf.int64)  # Comparisons of int32 leave a GPU.
    labelled = labels != ignore_label
    weights = 1.0 if class_weights is None else tf.gather(tf.constant(class_weights), tf.where(labelled, labels, 0))
    weights = tf.where(labelled, weights, 0.0)
    if by_image:
        weights = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, axis=(1, 2), keepdims=True))
    return weights


def summed_cross_entropy(
    scores: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, hard_fraction: float = 1.0
) -> tf.Tensor:
    """Cross-entropy times weight, summed over the positions.

    The sum is not divided here: over several replicas or micro-batches every labelled position weighs the same only
    when all of them are divided by the sum of the weights of the whole batch.

    Args:
        scores: [B, h, w, C], the score map (logits).
        labels: integers [B, h, w]; what they are where the weight is 0 does not matter.
        weights: float32 [B, h, w], `position_weights` of the labels.
        hard_fraction: below 1, only this fraction of the weighted positions counts, those of the largest loss, and
            the sum is divided by the fraction, so the scale of the loss is unchanged (beyond the paper).

    Returns:
        float32 [].
    """
    labels = tf.where(weights > 0, tf.cast(labels, tf.int64), 0)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=tf.cast(scores, tf.float32))
    losses = tf.where(weights > 0, losses * weights, 0.0)
    if hard_fraction < 1.0:
        counting = tf.reduce_sum(tf.cast(weights > 0, tf.float32))
        hardest = tf.cast(tf.math.ceil(hard_fraction * counting), tf.int32)
        losses = tf.math.top_k(tf.reshape(losses, [-1]), hardest, sorted=False).values / hard_fraction
    return tf.reduce_sum(losses)
