"""The grid: sizes, padding, aligned resizing, against closed forms, scipy and torch."""

import numpy as np
import pytest
import tensorflow as tf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from deeplab_tf.models import geometry


@pytest.mark.parametrize("size, expected", [(321, 41), (513, 65), (241, 31), (161, 21), (8, 1), (9, 2), (1, 1)])
def test_map_sizes_of_the_paper(size, expected):
    assert geometry.map_size(size, 8) == expected


@pytest.mark.parametrize("scale, expected", [(0.75, 241), (0.5, 161), (1.0, 321), (1.25, 401), (1.5, 481)])
def test_scaled_sizes_of_the_paper(scale, expected):
    assert geometry.scaled_size(321, scale) == expected


@given(size=st.integers(1, 3000), output_stride=st.sampled_from([8, 16, 32]), scale=st.floats(0.2, 3))
@settings(max_examples=50)
def test_sizes_known_early_and_late_agree(size, output_stride, scale):
    padded = geometry.padded_size(size, output_stride)
    assert padded == min(n for n in range(1, size + output_stride, output_stride) if n >= size)
    late = tf.constant(size)
    assert int(geometry.padded_size(late, output_stride)) == padded
    assert int(geometry.scaled_size(late, scale)) == geometry.scaled_size(size, scale)
    scaled = geometry.scaled_size(padded, scale)
    n = geometry.scaled_map_size(size, padded, scaled, output_stride)
    assert int(geometry.scaled_map_size(late, tf.constant(padded), tf.constant(scaled), output_stride)) == n
    # The last output of the scaled image lies on the image, the next one does not.
    pixels = output_stride * np.arange(n + 1) * (padded - 1) / max(scaled - 1, 1)
    assert pixels[-2:-1] <= size - 1 or n == 1
    assert pixels[-1] > size - 1 or scaled == 1


@pytest.mark.parametrize("new_size", [(41, 31), (7, 81), (1, 5), (12, 17)])
def test_resize_is_torchs_with_aligned_corners(new_size):
    values = np.random.default_rng(0).normal(size=(2, 12, 17, 5)).astype("float32")
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values).permute(0, 3, 1, 2), size=new_size, mode="bilinear", align_corners=True
    )
    # Positions in float32: rounded by 2^-24 of a few dozen, times the values' slope of some units a position.
    np.testing.assert_allclose(geometry.resize(values, *new_size), expected.permute(0, 2, 3, 1), atol=1e-5)


def test_sample_anywhere_is_scipys_linear_spline():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1, 9, 6, 1)).astype("float32")
    rows, columns = rng.uniform(-2, 11, 20).astype("float32"), rng.uniform(-2, 8, 15).astype("float32")
    expected = ndimage.map_coordinates(
        values[0, :, :, 0], np.meshgrid(rows, columns, indexing="ij"), order=1, mode="nearest"
    )
    # As above.
    np.testing.assert_allclose(geometry.sample(values, rows, columns)[0, :, :, 0], expected, atol=1e-5)


@pytest.mark.parametrize("size", [(33, 17), (30, 12), (1, 8)])
def test_upsampled_scores_of_a_linear_map_are_linear(size):
    """Scores that are linear in the pixel position come back exactly at every pixel."""
    rows, columns = (8.0 * np.arange(geometry.map_size(geometry.padded_size(side, 8), 8)) for side in size)
    score_map = (3 * rows[:, None] - 2 * columns[None, :] + 5)[None, :, :, None].astype("float32")
    y, x = np.indices(size)
    np.testing.assert_allclose(
        geometry.upsample_score_map(score_map, *size, 8)[0, :, :, 0], 3 * y - 2 * x + 5, atol=1e-4
    )


def test_map_pixels():
    np.testing.assert_array_equal(geometry.map_pixels(321, 1.0, 8), np.arange(0, 321, 8))
    np.testing.assert_array_equal(geometry.map_pixels(321, 0.5, 8), np.arange(0, 321, 16))
    np.testing.assert_allclose(geometry.map_pixels(321, 0.75, 8), np.arange(31) * 320 / 30, rtol=1e-6)


def test_gradient_of_sampling_matches_finite_differences():
    rng = np.random.default_rng(0)
    values, direction = rng.normal(size=(2, 1, 5, 4, 2)).astype("float32")
    weights = rng.normal(size=(1, 9, 3, 2)).astype("float32")
    variable = tf.Variable(values)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(weights * geometry.resize(variable, 9, 3))
    change = np.sum(weights * (geometry.resize(values + direction, 9, 3) - geometry.resize(values, 9, 3)))
    assert np.sum(tape.gradient(loss, variable) * direction) == pytest.approx(change, rel=1e-4)


def test_a_long_thin_image_costs_what_its_pixels_cost():
    """A matrix of interpolation weights for a side of 2^20 pixels would have 2^39 numbers."""
    values = tf.reshape(tf.range(2.0**20), (1, 1, 2**20, 1))
    halved = geometry.resize(values, 1, 2**19 + 1)
    assert float(halved[0, 0, -1, 0]) == 2**20 - 1
    assert geometry.upsample_score_map(values[:, :, : 2**17], 1, 2**20, 8).shape == (1, 1, 2**20, 1)


def test_nothing_is_interpolated_by_a_product_that_a_gpu_rounds():
    """GPUs may round the factors of a float32 product to 10 bits (TF32), half a grey level of 128."""
    resize = tf.function(lambda image: geometry.resize(image, 41, 31))
    operations = resize.get_concrete_function(tf.TensorSpec([1, 81, 61, 3])).graph.get_operations()
    assert not {operation.type for operation in operations} & {"MatMul", "BatchMatMulV2", "Einsum", "Conv2D"}
