"""PyTorch's `.pth`: DeepLab v2 of deeplab-pytorch and of domain adaptation, torchvision's networks, VGG-16."""

import pathlib
import re

import numpy as np

from deeplab_tf.errors import UserError
from deeplab_tf.weights import torch_archive
from deeplab_tf.weights.source import (
    VGG_CONVOLUTIONS,
    Array,
    Layers,
    Source,
    batch_norm_of,
    network_of,
    resnet_of,
    resnet_units,
)

_BATCH_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
EFFICIENTNET_LITE0 = {"backbone": "efficientnet_lite0", "preprocessing": "lite"}
_WRAPPERS = ("state_dict", "model_state_dict", "model", "ema_model")
_PREFIXES = re.compile(r"^((module|model|Scale)\.)+")
_ASPP_L = {f"fc1_c{i}": rate for i, rate in enumerate((6, 12, 18, 24))}


def read(path: pathlib.Path, key: str | None = None) -> Source:
    """Reads tensors, and nothing else: the file's pickled code is not run.

    Args:
        path: of the file.
        key: of the dict of tensors that is meant, where the file holds several; None: the first of the usual ones.
    """
    found, note = _tensors(path, key)
    source = _recognised(found, path)
    source.notes.extend(note)
    return source


def _recognised(found: dict[str, Array], path: pathlib.Path) -> Source:
    """The tensors of a file as those of the network whose names they have."""
    tensors = {_PREFIXES.sub("", name): tensor for name, tensor in found.items()}
    if "base.layer1.conv1.conv.weight" in tensors or "layer1.conv1.conv.weight" in tensors:
        return _deeplab_pytorch(tensors, path)
    if "layer1.0.conv1.weight" in tensors:
        return _resnet(tensors, path, any(name.startswith(("Scale.", "module.Scale.")) for name in found))
    if "_conv_stem.weight" in tensors:
        return Source("EfficientNet-Lite0", _efficientnet_lite(tensors), dict(EFFICIENTNET_LITE0))
    if any(re.search(r"(^|\.)conv1_1\.weight$", name) for name in tensors) or "features.0.weight" in tensors:
        return _vgg(tensors, path)
    names = ", ".join(list(tensors)[:4])
    raise UserError(
        f"{path}: found the tensors {names} ..., expected a ResNet of deeplab-pytorch, torchvision or the AdaptSegNet "
        "family, a VGG-16 or an EfficientNet-Lite0"
    )


def _tensors(path: pathlib.Path, key: str | None) -> tuple[dict[str, Array], list[str]]:
    """The tensors of a state_dict by their names, and a note where the file holds further ones."""
    content, notes = torch_archive.load(path), []
    if key is not None:
        keys = [name for name, value in content.items() if isinstance(value, dict)] if isinstance(content, dict) else []
        if key not in keys:
            raise UserError(
                f"{path}: it holds no weights called {key!r}; found {', '.join(map(str, keys)) or 'one set'}"
            )
        content = content[key]
    for _ in range(4):  # A wrapper within a wrapper, but no circle of them.
        if not isinstance(content, dict):
            raise UserError(f"{path}: found a {type(content).__name__}, expected a dict of tensors (a state_dict)")
        if any(isinstance(value, torch_archive.Tensor) for value in content.values()):
            break
        wrappers = [name for name in _WRAPPERS if isinstance(content.get(name), dict)]
        if not wrappers:
            names = ", ".join(map(str, list(content)[:6]))
            raise UserError(f"{path}: found {names or 'nothing'}, expected a dict of tensors (a state_dict)")
        if len(wrappers) > 1:
            others = " and ".join(wrappers[1:])
            notes.append(f"its {wrappers[0]} is read, not its {others}: --weights_key={wrappers[1]} reads that")
        content = content[wrappers[0]]
    tensors = {
        str(name): Array(value.shape, value.numpy)
        for name, value in content.items()
        if isinstance(value, torch_archive.Tensor) and not str(name).endswith("num_batches_tracked")
    }
    return tensors, notes


