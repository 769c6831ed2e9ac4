"""PyTorch's `.pth`: deeplab-pytorch's DeepLab v2, torchvision's ResNets, EfficientNet-Lite0."""

import pathlib
import re
from collections.abc import Iterator

from deeplab_tf.errors import UserError
from deeplab_tf.weights import torch_archive
from deeplab_tf.weights.source import Array, Layers, Source, batch_norm_of, network_of, resnet_of, resnet_units

_BATCH_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
EFFICIENTNET_LITE0 = {"backbone": "efficientnet_lite0", "preprocessing": "lite"}
_WRAPPERS = ("state_dict", "model_state_dict", "model")


def read(path: pathlib.Path) -> Source:
    """Reads tensors, and nothing else: the file's pickled code is not run."""
    tensors = _tensors(path)
    has_scales = any(name.startswith("base.") for name in tensors)  # deeplab-pytorch's wrapper of the three scales
    tensors = {name.removeprefix("base."): tensor for name, tensor in tensors.items()}
    if "layer1.conv1.conv.weight" in tensors:
        blocks = {(int(m[1]), int(m[2])) for m in _matches(r"layer([2-5])\.block(\d+)\.reduce\.conv\.weight", tensors)}
        backbone = resnet_of(blocks, str(path))
        layers = _renamed(tensors, _deeplab_pytorch(backbone))
        rates = {f"fc1_c{i}": rate for i, rate in enumerate((6, 12, 18, 24))}
        network = network_of(layers, rates) | {"preprocessing": "caffe", "block_style": "caffe"}
        if has_scales:
            network["scales"] = (0.5, 0.75, 1.0)
        return Source("deeplab-pytorch", layers, network)
    if "layer1.0.conv1.weight" in tensors:
        blocks = {(int(m[1]) + 1, int(m[2])) for m in _matches(r"layer([1-4])\.(\d+)\.conv3\.weight", tensors)}
        backbone = resnet_of(blocks, str(path))
        layers = _renamed(tensors, _torchvision(backbone))
        return Source("torchvision", layers, {"backbone": backbone, "preprocessing": "torch", "block_style": "pytorch"})
    if "_conv_stem.weight" in tensors:
        return Source("EfficientNet-Lite0", _efficientnet_lite(tensors), dict(EFFICIENTNET_LITE0))
    names = ", ".join(list(tensors)[:4])
    raise UserError(f"{path}: found the tensors {names} ..., expected deeplab-pytorch's or torchvision's ResNet")


def _tensors(path: pathlib.Path) -> dict[str, Array]:
    """The tensors of a state_dict by their names, without the names of what wraps it."""
    content = torch_archive.load(path)
    for _ in range(4):  # A wrapper within a wrapper, but no circle of them.
        if not isinstance(content, dict):
            raise UserError(f"{path}: found a {type(content).__name__}, expected a dict of tensors (a state_dict)")
        if any(isinstance(value, torch_archive.Tensor) for value in content.values()):
            break
        wrapped = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), dict)), None)
        if wrapped is None:
            raise UserError(f"{path}: found {', '.join(map(str, content)) or 'nothing'}, expected a dict of tensors")
        content = wrapped
    return {
        re.sub(r"^((module|model)\.)+", "", str(name)): Array(value.shape, value.numpy)
        for name, value in content.items()
        if isinstance(value, torch_archive.Tensor) and not str(name).endswith("num_batches_tracked")
    }


def _matches(pattern: str, names) -> list[re.Match]:
    return [match for match in (re.fullmatch(pattern, name) for name in names) if match]


def _deeplab_pytorch(backbone: str) -> Iterator[tuple[str, str]]:
    """(their module, our layer); layer1 is the stem, layer2 stage 2."""
    yield from (("layer1.conv1.conv", "conv1"), ("layer1.conv1.bn", "bn_conv1"))
    parts = {"shortcut": "branch1", "reduce": "branch2a", "conv3x3": "branch2b", "increase": "branch2c"}
    for stage, block, unit in resnet_units(backbone):
        for part, branch in parts.items():
            module, ours = f"layer{stage}.block{block}.{part}", f"res{unit}_{branch}"
            yield from ((f"{module}.conv", ours), (f"{module}.bn", batch_norm_of(ours)))
    yield from ((f"aspp.c{i}", f"fc1_c{i}") for i in range(4))
    yield "fc", "fc1"


def _torchvision(backbone: str) -> Iterator[tuple[str, str]]:
    """(their module, our layer); layer1 is stage 2. Their classifier is for whole images."""
    yield from (("conv1", "conv1"), ("bn1", "bn_conv1"))
    for stage, block, unit in resnet_units(backbone):
        module = f"layer{stage - 1}.{block - 1}"
        parts = [(f"{module}.conv{i}", f"{module}.bn{i}", f"branch2{'abc'[i - 1]}") for i in (1, 2, 3)]
        for convolution, norm, branch in [*parts, (f"{module}.downsample.0", f"{module}.downsample.1", "branch1")]:
            yield from ((convolution, f"res{unit}_{branch}"), (norm, batch_norm_of(f"res{unit}_{branch}")))


def _efficientnet_lite(tensors: dict[str, Array]) -> Layers:
    """Depthwise kernels [channels, 1, h, w] become [h, w, channels, 1]; the epsilon of batch norm is ours."""
    ours = {"_conv_stem": "stem_conv", "_bn0": "stem_bn"}
    for block in range(16):
        parts = {"_expand_conv": "expand_conv", "_depthwise_conv": "depthwise_conv", "_project_conv": "project_conv"}
        parts |= {"_bn0": "expand_bn", "_bn1": "depthwise_bn", "_bn2": "project_bn"}
        ours |= {f"_blocks.{block}.{theirs}": f"block{block}_{name}" for theirs, name in parts.items()}
    layers = _renamed(tensors, ours.items())
    for name, arrays in layers.items():
        if name.endswith("depthwise_conv"):
            arrays["kernel"] = arrays["kernel"].transposed(0, 1, 3, 2)
    return layers


def _renamed(tensors: dict[str, Array], modules: Iterator[tuple[str, str]]) -> Layers:
    """Arrays by layer, in our layout; modules without a counterpart keep their names."""
    ours = dict(modules)
    layers: Layers = {}
    for name, value in tensors.items():
        module, _, kind = name.rpartition(".")
        layer = ours.get(module, module)
        if f"{module}.running_mean" in tensors:
            kind = _BATCH_NORM.get(kind, kind)
        elif kind == "weight":
            kind, value = "kernel", value.transposed(2, 3, 1, 0) if len(value.shape) == 4 else value
        layers.setdefault(layer, {})[kind] = value
    return layers
