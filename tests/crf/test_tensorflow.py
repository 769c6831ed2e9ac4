"""The TensorFlow backend against the numba one, in graphs, batches and SavedModels."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf.crf import DenseCRF
from deeplab_tf.crf import tensorflow_backend as engine
from deeplab_tf.crf.features import bilateral_features
from deeplab_tf.errors import UserError

PARAMETERS = [
    {},
    {"bilateral_weight": 10.0, "bilateral_spatial_std": 80.0, "bilateral_color_std": 13.0, "iterations": 4},
]


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_equals_numba_on_a_photograph(photographs, parameters):
    image, probabilities = photographs[1]
    image, probabilities = image[:240, :320], np.ascontiguousarray(probabilities[:240, :320])
    expected = DenseCRF(class_threshold=0, **parameters)(image, probabilities)
    found = DenseCRF(backend="tensorflow", **parameters)(image, probabilities)
    assert isinstance(found, np.ndarray)
    # A pixel within rounding of the border of two simplices may be put into the other one; the mean shows how few.
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert np.abs(found - expected).mean() < 1e-6
    assert (found.argmax(-1) == expected.argmax(-1)).mean() > 0.9999


def test_filter_against_all_pairs(exact, small):
    features = bilateral_features(small[0], 20, 10)
    values = np.random.default_rng(0).random((features.shape[1], 4), np.float32)
    lattice = engine.build_lattice(list(tf.constant(features)), tf.zeros(features.shape[1], tf.int64), tf.constant(1))
    expected = exact(features) @ values
    # The lattice's 3% (test_exact.py).
    assert np.abs(engine.apply(lattice, values) - expected).mean() / expected.mean() < 0.03


@pytest.mark.slow
def test_traces_any_size_and_batch(small):
    image, probabilities = small
    crf = DenseCRF(4, 20, 20, 3, 3, 3, backend="tensorflow")
    traced = tf.function(
        crf,
        input_signature=[
            tf.TensorSpec([None, None, None, 3], tf.uint8),
            tf.TensorSpec([None, None, None, 3], tf.float32),
        ],
    )
    batch = traced(np.stack([image, image[::-1]]), np.stack([probabilities, probabilities[::-1]]))
    # The same operations on parts of a batch: scores of up to 20, rounded by 1e-6.
    np.testing.assert_allclose(batch[0], crf(image, probabilities), atol=1e-5)
    np.testing.assert_allclose(batch[1], crf(image[::-1], probabilities[::-1]), atol=1e-5)
    part = traced(image[None, :9, :7], probabilities[None, :9, :7])
    np.testing.assert_allclose(part[0], crf(image[:9, :7], probabilities[:9, :7]), atol=1e-5)


def test_single_tensors_and_labels(small):
    image, probabilities = small
    crf = DenseCRF(backend="tensorflow", iterations=2)
    labels = crf(tf.constant(image), tf.constant(probabilities), return_labels=True)
    assert labels.dtype == tf.uint8
    np.testing.assert_array_equal(labels, crf(image, probabilities).argmax(-1))


def test_grey_tensors_and_batches_of_them(small):
    image, probabilities = small
    crf = DenseCRF(backend="tensorflow", iterations=2)
    expected = crf(image[..., 0], probabilities)
    grey, probabilities = tf.constant(image[..., 0]), tf.constant(probabilities)
    np.testing.assert_array_equal(crf(grey, probabilities), expected)
    # The bound of a batch, above.
    np.testing.assert_allclose(crf(grey[None], probabilities[None])[0], expected, atol=1e-5)


def test_tensors_that_it_does_not_take_are_named(small):
    image, probabilities = map(tf.constant, small)
    labels = tf.argmax(probabilities, -1)
    for images, of_them, arguments, message in (
        (image[None, None], probabilities[None, None], {}, "one image or a batch.*'numba' takes volumes"),
        (image, labels, {}, r"floats \[H, W, C\] or \[B, H, W, C\], found int64 \(20, 24\)"),
        (image[None, None], probabilities, {}, r"found \(1, 1, 1, 20, 24, 3\)"),
        (image, probabilities, {"spatial_std": (1, 2, 3)}, "spatial_std has 3 values, the image 2 axes"),
        (image, probabilities, {"bilateral_color_std": (1, 2)}, "has 2 values, the image 3 channels"),
        (image, probabilities, {"compatibility": np.eye(4)}, "for 4 classes, the probabilities have 3"),
    ):
        with pytest.raises(UserError, match=message):
            DenseCRF(backend="tensorflow", **arguments)(images, of_them)
    with pytest.raises(UserError, match="label maps are taken as arrays only"):
        DenseCRF(backend="tensorflow")(image, labels, num_classes=3)


@pytest.mark.slow
def test_survives_a_saved_model(small, tmp_path):
    image, probabilities = small
    module = tf.Module()
    crf = DenseCRF(backend="tensorflow", iterations=3)
    module.refine = tf.function(
        crf, input_signature=[tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([None, None, 3], tf.float32)]
    )
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    # The same graph, saved and loaded: the bound is that of a batch, above.
    np.testing.assert_allclose(loaded.refine(image, probabilities), crf(image, probabilities), atol=1e-5)


def test_trace(small):
    """The maps of every iteration are those of the numba backend."""
    ours = DenseCRF(backend="tensorflow", iterations=3).trace(*small)
    for (scores, beliefs), expected in zip(ours, DenseCRF(class_threshold=0, iterations=3).trace(*small), strict=True):
        # Sums of some hundred products in another order; scores of up to 20 have float32 steps of 2e-6.
        np.testing.assert_allclose(scores, expected.scores, atol=1e-3)
        np.testing.assert_allclose(beliefs, expected.beliefs, atol=1e-4)


def test_gradient_of_the_filter(small):
    """The filter is linear: its gradient is the transpose, <a, K b> = <K' a, b>."""
    features = bilateral_features(small[0], 20, 20)
    count = features.shape[1]
    lattice = engine.build_lattice(list(tf.constant(features)), tf.zeros(count, tf.int64), tf.constant(1))
    generator = np.random.default_rng(0)
    a, b = (tf.constant(generator.normal(size=(count, 2))) for _ in range(2))
    with tf.GradientTape() as tape:
        tape.watch(b)
        product = tf.reduce_sum(a * engine.apply(lattice, b))
    transposed = tape.gradient(product, b)
    # float64, thousands of products: 2^-53 times their number.
    np.testing.assert_allclose(tf.reduce_sum(transposed * b), product, rtol=1e-10)
    # and numerically, in one direction
    step = tf.constant(generator.normal(size=(count, 2)))
    change = tf.reduce_sum(a * engine.apply(lattice, b + 1e-4 * step)) - product
    # A difference of two sums of thousands in float64, over 1e-4.
    np.testing.assert_allclose(change / 1e-4, tf.reduce_sum(transposed * step), rtol=1e-6)
