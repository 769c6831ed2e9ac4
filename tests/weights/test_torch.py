"""PyTorch's checkpoints: deeplab-pytorch's under its names, torchvision's; tensors only."""

import pickle
from collections import OrderedDict

import keras
import numpy as np
import pytest
import torch
from torch import nn

from deeplab_tf import DeepLab, weights
from deeplab_tf.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (1, 65, 65, 3), dtype=np.uint8)


def conv_bn(inputs, outputs, size, stride=1, rate=1, relu=True) -> nn.Sequential:
    layers = OrderedDict(
        conv=nn.Conv2d(inputs, outputs, size, stride, rate * (size - 1) // 2, rate, bias=False),
        bn=nn.BatchNorm2d(outputs, eps=1e-5),
    )
    return nn.Sequential(layers | ({"relu": nn.ReLU()} if relu else {}))


class Bottleneck(nn.Module):
    """A block of deeplab-pytorch: reduce, conv3x3, increase, shortcut."""

    def __init__(self, inputs, width, stride, rate, project):
        super().__init__()
        self.reduce = conv_bn(inputs, width, 1, stride)
        self.conv3x3 = conv_bn(width, width, 3, 1, rate)
        self.increase = conv_bn(width, 4 * width, 1, relu=False)
        self.shortcut = conv_bn(inputs, 4 * width, 1, stride, relu=False) if project else nn.Identity()

    def forward(self, x):
        return torch.relu(self.increase(self.conv3x3(self.reduce(x))) + self.shortcut(x))


class DeepLabV2(nn.Module):
    """deeplab-pytorch's DeepLab v2 in the size of our resnet_tiny, or as ResNet-101."""

    def __init__(self, classes, blocks, stem, widths):
        super().__init__()
        self.layer1 = nn.Sequential(OrderedDict(conv1=conv_bn(3, stem, 7, 2), pool=nn.MaxPool2d(3, 2, 1)))
        inputs = stem
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True), start=2):
            layer = nn.Sequential()
            for i in range(count):
                stride = 2 if stage == 3 and i == 0 else 1
                layer.add_module(f"block{i + 1}", Bottleneck(inputs, width, stride, {4: 2, 5: 4}.get(stage, 1), i == 0))
                inputs = 4 * width
            setattr(self, f"layer{stage}", layer)
        self.aspp = nn.Module()
        for i, rate in enumerate((6, 12, 18, 24)):
            setattr(self.aspp, f"c{i}", nn.Conv2d(inputs, classes, 3, 1, rate, rate))

    def forward(self, x):
        for stage in range(1, 6):
            x = getattr(self, f"layer{stage}")(x)
        return sum(getattr(self.aspp, f"c{i}")(x) for i in range(4))


def randomise_torch(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.weight, 0.2, 0.6), (module.running_var, 0.5, 2.0)):
                nn.init.uniform_(tensor, low, high, generator=generator)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor, 0, 0.1, generator=generator)
    return network.eval()


TINY = ((1, 2, 2, 2), 16, (16, 32, 48, 64))
RESNET101 = ((3, 4, 23, 3), 64, (64, 128, 256, 512))


@pytest.mark.parametrize(
    "prefix, backbone, sizes",
    [("", "resnet_tiny", TINY), ("module.base.", "resnet_tiny", TINY), ("base.", "resnet101", RESNET101)],
)
def test_deeplab_pytorch(prefix, backbone, sizes, tmp_path):
    network = randomise_torch(DeepLabV2(21, *sizes))
    torch.save({prefix + name: tensor for name, tensor in network.state_dict().items()}, tmp_path / "x.pth")
    model = DeepLab(backbone, "aspp_l", 21, scales=(1.0,), bottleneck="torchvision")
    report = weights.load(model, tmp_path / "x.pth")
    assert not report.left and not report.initialised
    assert model.preprocessing == "caffe" and model.bottleneck == "caffe"

    mean = np.array([104.008, 116.669, 122.675], "float32")
    with torch.no_grad():
        x = torch.from_numpy(IMAGES[..., ::-1].astype("float32") - mean).permute(0, 3, 1, 2)
        expected = network(x).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(IMAGES)), expected, atol=1e-4 * np.abs(expected).max())


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


@pytest.mark.parametrize("backbone, sizes", [("resnet_tiny", TINY), ("resnet101", RESNET101)])
def test_torchvision(backbone, sizes, tmp_path):
    network = randomise_torch(Torchvision(*sizes))
    torch.save({"state_dict": network.state_dict()}, tmp_path / "x.pth")
    with torch.no_grad():
        mean, deviation = np.array([0.485, 0.456, 0.406], "float32"), np.array([0.229, 0.224, 0.225], "float32")
        x = torch.from_numpy((IMAGES.astype("float32") / 255 - mean) / deviation).permute(0, 3, 1, 2)
        expected = network(x).permute(0, 2, 3, 1).numpy()
    for output_stride in (32, 8):
        model = DeepLab(backbone, "linear", 3, output_stride, scales=(1.0,))
        report = weights.load(model, tmp_path / "x.pth")
        assert report.left == ("fc",) and list(report.initialised) == ["fc1"]
        last = "res5b_relu" if backbone == "resnet_tiny" else "res5c_relu"
        features = keras.Model(model.network.inputs, model.network.get_layer(last).output)(model.preprocess(IMAGES))
        every = 32 // output_stride
        np.testing.assert_allclose(features[:, ::every, ::every], expected, atol=1e-4 * np.abs(expected).max())


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
    torch.save(DeepLabV2(5, *TINY).state_dict(), tmp_path / "x.pth")
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