def _deeplab_pytorch(tensors: dict[str, Array], path: pathlib.Path) -> Source:
    """deeplab-pytorch's: layer1 is the stem, layer2 stage 2; `base` is inside its wrapper of the three scales."""
    has_scales = any(name.startswith("base.") for name in tensors)
    tensors = {name.removeprefix("base."): tensor for name, tensor in tensors.items()}
    blocks = {(int(m[1]), int(m[2])) for m in _matches(r"layer([2-5])\.block(\d+)\.reduce\.conv\.weight", tensors)}
    theirs = {"layer1.conv1.conv": "conv1", "layer1.conv1.bn": "bn_conv1", "fc": "fc1"}
    parts = {"shortcut": "branch1", "reduce": "branch2a", "conv3x3": "branch2b", "increase": "branch2c"}
    for stage, block, unit in resnet_units(resnet_of(blocks, str(path))):
        for part, branch in parts.items():
            module, ours = f"layer{stage}.block{block}.{part}", f"res{unit}_{branch}"
            theirs |= {f"{module}.conv": ours, f"{module}.bn": batch_norm_of(ours)}
    layers = _renamed(tensors, theirs | {f"aspp.c{i}": f"fc1_c{i}" for i in range(4)})
    network = network_of(layers, _ASPP_L) | {"preprocessing": "caffe", "block_style": "caffe"}
    crf = None
    if has_scales:
        network["scales"] = (0.5, 0.75, 1.0)
        if network.get("num_classes") == 21:  # Its configuration for VOC 2012; it uses pydensecrf.
            crf = {
                **{"bilateral_weight": 4, "bilateral_spatial_std": 67, "bilateral_color_std": 3},
                **{"spatial_weight": 3, "spatial_std": 1},
            }
    notes = ["its published figures are of PyTorch's interpolation: --eval_align_corners=false"] if has_scales else []
    return Source("deeplab-pytorch", layers, network, crf=crf, notes=notes)


def _resnet(tensors: dict[str, Array], path: pathlib.Path, of_scale: bool) -> Source:
    """A ResNet in torchvision's names: torchvision's own, or that of AdaptSegNet, ADVENT and DACS, which is Caffe's."""
    blocks = {(int(m[1]) + 1, int(m[2])) for m in _matches(r"layer([1-4])\.(\d+)\.conv3\.weight", tensors)}
    backbone = resnet_of(blocks, str(path))
    theirs = {"conv1": "conv1", "bn1": "bn_conv1"}
    for stage, block, unit in resnet_units(backbone):
        module = f"layer{stage - 1}.{block - 1}"
        parts = [(f"{module}.conv{i}", f"{module}.bn{i}", f"branch2{'abc'[i - 1]}") for i in (1, 2, 3)]
        for convolution, norm, branch in [*parts, (f"{module}.downsample.0", f"{module}.downsample.1", "branch1")]:
            theirs |= {convolution: f"res{unit}_{branch}", norm: batch_norm_of(f"res{unit}_{branch}")}
    if _matches(r"layer[56]\.conv2d_list\.\d+\.\d+\..*", tensors):
        raise UserError(f"{path}: its classifiers are of several layers (as ProDA's); there is no such network here")
    if not of_scale and not _matches(r"layer[56]\.conv2d_list\.\d+\.weight", tensors):
        network = {"backbone": backbone, "preprocessing": "torch", "block_style": "pytorch"}
        return Source("torchvision", _renamed(tensors, theirs), network)
    return _adaptation(tensors, theirs)


def _adaptation(tensors: dict[str, Array], theirs: dict[str, str]) -> Source:
    """The family of AdaptSegNet: classifiers on stage 5 in layer6, or in layer5 where there is none on stage 4."""
    features = [tensor.shape[0] for name, tensor in tensors.items() if re.fullmatch(r"layer4\.0\.conv3\.weight", name)]
    on_stage_5 = [
        module
        for module in ("layer6", "layer5")
        if f"{module}.conv2d_list.0.weight" in tensors
        and [tensors[f"{module}.conv2d_list.0.weight"].shape[1]] == features
    ]
    notes, other_heads, branches = [], (), 0
    if on_stage_5:
        module = f"{on_stage_5[0]}.conv2d_list"
        branches = 4
        if all(f"{module}.{i}.bias" in tensors for i in range(4)):
            if all(_is_untrained(tensors[f"{module}.{i}.weight"], tensors[f"{module}.{i}.bias"]) for i in (2, 3)):
                branches = 2
                notes.append("the branches of rates 18 and 24 were never trained: only those of 6 and 12 act")
            else:
                other_heads = ("aspp_6_12",)
                notes.append(
                    "the file does not tell whether all four branches act; AdaptSegNet's and DACS' code adds the first "
                    "two alone: build the model with head='aspp_6_12' if it is of theirs"
                )
        theirs = theirs | {f"{module}.{i}": f"fc1_c{i}" for i in range(branches)}
    layers = _renamed(tensors, theirs)
    network = network_of(layers, _ASPP_L) | {"preprocessing": "caffe", "block_style": "caffe"}
    if "head" in network:
        network["scales"] = (1.0,)
    return Source("the AdaptSegNet family", layers, network, other_heads=other_heads, notes=notes)


