"""Labels and probabilities of every pixel against the graph that the exported model runs, and against the mirror."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf.inference.upsampling import upsampled_labels, upsampled_probabilities
from deeplab_tf.models import geometry


@pytest.mark.parametrize(
    ("height", "width", "stride", "classes"), [(33, 41, 8, 21), (50, 7, 8, 2), (70, 95, 16, 5), (1, 1, 8, 3)]
)
def test_against_interpolation_as_a_product_of_matrices(height, width, stride, classes):
    sides = [geometry.map_size(geometry.padded_size(side, stride), stride) for side in (height, width)]
    score_map = np.random.default_rng(0).normal(0, 3, (1, *sides, classes)).astype(np.float32)
    logits = geometry.upsample_score_map(tf.constant(score_map), height, width, stride)[0]
    probabilities = upsampled_probabilities(score_map, height, width, stride)
    np.testing.assert_array_equal(upsampled_labels(score_map, height, width, stride), np.argmax(logits, -1))
    np.testing.assert_allclose(probabilities, tf.nn.softmax(logits), atol=1e-6)


def test_scores_far_apart_do_not_overflow():
    score_map = np.array([-3e4, 0, 3e4], np.float32).reshape(1, 1, 1, 3)
    np.testing.assert_array_equal(upsampled_probabilities(score_map, 1, 1, 8)[0, 0], [0, 0, 1])


def test_of_equal_scores_the_first_class_wins():
    assert (upsampled_labels(np.zeros((1, 3, 3, 4), np.float32), 17, 17, 8) == 0).all()


@pytest.mark.parametrize("width", [41, 44])  # the mirrored grid sits on the other one, or between
def test_the_mean_of_an_image_and_its_mirror_image(width):
    rng = np.random.default_rng(1)
    score_maps = rng.normal(size=(2, 5, geometry.map_size(geometry.padded_size(width, 8), 8), 6)).astype(np.float32)
    direct, mirrored = (geometry.upsample_score_map(tf.constant(m[None]), 33, width, 8)[0].numpy() for m in score_maps)
    mean = (direct + mirrored[:, ::-1]) / 2
    np.testing.assert_allclose(upsampled_probabilities(score_maps, 33, width, 8), tf.nn.softmax(mean), atol=1e-6)
    np.testing.assert_array_equal(upsampled_labels(score_maps, 33, width, 8), mean.argmax(-1))
