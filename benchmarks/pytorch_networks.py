"""DeepLab v2 in PyTorch, from the paper and the Caffe definitions: the other side of benchmarks and of tests.

Modules have deeplab-pytorch's names, so that a `state_dict` is a checkpoint of that project.
"""

from collections import OrderedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

ASPP_L = (6, 12, 18, 24)
# Blocks of each stage, filters of the stem and of the stages' inner convolutions.
RESNETS = {
    "resnet101": ((3, 4, 23, 3), 64, (64, 128, 256, 512)),
    "resnet_tiny": ((1, 2, 2, 2), 16, (16, 32, 48, 64)),
}
VGG16_FILTERS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
CAFFE_MEAN = (104.008, 116.669, 122.675)  # blue, green, red


def convolution(inputs: int, outputs: int, size: int, stride: int = 1, rate: int = 1, bias: bool = True) -> nn.Conv2d:
    """A convolution whose output lies on the grid of its input."""
    return nn.Conv2d(inputs, outputs, size, stride, rate * (size - 1) // 2, rate, bias=bias)


def convolution_norm(inputs: int, outputs: int, size: int, stride: int = 1, rate: int = 1) -> nn.Sequential:
    """A convolution without bias, then batch normalisation."""
    convolved = convolution(inputs, outputs, size, stride, rate, bias=False)
    return nn.Sequential(OrderedDict(conv=convolved, bn=nn.BatchNorm2d(outputs)))


class Bottleneck(nn.Module):
    """1x1 (with the stride), 3x3 (with the rate), 1x1, added to the shortcut."""

    def __init__(self, inputs: int, width: int, stride: int, rate: int, project: bool):
        super().__init__()
        self.reduce = convolution_norm(inputs, width, 1, stride)
        self.conv3x3 = convolution_norm(width, width, 3, rate=rate)
        self.increase = convolution_norm(width, 4 * width, 1)
        self.shortcut = convolution_norm(inputs, 4 * width, 1, stride) if project else nn.Identity()

    def forward(self, x):
        """Features [B, inputs, H, W] -> [B, 4 width, H/stride, W/stride]."""
        y = self.increase(F.relu(self.conv3x3(F.relu(self.reduce(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """A ResNet of Caffe's kind at output stride 8 with ASPP: images [B, 3, H, W] -> scores [B, C, h, w]."""

    def __init__(self, backbone: str = "resnet101", classes: int = 21, rates: tuple[int, ...] = ASPP_L):
        super().__init__()
        blocks, stem, widths = RESNETS[backbone]
        self.layer1 = nn.Sequential(OrderedDict(conv1=convolution_norm(3, stem, 7, 2)))
        inputs = stem
        for stage, (count, width, rate) in enumerate(zip(blocks, widths, (1, 1, 2, 4), strict=True), start=2):
            layer = nn.Sequential()
            for i in range(count):
                stride = 2 if stage == 3 and i == 0 else 1
                layer.add_module(f"block{i + 1}", Bottleneck(inputs, width, stride, rate, project=i == 0))
                inputs = 4 * width
            setattr(self, f"layer{stage}", layer)
        self.aspp = nn.ModuleDict({f"c{i}": convolution(inputs, classes, 3, rate=r) for i, r in enumerate(rates)})

    def forward(self, x):
        """Scores of single-scale inputs."""
        x = F.max_pool2d(F.relu(self.layer1(x)), 3, 2, 1)
        for stage in range(2, 6):
            x = getattr(self, f"layer{stage}")(x)
        return sum(branch(x) for branch in self.aspp.values())

    def caffe_layers(self) -> dict[str, nn.Module]:
        """Convolutions and batch norms by our (and Caffe's) names of layers."""
        layers = {"conv1": self.layer1.conv1.conv, "bn_conv1": self.layer1.conv1.bn}
        parts = {"branch2a": "reduce", "branch2b": "conv3x3", "branch2c": "increase", "branch1": "shortcut"}
        for stage in range(2, 6):
            blocks = getattr(self, f"layer{stage}")
            numbered = stage in (3, 4) and len(self.layer4) == 23  # b1, b2, ... in ResNet-101
            for i, block in enumerate(blocks):
                name = f"{stage}b{i}" if numbered and i else f"{stage}{'abc'[i]}"
                for branch, part in parts.items():
                    if isinstance(pair := getattr(block, part), nn.Sequential):
                        layers |= {f"res{name}_{branch}": pair.conv, f"bn{name}_{branch}": pair.bn}
        return layers | {f"fc1_{name}": branch for name, branch in self.aspp.items()}


class VGG16(nn.Module):
    """VGG-16 at output stride 8, LargeFOV (one rate) or ASPP (several): images [B, 3, H, W] -> scores [B, C, h, w]."""

    def __init__(self, classes: int = 21, rates: tuple[int, ...] = ASPP_L):
        super().__init__()
        self.rates, inputs = rates, 3
        for stage, widths in enumerate(VGG16_FILTERS, start=1):
            for i, width in enumerate(widths, start=1):
                self.add_module(f"conv{stage}_{i}", convolution(inputs, width, 3, rate=2 if stage == 5 else 1))
                inputs = width
        for suffix, rate in self._branches():
            self.add_module(f"fc6{suffix}", convolution(512, 1024, 3, rate=rate))
            self.add_module(f"fc7{suffix}", convolution(1024, 1024, 1))
            self.add_module(f"fc8{suffix}", convolution(1024, classes, 1))

    def _branches(self) -> list[tuple[str, int]]:
        if len(self.rates) == 1:
            return [("", self.rates[0])]
        return [(f"_{i}", rate) for i, rate in enumerate(self.rates, start=1)]

    def forward(self, x):
        """Scores of single-scale inputs."""
        layers = self.caffe_layers()
        for stage, widths in enumerate(VGG16_FILTERS, start=1):
            for i in range(1, len(widths) + 1):
                x = F.relu(layers[f"conv{stage}_{i}"](x))
            x = F.max_pool2d(x, 3, stride=2 if stage <= 3 else 1, padding=1)
        scores = 0
        for suffix, _ in self._branches():
            y = F.relu(layers[f"fc7{suffix}"](F.relu(layers[f"fc6{suffix}"](x))))
            scores = scores + layers[f"fc8{suffix}"](y)
        return scores

    def caffe_layers(self) -> dict[str, nn.Module]:
        """Convolutions by our (and Caffe's) names of layers."""
        return dict(self.named_children())


def take_weights(network: ResNet | VGG16, model) -> nn.Module:
    """Copies the weights of a `DeepLab` of the same architecture; returns the network, in evaluation mode."""

    def tensor(weight) -> torch.Tensor:
        return torch.from_numpy(np.array(weight))

    for name, module in network.caffe_layers().items():
        weights = model.network.get_layer(name).get_weights()
        if isinstance(module, nn.BatchNorm2d):
            gamma, beta, mean, variance = map(tensor, weights)
            module.weight.data, module.bias.data = gamma, beta
            module.running_mean, module.running_var = mean, variance
        else:
            kernel = tensor(weights[0]).permute(3, 2, 0, 1).contiguous()
            if kernel.shape != module.weight.shape:
                raise ValueError(f"{name}: found a kernel {tuple(kernel.shape)}, expected {tuple(module.weight.shape)}")
            module.weight.data = kernel
            if module.bias is not None:
                module.bias.data = tensor(weights[1])
    return network.eval()


def fold(network: nn.Module) -> nn.Module:
    """Folds batch norm into the convolutions, in place; returns the network."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Sequential) and hasattr(child, "bn"):
                setattr(parent, name, nn.utils.fuse_conv_bn_eval(child.conv.eval(), child.bn.eval()))
    return network


def preprocess(images: torch.Tensor) -> torch.Tensor:
    """RGB images [B, H, W, 3] in 0..255 -> BGR minus Caffe's mean, float32 [B, 3, H, W]."""
    mean = torch.tensor(CAFFE_MEAN, device=images.device).view(1, 3, 1, 1)
    return images.permute(0, 3, 1, 2).flip(1).float() - mean


def resize(maps: torch.Tensor, size) -> torch.Tensor:
    """Bilinear interpolation with corners aligned (Caffe's Interp)."""
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=True)


def score_maps(network, x: torch.Tensor, scales: tuple[float, ...]) -> list[torch.Tensor]:
    """Multi-scale inputs (Sec. 3.2).

    Args:
        network: a function of preprocessed images to scores.
        x: preprocessed images [B, 3, H, W].
        scales: of the input; with scale 1.

    Returns:
        the score maps of the scales and, where there are several, their maximum at the size of scale 1.
    """
    maps = []
    for scale in scales:
        size = [round(scale * (side - 1)) + 1 for side in x.shape[2:]]
        maps.append(network(x if scale == 1 else resize(x, size)))
    if len(maps) == 1:
        return maps
    size = maps[scales.index(1)].shape[2:]
    return [*maps, torch.stack([resize(scores, size) for scores in maps]).amax(0)]


def device() -> torch.device:
    """The device that TensorFlow computes on, so that both sides of a benchmark use the same.

    Raises:
        RuntimeError: TensorFlow sees a GPU and PyTorch does not; a ratio would mean nothing.
    """
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RuntimeError("only TensorFlow sees a GPU; set CUDA_VISIBLE_DEVICES=-1 to compare on the CPU")
    return torch.device("cuda")
