"""The networks: parameter counts in closed form, dense against sparse, layer names, frozen batch norm."""

import keras
import numpy as np
import pytest

from deeplab_tf import DeepLab
from deeplab_tf.models import architectures
from tests.helpers import assert_same_scores, randomise

pytestmark = pytest.mark.usefixtures("whole_network")


def vgg_parameters(head: str, classes: int) -> int:
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    convolutions = sum(9 * a * b + b for a, b in zip(widths, widths[1:], strict=False))
    side, filters, branches = {
        "fc_7x7_r4": (7, 4096, 1),
        "fc_4x4_r4": (4, 4096, 1),
        "fc_4x4_r8": (4, 4096, 1),
        "large_fov": (3, 1024, 1),
        "aspp_s": (3, 1024, 4),
        "aspp_l": (3, 1024, 4),
    }[head]
    branch = (side**2 * 512 + 1) * filters + (filters + 1) * filters + (filters + 1) * classes
    return convolutions + branches * branch


def resnet_parameters(blocks: tuple, head: str, classes: int) -> int:
    """Kernels, scales and offsets; the running statistics are not parameters."""
    total = 49 * 3 * 64 + 2 * 64
    previous = 64
    for n, width in zip(blocks, (64, 128, 256, 512), strict=True):
        total += previous * 4 * width + 2 * 4 * width  # the projection
        for _ in range(n):
            total += previous * width + 9 * width * width + width * 4 * width + 2 * (width + width + 4 * width)
            previous = 4 * width
    side, branches = {"linear": (1, 1), "large_fov": (3, 1), "aspp_s": (3, 4), "aspp_l": (3, 4), "aspp_6_12": (3, 2)}[
        head
    ]
    return total + branches * (side**2 * 2048 + 1) * classes


def parameters(model: DeepLab) -> int:
    return sum(w.path.count("moving_") == 0 and int(np.prod(w.shape)) for w in model.network.weights)


@pytest.mark.parametrize(
    "head, millions",
    [
        pytest.param("fc_7x7_r4", 134.3, marks=pytest.mark.slow),
        pytest.param("fc_4x4_r4", 65.1, marks=pytest.mark.slow),
        ("fc_4x4_r8", 65.1),
        ("large_fov", 20.5),
        ("aspp_s", 37.9),
        ("aspp_l", 37.9),
    ],
)
def test_parameters_of_vgg16(head, millions):
    count = parameters(DeepLab("vgg16", head))
    assert count == vgg_parameters(head, 21)
    assert round(count / 1e6, 1) == millions


@pytest.mark.parametrize("head", architectures.RESNET_HEADS)
@pytest.mark.parametrize(
    "backbone, blocks", [pytest.param("resnet101", (3, 4, 23, 3), marks=pytest.mark.slow), ("resnet50", (3, 4, 6, 3))]
)
def test_parameters_of_resnet(backbone, blocks, head):
    assert parameters(DeepLab(backbone, head)) == resnet_parameters(blocks, head, 21)


