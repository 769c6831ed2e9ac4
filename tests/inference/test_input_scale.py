"""--input_scale: training and inference see images scaled the same way."""

import numpy as np
import tensorflow as tf

from deeplab_tf import Segmenter
from deeplab_tf.data.augmentation import crop_image, draw_window, resize_images
from deeplab_tf.training import Recipe


def test_a_training_crop_is_the_image_that_inference_sees(photograph):
    image = photograph(128, 128)
    image[::2, ::2] = 255  # what a resampling that takes every other pixel sees alone
    scales = tuple(Recipe(input_scale=0.5, random_scale=(1, 1)).input_scale * scale for scale in (1.0, 1.0))
    example = {"label": np.zeros((128, 128), np.uint8), "encoded": tf.io.encode_png(image)}
    window = draw_window(example, tf.constant([0.3, 0.3, 0.3, 0.9]), 64, scales, mirror=False)
    crop = crop_image(window, 64, (0, 0, 0)).numpy()
    np.testing.assert_array_equal(crop, resize_images(image, (64, 64)).numpy())
    mean = image.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    assert np.abs(crop - mean).max() <= 0.5


def test_inference_is_that_of_the_scaled_image_interpolated_back(segmenter, photograph):
    image = photograph(80, 101)
    half = Segmenter(segmenter.model, info=segmenter.info, input_scale=0.5)
    result = half(image)
    of_scaled = segmenter(resize_images(image, (40, 50)).numpy()).probabilities
    expected = tf.image.resize(of_scaled, (80, 101)).numpy()
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-6)
    np.testing.assert_array_equal(result.labels, result.probabilities.argmax(-1))
    np.testing.assert_allclose(result.probabilities.sum(-1), 1, atol=1e-5)  # sums of 8 float32
    assert half.settings["input_scale"] == 0.5 and "input scale 0.5" in repr(half)


def test_the_last_evaluation_is_at_the_scale_of_the_training():
    assert Recipe(input_scale=0.5).inference_options()["input_scale"] == 0.5
