"""Atrous convolution: both implementations against a direct sum, with gradients."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf.errors import UserError
from deeplab_tf.models.atrous import IMPLEMENTATIONS, AtrousConv2D
from deeplab_tf.training.recipe import Recipe


def direct_sum(x: np.ndarray, kernel: np.ndarray, rate: int) -> np.ndarray:
    """y[i, j] = sum over taps (a, b) of x[i + rate a - reach/2, j + rate b - reach/2] w[a, b], zero outside."""
    side = kernel.shape[0]
    before = (side - 1) * rate // 2
    height, width = x.shape[1:3]
    padded = np.pad(x, [(0, 0), (before, side * rate), (before, side * rate), (0, 0)])
    return sum(
        padded[:, rate * a : rate * a + height, rate * b : rate * b + width] @ kernel[a, b]
        for a in range(side)
        for b in range(side)
    )


@pytest.mark.parametrize("channels, filters", [(6, 5), (98, 2)])
@pytest.mark.parametrize("side, rate", [(3, 1), (3, 2), (3, 4), (3, 12), (3, 24), (1, 1), (4, 4), (4, 8), (7, 4)])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_equals_the_direct_sum(implementation, side, rate, channels, filters):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 13, 22, channels)).astype("float32")
    layer = AtrousConv2D(filters, side, rate=rate, implementation=implementation, bias_initializer="normal")
    y = layer(x)
    kernel, bias = (w.numpy() for w in layer.weights)
    # Sums of 49 x 98 products at most, in another order: about sqrt(n) roundings of 2^-24.
    np.testing.assert_allclose(y, direct_sum(x, kernel, rate) + bias, atol=1e-5 * max(1, np.abs(y).max()))


@pytest.mark.parametrize("filters", [2, 9])
@pytest.mark.parametrize("rate", [2, 6, 24])
def test_gradients_of_both_implementations_agree(rate, filters):
    x = tf.Variable(np.random.default_rng(0).normal(size=(2, 21, 18, 20)).astype("float32"))
    weights = np.random.default_rng(1).normal(size=(2, 21, 18, filters)).astype("float32")
    holes = AtrousConv2D(filters, 3, rate=rate)
    dense = AtrousConv2D(filters, 3, rate=rate, implementation="deinterlace")
    gradients = []
    for layer in (holes, dense):
        layer.build(x.shape)
        layer.set_weights(holes.get_weights())
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(weights * layer(x))
        gradients.append(tape.gradient(loss, [x, *layer.trainable_weights]))
    for a, b in zip(*gradients, strict=True):
        # Sums over 2 x 21 x 18 positions of products of about 10, in another order: sqrt(756) roundings of 2^-21.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("filters", [2, 90])
@pytest.mark.parametrize("rate", [2, 9, 24])
@pytest.mark.parametrize("implementation", ["dilation", "deinterlace"])
def test_sizes_unknown_to_the_graph(implementation, rate, filters):
    """Some taps fall beside the map altogether, which a graph for any size learns late."""
    x = np.random.default_rng(0).normal(size=(2, 21, 8, 32)).astype("float32")
    layer = AtrousConv2D(filters, 3, rate=rate, implementation=implementation)
    late = tf.function(layer, input_signature=[tf.TensorSpec([None, None, None, 32])])
    # Sums of 288 products at most, in another order.
    np.testing.assert_allclose(late(x), layer(x), atol=1e-5)


def test_layer_round_trips_through_its_config():
    layer = AtrousConv2D(5, 3, rate=4, implementation="deinterlace", activation="relu", name="fc6")
    copy = AtrousConv2D.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    assert (copy.rate, copy.dilation_rate, copy.implementation, copy.padding) == (4, (4, 4), "deinterlace", "same")


def test_unknown_implementation():
    """ "winograd" was one for a while."""
    with pytest.raises(UserError, match="'winograd'.*expected one of dilation, deinterlace"):
        AtrousConv2D(5, 3, implementation="winograd")
    with pytest.raises(UserError, match="--atrous=winograd: expected one of dilation, deinterlace"):
        Recipe(atrous="winograd")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_gradients_do_not_depend_on_how_the_graph_is_run(dtype):
    """A CPU lacks the gradients of TensorFlow's own dilated convolution, but where oneDNN replaces it in a graph."""
    layer = AtrousConv2D(16, 3, rate=2, dtype=dtype)
    images = tf.constant(np.random.default_rng(0).normal(size=(1, 9, 11, 8)), dtype)
    layer.build(images.shape)

    def gradient():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(layer(images), "float32") ** 2)
        return tape.gradient(loss, layer.kernel.value)

    eager = gradient().numpy()
    assert np.abs(eager).max() > 1
    # float16 rounds by 2^-12, in each of the sums of products.
    np.testing.assert_allclose(tf.function(gradient)().numpy(), eager, rtol=1e-2, atol=1e-3 * np.abs(eager).max())


@pytest.mark.parametrize(("device", "rearranged"), [("GPU", False), ("CPU", True)])
def test_a_gpu_dilates_without_rearranging_the_map(device, rearranged, monkeypatch):
    """Only traced: a CPU has no gradient of that convolution everywhere."""
    devices = tf.config.list_logical_devices
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: devices("CPU") if kind == device else [])
    layer = AtrousConv2D(64, 3, rate=2)
    layer.build((1, 33, 33, 64))

    @tf.function
    def gradient(image):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(image))
        return tape.gradient(total, layer.trainable_variables)

    graph = gradient.get_concrete_function(tf.TensorSpec([1, 33, 33, 64])).graph
    operations = {operation.type for operation in graph.get_operations()}
    assert ("SpaceToBatchND" in operations) == rearranged and "Conv2DBackpropFilter" in operations
