"""The loss against NumPy, the labels on the grid against slicing."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf import DeepLab
from deeplab_tf.training import labels_on_grid, position_weights, summed_cross_entropy
from deeplab_tf.training.loss import interpolated_to_labels


def test_cross_entropy_in_numpy():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2, 5, 4, 3)).astype(np.float32)
    labels = rng.choice([0, 1, 2, 255], size=(2, 5, 4)).astype(np.uint8)
    expected = 0.0
    for index in np.ndindex(labels.shape):
        if labels[index] != 255:
            logits = scores[index].astype(np.float64)
            expected += np.log(np.exp(logits).sum()) - logits[labels[index]]
    assert float(summed_cross_entropy(scores, labels, position_weights(labels))) == pytest.approx(expected, rel=1e-5)


def test_ignored_positions_have_no_gradient():
    scores = tf.Variable(tf.random.stateless_normal([1, 2, 2, 3], [0, 0]))
    labels = np.array([[[255, 0], [1, 255]]], np.uint8)
    with tf.GradientTape() as tape:
        loss = summed_cross_entropy(scores, labels, position_weights(labels))
    gradient = tape.gradient(loss, scores).numpy()
    assert (gradient[0, 0, 0] == 0).all() and (gradient[0, 1, 1] == 0).all()
    assert (gradient[0, 0, 1] != 0).all()


def test_class_weights_multiply_the_loss_of_their_class():
    scores = np.random.default_rng(1).normal(size=(1, 4, 4, 3)).astype(np.float32)
    labels = np.random.default_rng(2).choice([0, 1, 2, 255], size=(1, 4, 4))
    weights = position_weights(labels, class_weights=[0.5, 2.0, 7.0])
    alone = [
        float(summed_cross_entropy(scores, labels, position_weights(np.where(labels == c, c, 255)))) for c in range(3)
    ]
    together = float(summed_cross_entropy(scores, labels, weights))
    assert together == pytest.approx(0.5 * alone[0] + 2 * alone[1] + 7 * alone[2], rel=1e-5)


def test_hard_fraction_keeps_the_largest_losses():
    scores = np.random.default_rng(3).normal(size=(1, 5, 5, 3)).astype(np.float32)
    labels = np.random.default_rng(4).choice([0, 1, 2, 255], size=(1, 5, 5))
    each = [
        float(
            summed_cross_entropy(scores[:, i : i + 1, j : j + 1], labels[:, i : i + 1, j : j + 1], np.float32([[[1]]]))
        )
        for i, j in zip(*np.nonzero(labels[0] != 255), strict=True)
    ]
    hardest = sorted(each)[-int(np.ceil(0.3 * len(each))) :]
    got = float(summed_cross_entropy(scores, labels, position_weights(labels), hard_fraction=0.3))
    assert got == pytest.approx(sum(hardest) / 0.3, rel=1e-5)


@pytest.mark.parametrize("size", [321, 129, 160, 97])
def test_unscaled_grid_is_every_eighth_pixel(size):
    labels = np.random.default_rng(size).integers(0, 21, (1, size, size)).astype(np.uint8)
    np.testing.assert_array_equal(labels_on_grid(labels, 8), labels[:, ::8, ::8])


def test_scaled_grid_is_the_nearest_pixel():
    labels = np.arange(321)[np.newaxis, :, np.newaxis] * np.ones((1, 1, 321), int)
    at_half = labels_on_grid(labels, 8, 0.5).numpy()[0, :, 0]
    np.testing.assert_array_equal(at_half, np.arange(0, 321, 16))  # 161 pixels, 21 positions
    at_three_quarters = labels_on_grid(labels, 8, 0.75).numpy()[0, :, 0]
    np.testing.assert_array_equal(at_three_quarters, np.floor(np.linspace(0, 320, 31) + 0.5))


def test_by_image_is_the_mean_over_images_of_their_means():
    """As ten images accumulated one by one, each normalised by its own labelled positions."""
    rng = np.random.default_rng(5)
    scores = rng.normal(size=(3, 6, 5, 4)).astype(np.float32)
    labels = rng.choice([0, 1, 2, 3, 255], size=(3, 6, 5))
    labels[1, 1:] = 255
    means = []
    for image in range(3):
        alone = labels[image : image + 1]
        summed = float(summed_cross_entropy(scores[image : image + 1], alone, position_weights(alone)))
        means.append(summed / np.count_nonzero(alone != 255))
    weights = position_weights(labels, by_image=True)
    together = float(summed_cross_entropy(scores, labels, weights) / tf.reduce_sum(weights))
    assert together == pytest.approx(np.mean(means), rel=1e-5)
    assert float(tf.reduce_sum(position_weights(np.full((1, 2, 2), 255), by_image=True))) == 0


def test_a_scaled_score_map_is_interpolated_to_the_labels_as_the_fused_one_is():
    """With a single scale below 1 the fused map is that scale's, interpolated."""
    model = DeepLab("resnet_tiny", "linear", 4, scales=(0.75, 1.0))
    images = np.random.default_rng(0).uniform(0, 255, (1, 97, 129, 3)).astype(np.float32)
    own = model.score_maps(images)["scale_0.75"]
    fused = model.score_maps(images, scales=(0.75,))["fused"]
    found = interpolated_to_labels(own, 0.75, 97, 129, 8)
    np.testing.assert_allclose(found, fused, atol=1e-5 * np.abs(fused).max())
