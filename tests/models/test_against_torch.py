"""The networks written down in PyTorch, from the paper and the Caffe definitions: same weights, same logits."""

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deeplab_tf import DeepLab


class TorchWeights:
    """The weights of a model by layer name, in PyTorch's layout."""

    def __init__(self, model: DeepLab):
        self.model = model

    def conv(self, x, name: str, stride: int = 1, rate: int = 1):
        weights = self.model.network.get_layer(name).get_weights()
        kernel = torch.from_numpy(weights[0].transpose(3, 2, 0, 1).copy())
        bias = torch.from_numpy(weights[1]) if len(weights) == 2 else None
        return F.conv2d(x, kernel, bias, stride, rate * (kernel.shape[-1] - 1) // 2, rate)

    def batch_norm(self, x, name: str):
        gamma, beta, mean, variance = map(torch.from_numpy, self.model.network.get_layer(name).get_weights())
        return F.batch_norm(x, mean, variance, gamma, beta, eps=1e-5)


def torch_vgg16_aspp_l(w: TorchWeights, x):
    for stage, n in enumerate((2, 2, 3, 3, 3), start=1):
        for i in range(1, n + 1):
            x = F.relu(w.conv(x, f"conv{stage}_{i}", rate=2 if stage == 5 else 1))
        x = F.max_pool2d(x, 3, stride=2 if stage <= 3 else 1, padding=1)
    scores = 0
    for branch, rate in enumerate((6, 12, 18, 24), start=1):
        y = F.relu(w.conv(x, f"fc6_{branch}", rate=rate))
        y = F.relu(w.conv(y, f"fc7_{branch}"))
        scores = scores + w.conv(y, f"fc8_{branch}")
    return scores


def torch_resnet101_aspp_l(w: TorchWeights, x):
    x = F.relu(w.batch_norm(w.conv(x, "conv1", stride=2), "bn_conv1"))
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    blocks = {
        2: ["a", "b", "c"],
        3: ["a"] + [f"b{i}" for i in range(1, 4)],
        4: ["a"] + [f"b{i}" for i in range(1, 23)],
        5: ["a", "b", "c"],
    }
    for stage, rate in ((2, 1), (3, 1), (4, 2), (5, 4)):
        for block in blocks[stage]:
            name, stride = f"{stage}{block}", 2 if (stage, block) == (3, "a") else 1
            y = F.relu(w.batch_norm(w.conv(x, f"res{name}_branch2a", stride), f"bn{name}_branch2a"))
            y = F.relu(w.batch_norm(w.conv(y, f"res{name}_branch2b", rate=rate), f"bn{name}_branch2b"))
            y = w.batch_norm(w.conv(y, f"res{name}_branch2c"), f"bn{name}_branch2c")
            if block == "a":
                x = w.batch_norm(w.conv(x, f"res{name}_branch1", stride), f"bn{name}_branch1")
            x = F.relu(x + y)
    return sum(w.conv(x, f"fc1_c{i}", rate=rate) for i, rate in enumerate((6, 12, 18, 24)))


@pytest.mark.parametrize("backbone, network", [("vgg16", torch_vgg16_aspp_l), ("resnet101", torch_resnet101_aspp_l)])
def test_logits_equal_pytorchs(backbone, network, randomise):
    model = DeepLab(backbone, "aspp_l", num_classes=21)
    randomise(model)
    weights = TorchWeights(model)
    images = np.random.default_rng(0).uniform(0, 255, (1, 129, 161, 3)).astype("float32")

    x = torch.from_numpy(images[..., ::-1] - np.array([104.008, 116.669, 122.675], "float32")).permute(0, 3, 1, 2)
    fused = network(weights, x)
    maps = {"scale_1": fused}
    for scale, size in ((0.75, (97, 121)), (0.5, (65, 81))):
        scores = network(weights, F.interpolate(x, size=size, mode="bilinear", align_corners=True))
        maps[f"scale_{scale}"] = scores
        fused = torch.maximum(fused, F.interpolate(scores, fused.shape[2:], mode="bilinear", align_corners=True))

    ours = model.score_maps(images)
    for name, expected in (maps | {"fused": fused}).items():
        expected = expected.permute(0, 2, 3, 1).numpy()
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(ours[name]), expected, atol=1e-4 * np.abs(expected).max(), err_msg=name
        )
