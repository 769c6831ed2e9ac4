"""EfficientNet-Lite0 against its definition in PyTorch, and dense against sparse networks."""

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deeplab_tf import DeepLab
from tests.helpers import randomise

# Repeats, kernel, stride, expansion, filters: Table 1 of arXiv 1905.11946; what Lite0 leaves out is not in it.
STAGES = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]


def network(output_stride=8, head="aspp_l", **arguments):
    arguments = {"preprocessing": "lite", "scales": (1.0,)} | arguments
    model = DeepLab("efficientnet_lite0", head, num_classes=5, output_stride=output_stride, **arguments)
    return randomise(model)


def in_pytorch(model, images):
    """Scores at output stride 32, by the definition."""
    weights = {layer.name: layer.get_weights() for layer in model.network.layers}

    def unit(x, name, stride=1, activation=True):
        kernel = torch.from_numpy(weights[f"{name}_conv"][0])
        depthwise = "depthwise" in name
        kernel = kernel.permute(2, 3, 0, 1) if depthwise else kernel.permute(3, 2, 0, 1)
        side = kernel.shape[-1]
        x = F.conv2d(x, kernel, None, stride, (side - 1) // 2, groups=x.shape[1] if depthwise else 1)
        gamma, beta, mean, variance = map(torch.from_numpy, weights[f"{name}_bn"])
        x = F.batch_norm(x, mean, variance, gamma, beta, eps=1e-3)
        return F.relu6(x) if activation else x

    x = (torch.from_numpy(images).permute(0, 3, 1, 2) - 127) / 128
    x = unit(x, "stem", stride=2)
    block = 0
    for repeats, _, stride, expansion, _ in STAGES:
        for i in range(repeats):
            inputs = x
            if expansion > 1:
                x = unit(x, f"block{block}_expand")
            x = unit(x, f"block{block}_depthwise", stride if i == 0 else 1)
            x = unit(x, f"block{block}_project", activation=False)
            x = x + inputs if i else x
            block += 1
    kernel, bias = map(torch.from_numpy, weights["fc1"])
    return F.conv2d(x, kernel.permute(3, 2, 0, 1), bias).permute(0, 2, 3, 1).numpy()


def test_scores_are_those_of_the_definition():
    model = network(32, "linear")
    images = np.random.default_rng(0).uniform(0, 255, (1, 129, 161, 3)).astype("float32")
    expected = in_pytorch(model, images)
    found = keras.ops.convert_to_numpy(model(images))
    spread = expected.std(axis=(1, 2)).min()  # of a class over the image: what a wrong layer would change
    np.testing.assert_allclose(found, expected, atol=1e-3 * spread)


def test_the_number_of_parameters_is_that_of_the_released_network():
    """The released ImageNet network has 4,652,008, those of its last convolution and of its classifier included."""
    weights = [weight for weight in network(head="linear").network.trainable_weights if "fc1" not in weight.path]
    norms = [weight for weight in network(head="linear").network.weights if weight.path.endswith(("gamma", "beta"))]
    last, classifier = 320 * 1280 + 2 * 1280, 1280 * 1000 + 1000
    assert sum(int(np.prod(weight.shape)) for weight in [*weights, *norms]) == 4_652_008 - last - classifier


@pytest.mark.slow
@pytest.mark.parametrize("coarse, step", [(16, 2), (32, 4)])
def test_dense_and_sparse_networks_agree(coarse, step):
    """Output stride 8, sampled every 2 or 4 positions, equals 16 or 32; away from the borders."""
    dense, sparse = network(8, "linear"), network(coarse, "linear")
    sparse.set_weights(dense.get_weights())
    images = np.random.default_rng(1).uniform(0, 255, (1, 513, 513, 3)).astype("float32")
    fine = keras.ops.convert_to_numpy(dense(images))[:, ::step, ::step]
    rough = keras.ops.convert_to_numpy(sparse(images))
    assert fine.shape == rough.shape
    margin = rough.shape[1] // 2 - 1
    inner = slice(margin, -margin)
    np.testing.assert_allclose(fine[:, inner, inner], rough[:, inner, inner], atol=1e-3 * rough.std(axis=(1, 2)).min())


@pytest.mark.parametrize("head", ["linear", "large_fov", "aspp_s", "aspp_l"])
def test_every_head_of_the_resnets_fits(head):
    images = np.zeros((1, 65, 81, 3), "uint8")
    assert network(8, head, scales=(0.5, 1.0))(images).shape == (1, 9, 11, 5)
