"""Winograd's algorithm against the definition of a convolution."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf.training import winograd


def _convolved(convolution, x, w, dy):
    """The result of a convolution, and its gradients by the map and the kernel."""
    with tf.GradientTape() as tape:
        tape.watch([x, w])
        y = convolution(x, w)
    return y, *tape.gradient(y, [x, w], dy)


def _by_definition(x, w, rate):
    """Equation (1) of the paper: a sum over the taps."""
    height, width = x.shape[1:3]
    x = tf.pad(x, [[0, 0], [rate, rate], [rate, rate], [0, 0]])
    taps = [(i, j) for i in range(3) for j in range(3)]
    return tf.add_n([x[:, i * rate : i * rate + height, j * rate : j * rate + width] @ w[i, j] for i, j in taps])


def _float32(rng, *shape) -> tf.Tensor:
    return tf.constant(rng.normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("rate", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (21, 17)])
def test_value_and_gradients_are_the_convolutions(size, rate):
    rng = np.random.default_rng(0)
    x, w, dy = _float32(rng, 2, *size, 24), _float32(rng, 3, 3, 24, 40), _float32(rng, 2, *size, 40)
    found = tf.function(_convolved)(
        lambda x, w: winograd.convolution(x, winograd.transformed_kernel(w), rate), x, w, dy
    )
    expected = _convolved(
        lambda x, w: _by_definition(x, w, rate), *(tf.cast(tensor, tf.float64) for tensor in (x, w, dy))
    )
    for ours, exact in zip(found, expected, strict=True):
        scale = np.abs(exact).max()
        np.testing.assert_allclose(ours / scale, exact / scale, atol=1e-5)


def test_sizes_may_be_unknown_when_the_graph_is_made():
    rng = np.random.default_rng(0)
    w = _float32(rng, 3, 3, 8, 8)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 8])])
    def gradient(x):
        return _convolved(lambda x, w: winograd.convolution(x, winograd.transformed_kernel(w), 2), x, w, x)[1]

    for shape in ((1, 11, 7, 8), (3, 4, 13, 8)):
        x = _float32(rng, *shape)
        expected = _convolved(lambda x, w: _by_definition(x, w, 2), x, w, x)[1]
        np.testing.assert_allclose(gradient(x), expected, atol=1e-5 * np.abs(expected).max())


def test_memory_is_not_used_again_before_its_time():
    rng = np.random.default_rng(0)
    kernels = [_float32(rng, 3, 3, 16, 16) for _ in range(6)]
    transformed = tf.function(winograd.transformed_kernel)
    copies = [transformed(kernel).numpy().copy() for kernel in kernels]
    kept = [transformed(kernel) for kernel in kernels]
    for tensor, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(tensor, copy)


def test_saving():
    assert winograd.saving((1, 3, 3, 8), 1) == pytest.approx(81 / 25)
    assert winograd.saving((2, 41, 41, 8), 2) == pytest.approx(9 * 41**2 / (25 * 196))  # 7x7 tiles of 4 sub-maps
