"""The loss of the paper: cross-entropy over the labelled positions of every score map."""

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


def summed_cross_entropy(scores: tf.Tensor, labels: tf.Tensor, ignore_label: int = IGNORE_LABEL) -> tf.Tensor:
    """Cross-entropy summed over the labelled positions.

    The sum is not divided here: over several replicas or micro-batches every labelled position weighs the same only
    when all of them are divided by the number of labelled positions in the whole batch.

    Args:
        scores: [B, h, w, C], the score map (logits).
        labels: integers [B, h, w]; `ignore_label` is left out.
        ignore_label: the label of positions without a class.

    Returns:
        float32 [].
    """
    labels = tf.cast(labels, tf.int32)
    labelled = labels != ignore_label
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.where(labelled, labels, 0), logits=tf.cast(scores, tf.float32)
    )
    return tf.reduce_sum(tf.where(labelled, losses, 0.0))
