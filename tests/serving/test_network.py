"""The network as it is served against the one it comes from."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf import DeepLab
from deeplab_tf.serving.network import inference_network
from tests.helpers import randomise


@pytest.mark.parametrize(
    ("backbone", "head", "options"),
    [
        ("resnet_tiny", "linear", {}),
        ("resnet_tiny", "large_fov", {"batch_norm": "trainable", "output_stride": 16}),
        ("resnet_tiny", "aspp_l", {"atrous": "deinterlace", "block_style": "pytorch"}),
        ("resnet_tiny", "aspp_s", {"scales": (0.5, 1.0), "preprocessing": "torch"}),
        ("vgg16", "aspp_s", {}),
        ("vgg16", "large_fov", {"average_pool": True, "dropout": 0.9}),
        ("vgg16", "fc_4x4_r8", {}),
    ],
)
def test_score_maps_are_those_of_the_model(backbone, head, options):
    keras.utils.set_random_seed(0)
    model = DeepLab(backbone, head, num_classes=5, **{"scales": (1.0,)} | options)
    randomise(model, seed=0)
    served = inference_network(model, "float32")
    graph = tf.function(lambda images: model.score_maps(images, network=served)["fused"])
    for size in ((65, 97), (50, 41)):
        images = np.random.default_rng(1).uniform(0, 255, (2, *size, 3)).astype(np.float32)
        expected = model(images).numpy()
        np.testing.assert_allclose(graph(images), expected, atol=1e-5 * np.abs(expected).max())


def test_nothing_is_left_of_batch_norm_and_the_branches_are_one_product():
    model = DeepLab("resnet_tiny", "aspp_l", num_classes=5, scales=(1.0,))
    served = inference_network(model, "bfloat16")
    graph = tf.function(served).get_concrete_function(tf.TensorSpec([1, None, None, 3], tf.float32)).graph
    operations = [operation.type for operation in graph.get_operations()]
    convolutions = [layer for layer in model.network.layers if isinstance(layer, keras.layers.Conv2D)]
    assert operations.count("Conv2D") == len(convolutions) - 4
    assert operations.count("MatMul") == 1
    assert not {"FusedBatchNormV3", "Rsqrt", "ReadVariableOp"} & set(operations)
    assert all(op.outputs[0].dtype == tf.bfloat16 for op in graph.get_operations() if op.type == "Conv2D")
