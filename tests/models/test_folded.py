"""The folded network against the one it comes from."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf import DeepLab
from deeplab_tf.models.folded import FoldedNetwork
from tests.helpers import randomise

pytestmark = pytest.mark.usefixtures("whole_network")


@pytest.mark.parametrize(
    ("backbone", "head", "options"),
    [
        ("resnet_tiny", "linear", {}),
        ("resnet_tiny", "large_fov", {"batch_norm": "trainable", "output_stride": 16}),
        pytest.param(
            *("resnet_tiny", "aspp_l", {"atrous": "deinterlace", "block_style": "pytorch"}), marks=pytest.mark.slow
        ),
        pytest.param("resnet_tiny", "aspp_s", {"scales": (0.5, 1.0), "preprocessing": "torch"}, marks=pytest.mark.slow),
        pytest.param("efficientnet_lite0", "aspp_s", {}, marks=pytest.mark.slow),
        pytest.param("vgg16", "aspp_s", {}, marks=pytest.mark.full_size),
        pytest.param("vgg16", "large_fov", {"average_pool": True, "dropout": 0.9}, marks=pytest.mark.slow),
        pytest.param("vgg16", "fc_4x4_r8", {}, marks=pytest.mark.full_size),
    ],
)
@pytest.mark.parametrize("constants", [False, True])
def test_score_maps_are_those_of_the_model(backbone, head, options, constants):
    keras.utils.set_random_seed(0)
    model = DeepLab(backbone, head, num_classes=5, **{"scales": (1.0,)} | options)
    randomise(model, seed=0)
    network = FoldedNetwork(model)
    arrays = network.constants() if constants else None

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3])])
    def graph(images):
        weights = arrays or network.weights()
        return model.score_maps(images, network=lambda inputs: network(inputs, weights))["fused"]

    for size in ((65, 97), (50, 41)):
        images = np.random.default_rng(1).uniform(0, 255, (2, *size, 3)).astype(np.float32)
        expected = model(images).numpy()
        # Each layer's rounding, 2^-24 of sums of up to 4,608 products, as helpers.rounding counts it, without its room.
        np.testing.assert_allclose(graph(images), expected, atol=1e-5 * np.abs(expected).max())


def operations_of(network, weights, precision):
    function = tf.function(lambda images: network(images, weights(), precision))
    return function.get_concrete_function(tf.TensorSpec([1, None, None, 3], tf.float32)).graph.get_operations()


def test_constants_leave_nothing_of_batch_norm_and_the_branches_are_one_product():
    model = DeepLab("resnet_tiny", "aspp_l", num_classes=5, scales=(1.0,))
    network = FoldedNetwork(model)
    constants = network.constants()
    operations = operations_of(network, lambda: constants, "bfloat16")
    types = [operation.type for operation in operations]
    convolutions = [layer for layer in model.network.layers if isinstance(layer, keras.layers.Conv2D)]
    assert types.count("Conv2D") == types.count("BiasAdd") == len(convolutions) - 4
    assert types.count("MatMul") == 1
    assert not {"FusedBatchNormV3", "Rsqrt", "ReadVariableOp"} & set(types)
    assert all(operation.outputs[0].dtype == tf.bfloat16 for operation in operations if operation.type == "Conv2D")


def test_live_weights_are_those_of_the_variables_when_the_graph_runs():
    model = randomise(DeepLab("resnet_tiny", "linear", num_classes=5, scales=(1.0,)))
    network = FoldedNetwork(model)
    graph = tf.function(lambda images: network(images, network.weights()))
    images = tf.random.stateless_uniform((1, 33, 33, 3), (0, 0), -100, 100)
    before = graph(images)
    for name in ("gamma", "moving_mean"):
        weight = getattr(model.network.get_layer("bn3a_branch2b"), name)
        weight.assign(weight * 2)
    expected = model.network(images)
    assert np.abs(expected - before).max() > 1e-2
    np.testing.assert_allclose(graph(images), expected, atol=1e-5 * np.abs(expected).max())
