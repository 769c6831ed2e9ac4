"""The loss of the paper: cross-entropy over the labelled positions of every score map."""

from collections.abc import Sequence

import tensorflow as tf

from deeplab_tf.models import geometry

IGNORE_LABEL = 255


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


def position_weights(
    labels: tf.Tensor, ignore_label: int = IGNORE_LABEL, class_weights: Sequence[float] | None = None
) -> tf.Tensor:
    """What each position counts for in the loss: 1 where labelled (in the paper), 0 where ignored.

    Args:
        labels: integers [B, h, w].
        ignore_label: the label of positions without a class.
        class_weights: a weight for each class instead of 1 (beyond the paper).

    Returns:
        float32 [B, h, w].
    """
    labels = tf.cast(labels, tf.int32)
    labelled = labels != ignore_label
    weights = 1.0 if class_weights is None else tf.gather(tf.constant(class_weights), tf.where(labelled, labels, 0))
    return tf.where(labelled, weights, 0.0)


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
            they count the more, so that the sum stays of the same size (beyond the paper).

    Returns:
        float32 [].
    """
    labels = tf.where(weights > 0, tf.cast(labels, tf.int32), 0)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=tf.cast(scores, tf.float32))
    losses = tf.where(weights > 0, losses * weights, 0.0)
    if hard_fraction < 1.0:
        counting = tf.reduce_sum(tf.cast(weights > 0, tf.float32))
        hardest = tf.cast(tf.math.ceil(hard_fraction * counting), tf.int32)
        losses = tf.math.top_k(tf.reshape(losses, [-1]), hardest, sorted=False).values / hard_fraction
    return tf.reduce_sum(losses)
