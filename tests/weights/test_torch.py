"""PyTorch's checkpoints: deeplab-pytorch's under its names, torchvision's; tensors only."""

import pickle

import keras
import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import pytorch_networks
from deeplab_tf import DeepLab, weights
from deeplab_tf.errors import UserError
from tests.helpers import assert_same_scores, randomise

pytestmark = pytest.mark.usefixtures("whole_network")

IMAGES = np.random.default_rng(0).integers(0, 256, (1, 65, 65, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "prefix, backbone",
    [
        ("", "resnet_tiny"),
        ("module.base.", "resnet_tiny"),
        pytest.param("base.", "resnet101", marks=pytest.mark.full_size),
    ],
)
def test_deeplab_pytorch(prefix, backbone, tmp_path):
    network = randomise(pytorch_networks.ResNet(backbone))
    torch.save({prefix + name: tensor for name, tensor in network.state_dict().items()}, tmp_path / "x.pth")
    model = DeepLab(backbone, "aspp_l", 21, scales=(1.0,))
    report = weights.load(model, tmp_path / "x.pth")
    assert not report.left and not report.initialised
    assert weights.describe(tmp_path / "x.pth") == {
        **{"backbone": backbone, "head": "aspp_l", "num_classes": 21, "block_style": "caffe", "preprocessing": "caffe"},
        **({"scales": (0.5, 0.75, 1.0)} if "base." in prefix else {}),
    }

    with torch.no_grad():
        scores = network(pytorch_networks.preprocess(torch.from_numpy(IMAGES)))
        expected = scores.permute(0, 2, 3, 1).numpy()
    assert_same_scores(model(IMAGES), expected)


class Torchvision(nn.Module):
    """torchvision's ResNet by its modules' names, up to layer4; the stride is in the 3x3 convolution."""

    class Block(nn.Module):
        def __init__(self, inputs, width, stride, project):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
            self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
            self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
            self.downsample = None
            if project:
                convolution = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
                self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(4 * width))

        def forward(self, x):
            y = torch.relu(self.bn1(self.conv1(x)))
            y = self.bn3(self.conv3(torch.relu(self.bn2(self.conv2(y)))))
            return torch.relu(y + (x if self.downsample is None else self.downsample(x)))

    def __init__(self, blocks, stem, widths):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False), nn.BatchNorm2d(stem)
        inputs = stem
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True), start=1):
            layers = []
            for i in range(count):
                layers.append(self.Block(inputs, width, 2 if stage > 1 and i == 0 else 1, i == 0))
                inputs = 4 * width
            setattr(self, f"layer{stage}", nn.Sequential(*layers))
        self.fc = nn.Linear(inputs, 1000)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


@pytest.mark.parametrize("backbone", ["resnet_tiny", pytest.param("resnet101", marks=pytest.mark.full_size)])
def test_torchvision(backbone, tmp_path):
    network = randomise(Torchvision(*pytorch_networks.RESNETS[backbone]))
    torch.save({"state_dict": network.state_dict()}, tmp_path / "x.pth")
    with torch.no_grad():
        mean, deviation = np.array([0.485, 0.456, 0.406], "float32"), np.array([0.229, 0.224, 0.225], "float32")
        x = torch.from_numpy((IMAGES.astype("float32") / 255 - mean) / deviation).permute(0, 3, 1, 2)
        expected = network(x).permute(0, 2, 3, 1).numpy()
    for output_stride in (32, 8):
        arguments = weights.arguments_for(tmp_path / "x.pth", backbone, "linear")
        model = DeepLab(backbone, "linear", 3, output_stride, scales=(1.0,), **arguments)
        report = weights.load(model, tmp_path / "x.pth")
        assert report.left == ("fc",) and list(report.initialised) == ["fc1"]
        last = "res5b_relu" if backbone == "resnet_tiny" else "res5c_relu"
        features = keras.Model(model.network.inputs, model.network.get_layer(last).output)(model.preprocess(IMAGES))
        every = 32 // output_stride
        assert_same_scores(features[:, ::every, ::every], expected)


class Attack:
    def __reduce__(self):
        return (open, ("attacked", "w"))


def test_pickled_code_is_not_run(tiny, tmp_path, monkeypatch, unchanged):
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": Attack()}, "x.pth")
    (tmp_path / "y.pth").write_bytes(pickle.dumps({"conv1.weight": Attack()}, protocol=2))
    check = unchanged(tiny)
    for name in ("x.pth", "y.pth"):
        (tmp_path / "attacked").unlink(missing_ok=True)
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            weights.load(tiny, name)
        assert not (tmp_path / "attacked").exists()
    check()


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_truncated_files(keep, tiny, tmp_path, unchanged):
    torch.save(pytorch_networks.ResNet("resnet_tiny", 5).state_dict(), tmp_path / "x.pth")
    content = (tmp_path / "x.pth").read_bytes()
    (tmp_path / "x.pth").write_bytes(content[: int(keep * len(content))])
    check = unchanged(tiny)
    with pytest.raises(UserError, match="x.pth cannot be read") as caught:
        weights.load(tiny, tmp_path / "x.pth")
    assert "\n" not in str(caught.value)
    check()


@pytest.mark.parametrize(
    "content, match",
    [
        ({"a.weight": torch.ones(2)}, "found the tensors a.weight"),
        ({"epoch": 3}, "found epoch, expected a dict of tensors"),
        (torch.ones(3), "found a Tensor"),
    ],
)
def test_other_contents(content, match, tiny, tmp_path):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match=match):
        weights.load(tiny, tmp_path / "x.pth")