def _is_untrained(weight: Array, bias: Array) -> bool:
    """Whether a classifier is as it was made: N(0, 0.01), and PyTorch's uniform bias within 1 / sqrt(inputs).

    Their code never touches the branches that do not act, not even by weight decay. Training changes the deviation and
    takes biases, whose learning rate is ten times larger, out of that range.
    """
    values, offsets = weight.read().astype(np.float64), bias.read()
    bound = 1 / np.sqrt(np.prod(values.shape[1:]))
    allowed = 5 / np.sqrt(2 * values.size)  # five standard errors of the deviation of so many numbers
    return abs(values.std() / 0.01 - 1) < allowed and np.abs(offsets).max() <= bound


def _vgg(tensors: dict[str, Array], path: pathlib.Path) -> Source:
    """VGG-16 by torchvision's numbers, with its colours; or by Caffe's names (DSRG, SEC and others), with Caffe's."""
    by_caffe = {}
    for name in tensors:
        match = re.fullmatch(r"(?:.*\.)?(conv\d_\d|fc[67](?:_\d)?|fc8.*)\.(weight|bias)", name)
        if match:
            by_caffe[name.rpartition(".")[0]] = re.sub(r"^fc8.*?(_\d)?$", r"fc8\1", match[1])
    if "conv1_1" in by_caffe.values():
        theirs, kind, colors = by_caffe, "VGG-16 by Caffe's names", "caffe"
    else:
        convolutions = [int(m[1]) for m in _matches(r"features\.(\d+)\.weight", tensors)]
        convolutions = [i for i in sorted(convolutions) if len(tensors[f"features.{i}.weight"].shape) == 4]
        theirs = {f"features.{i}": ours for i, ours in zip(convolutions, VGG_CONVOLUTIONS, strict=False)}
        theirs |= {"classifier.0": "fc6", "classifier.3": "fc7"}
        kind, colors = "torchvision's VGG-16", "torch"
        if any(name.startswith("classifier.conv2d_list.") for name in tensors):
            raise UserError(
                f"{path}: AdaptSegNet's VGG-16, with fc6 and fc7 before one ASPP; there is no such network here"
            )
        if any(name.startswith("features.1.") for name in tensors):
            raise UserError(f"{path}: a VGG-16 with batch norm; there is no such network here")
    layers = _renamed(tensors, theirs)
    dense = len(layers.get("fc6", {}).get("kernel", Array((), None)).shape) == 2
    if dense:
        flat = layers["fc6"]["kernel"]  # [filters, 25088]; [c, h, w] flattened
        shape, turned = (7, 7, 512, flat.shape[0]), (flat.shape[0], 512, 7, 7)
        layers["fc6"]["kernel"] = Array(shape, lambda: flat.read().reshape(turned).transpose(2, 3, 1, 0))
        layers["fc7"]["kernel"] = layers["fc7"]["kernel"].transposed(1, 0)
    told = {name: arrays for name, arrays in layers.items() if not (dense and name.startswith("fc"))}
    notes = []
    if colors == "torch":
        notes.append("taken as torchvision's; a copy of Caffe's weights under these names wants preprocessing='caffe'")
    return Source(kind, layers, network_of(told) | {"preprocessing": colors}, dense=dense, notes=notes)


def _efficientnet_lite(tensors: dict[str, Array]) -> Layers:
    """Depthwise kernels [channels, 1, h, w] become [h, w, channels, 1]; the epsilon of batch norm is ours."""
    ours = {"_conv_stem": "stem_conv", "_bn0": "stem_bn"}
    for block in range(16):
        parts = {"_expand_conv": "expand_conv", "_depthwise_conv": "depthwise_conv", "_project_conv": "project_conv"}
        parts |= {"_bn0": "expand_bn", "_bn1": "depthwise_bn", "_bn2": "project_bn"}
        ours |= {f"_blocks.{block}.{theirs}": f"block{block}_{name}" for theirs, name in parts.items()}
    layers = _renamed(tensors, ours)
    for name, arrays in layers.items():
        if name.endswith("depthwise_conv"):
            arrays["kernel"] = arrays["kernel"].transposed(0, 1, 3, 2)
    return layers


def _matches(pattern: str, names) -> list[re.Match]:
    return [match for match in (re.fullmatch(pattern, name) for name in names) if match]


def _renamed(tensors: dict[str, Array], ours: dict[str, str]) -> Layers:
    """Arrays by layer, in our layout; modules without a counterpart keep their names."""
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