@pytest.mark.parametrize(
    "backbone, head, style",
    [
        ("resnet_tiny", "linear", "caffe"),
        ("resnet_tiny", "large_fov", "caffe"),
        ("resnet_tiny", "large_fov", "pytorch"),  # strides in the 3x3
        pytest.param("resnet50", "linear", "caffe", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("output_stride", [16, 32])
def test_dense_resnet_agrees_with_sparse_on_the_sparse_grid(backbone, head, style, output_stride):
    dense = DeepLab(backbone, head, 5, 8, scales=(1.0,), block_style=style)
    sparse = DeepLab(backbone, head, 5, output_stride, scales=(1.0,), block_style=style)
    randomise(dense)
    sparse.set_weights(dense.get_weights())
    image = np.random.default_rng(0).uniform(0, 255, (1, 161, 129, 3))
    every = output_stride // 8
    expected = sparse(image)
    assert_same_scores(dense(image)[:, ::every, ::every], expected)


@pytest.mark.parametrize("output_stride", [pytest.param(16, marks=pytest.mark.slow), 32])
def test_dense_vgg_agrees_with_sparse_up_to_conv5_3(output_stride):
    """Further on it cannot: pool5 reaches one position of its own grid in each network, as in the released models."""
    models = [DeepLab("vgg16", "large_fov", 5, stride, scales=(1.0,)) for stride in (8, output_stride)]
    randomise(models[0])
    models[1].set_weights(models[0].get_weights())
    image = np.random.default_rng(0).uniform(-100, 100, (1, 129, 97, 3))
    dense, sparse = (keras.Model(m.network.input, m.network.get_layer("conv5_3").output)(image) for m in models)
    assert_same_scores(dense[:, ::2, ::2], sparse)


@pytest.mark.slow
def test_names_are_caffes():
    names = {layer.name for layer in DeepLab("resnet101", "aspp_l").network.layers}
    assert {"conv1", "bn_conv1", "res2a_branch1", "bn3b3_branch2b", "res4b22_branch2c", "res5c_branch2a"} <= names
    assert {"fc1_c0", "fc1_c1", "fc1_c2", "fc1_c3"} <= names
    names = {layer.name for layer in DeepLab("resnet50", "large_fov").network.layers}
    assert {"res3d_branch2c", "res4f_branch2b", "fc1"} <= names
    model = DeepLab("vgg16", "aspp_l")
    assert {"conv1_1", "conv5_3", "fc6_1", "fc7_4"} <= {layer.name for layer in model.network.layers}
    assert model.classifier_layers == ["fc8_1", "fc8_2", "fc8_3", "fc8_4"]


def test_frozen_batch_norm_stays_as_it_is():
    model = DeepLab("resnet_tiny", "linear", 5, batch_norm="frozen")
    image = np.random.default_rng(0).uniform(0, 255, (2, 65, 65, 3))
    before = [w.numpy() for w in model.weights]
    np.testing.assert_array_equal(model(image, training=True), model(image))
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert not any("gamma" in w.path or "beta" in w.path for w in model.trainable_weights)


def test_trainable_batch_norm_learns_its_statistics():
    model = DeepLab("resnet_tiny", "linear", 5)
    model(np.random.default_rng(0).uniform(0, 255, (2, 65, 65, 3)), training=True)
    layer = model.network.get_layer("bn_conv1")
    assert np.all(layer.moving_variance.numpy() != 1)
    assert any(w is layer.gamma for w in model.trainable_weights)


def test_average_pool_counts_the_padding():
    """Caffe divides the border's sum by 9, zeros included: 6/9 at an edge, 4/9 in a corner."""
    model = DeepLab("vgg16", "large_fov", 5, average_pool=True)
    pools = keras.Model(model.network.get_layer("pool5").output, model.network.get_layer("pool5a").output)
    pooled = pools(np.ones((1, 4, 5, 512)))[0, :, :, 0].numpy() * 9
    np.testing.assert_allclose(pooled, np.outer([2, 3, 3, 2], [2, 3, 3, 3, 2]), rtol=1e-6)
    assert model.count_params() == DeepLab("vgg16", "large_fov", 5).count_params()


@pytest.mark.parametrize(
    ("backbone", "head"),
    [
        ("vgg16", "aspp_s"),
        pytest.param("resnet101", "linear", marks=pytest.mark.slow),
        ("resnet_tiny", "aspp_6_12"),
        ("efficientnet_lite0", "large_fov"),
    ],
)
def test_the_tables_know_the_names_of_all_layers(backbone, head):
    """By which --freeze is checked before Keras is imported."""
    layers = DeepLab(backbone, head, 3, scales=(1.0,)).network.layers
    assert sorted(layer.name for layer in layers if layer.weights) == sorted(architectures.layer_names(backbone, head))
