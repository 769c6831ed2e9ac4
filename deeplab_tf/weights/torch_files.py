"""PyTorch's `.pth`: deeplab-pytorch's DeepLab v2 and torchvision's ResNets."""

import pathlib
import re
from collections.abc import Iterator

import numpy as np

from deeplab_tf.errors import UserError
from deeplab_tf.weights.source import Layers, Source, batch_norm_of, resnet_units

_BATCH_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def read(path: pathlib.Path, model) -> Source:
    """Reads tensors, and nothing else: the file's pickled code is not run."""
    try:
        import torch
    except ImportError:
        raise UserError(f"{path}: reading it needs PyTorch: pip install torch") from None
    content = torch.load(path, map_location="cpu", weights_only=True)
    while isinstance(content, dict) and not any(isinstance(value, torch.Tensor) for value in content.values()):
        wrapped = next((content[key] for key in ("state_dict", "model_state_dict", "model") if key in content), None)
        if not isinstance(wrapped, dict):
            raise UserError(f"{path}: found {', '.join(map(str, content)) or 'nothing'}, expected a dict of tensors")
        content = wrapped
    if not isinstance(content, dict):
        raise UserError(f"{path}: found a {type(content).__name__}, expected a dict of tensors (a state_dict)")
    tensors = {
        re.sub(r"^((module|base|model)\.)+", "", str(name)): value.float().numpy()
        for name, value in content.items()
        if isinstance(value, torch.Tensor) and not str(name).endswith("num_batches_tracked")
    }
    if "layer1.conv1.conv.weight" in tensors:
        return Source("deeplab-pytorch", _renamed(tensors, _deeplab_pytorch(model)), "caffe", "caffe")
    if "layer1.0.conv1.weight" in tensors:
        return Source("torchvision", _renamed(tensors, _torchvision(model)), "torch", "torchvision")
    names = ", ".join(list(tensors)[:4])
    raise UserError(f"{path}: found the tensors {names} ..., expected deeplab-pytorch's or torchvision's ResNet")


def _deeplab_pytorch(model) -> Iterator[tuple[str, str]]:
    """(their module, our layer); layer1 is the stem, layer2 stage 2."""
    yield from (("layer1.conv1.conv", "conv1"), ("layer1.conv1.bn", "bn_conv1"))
    parts = {"shortcut": "branch1", "reduce": "branch2a", "conv3x3": "branch2b", "increase": "branch2c"}
    for stage, block, unit in resnet_units(model):
        for part, branch in parts.items():
            module, ours = f"layer{stage}.block{block}.{part}", f"res{unit}_{branch}"
            yield from ((f"{module}.conv", ours), (f"{module}.bn", batch_norm_of(ours)))
    yield from ((f"aspp.c{i}", f"fc1_c{i}") for i in range(4))
    yield "fc", "fc1"


def _torchvision(model) -> Iterator[tuple[str, str]]:
    """(their module, our layer); layer1 is stage 2. Their classifier is for whole images."""
    yield from (("conv1", "conv1"), ("bn1", "bn_conv1"))
    for stage, block, unit in resnet_units(model):
        module = f"layer{stage - 1}.{block - 1}"
        parts = [(f"{module}.conv{i}", f"{module}.bn{i}", f"branch2{'abc'[i - 1]}") for i in (1, 2, 3)]
        for convolution, norm, branch in [*parts, (f"{module}.downsample.0", f"{module}.downsample.1", "branch1")]:
            yield from ((convolution, f"res{unit}_{branch}"), (norm, batch_norm_of(f"res{unit}_{branch}")))


def _renamed(tensors: dict[str, np.ndarray], modules: Iterator[tuple[str, str]]) -> Layers:
    """Arrays by layer, in our layout; modules without a counterpart keep their names."""
    ours = dict(modules)
    layers: Layers = {}
    for name, value in tensors.items():
        module, _, kind = name.rpartition(".")
        layer = ours.get(module, module)
        if f"{module}.running_mean" in tensors:
            kind = _BATCH_NORM.get(kind, kind)
        elif kind == "weight":
            kind, value = "kernel", value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
        layers.setdefault(layer, {})[kind] = value
    return layers
