"""keras.applications' ImageNet networks: their VGG-16 and ResNet-50/101 as ours."""

import re

import keras
import numpy as np

from deeplab_tf.errors import UserError
from deeplab_tf.weights.source import Layers, Source, fold_biases, fold_epsilon, resnet_units

_EPSILON = 1.001e-5  # of their batch norm


def read(model, seed: int) -> Source:
    """Reads the weights for the model's backbone, which Keras downloads and caches (`~/.keras/models`)."""
    applications = {"vgg16": "VGG16", "resnet50": "ResNet50", "resnet101": "ResNet101"}
    if model.backbone not in applications:
        raise UserError(f"imagenet: there are no such weights for {model.backbone}; only for {', '.join(applications)}")
    build = getattr(keras.applications, applications[model.backbone])
    try:
        # VGG-16's dense layers become fc6 and fc7.
        application = build(weights="imagenet", include_top=model.backbone == "vgg16")
    except Exception as error:  # Keras raises plain Exceptions where it cannot download.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"imagenet: Keras could not provide {applications[model.backbone]}'s weights ({reason}); offline, "
            "give the .h5 file of keras.applications itself"
        ) from None
    layers = {
        layer.name: {weight.name: keras.ops.convert_to_numpy(weight) for weight in layer.weights}
        for layer in application.layers
        if layer.weights
    }
    return converted(layers, f"keras.applications.{applications[model.backbone]}", model, seed)


def is_application(layers: Layers) -> bool:
    """Whether these layers have the names of keras.applications' VGG-16 or ResNets."""
    return "block1_conv1" in layers or "conv1_conv" in layers


def converted(layers: Layers, kind: str, model, seed: int) -> Source:
    """Their layers under our names, in our arithmetic.

    Args:
        layers: keras.applications' by their own names.
        kind: where they come from, in words.
        model: the `DeepLab` that they are for.
        seed: of the random choice of filters for fc6 and fc7 of VGG-16.
    """
    if "block1_conv1" in layers:
        renamed = {re.sub(r"^block(\d)_conv(\d)$", r"conv\1_\2", name): arrays for name, arrays in layers.items()}
        notes = []
        if "fc1" in renamed and "fc2" in renamed and model.backbone == "vgg16":
            dense, following = renamed.pop("fc1"), renamed.pop("fc2")
            fc6 = dense | {"kernel": dense["kernel"].reshape(7, 7, 512, -1)}
            renamed |= fully_connected(fc6, following, model, seed)
            notes.append(f"fc6 and fc7 are the dense layers, subsampled (seed {seed})")
        return Source(kind, renamed, preprocessing="keras", notes=notes)

    theirs = {"conv1_conv": "conv1", "conv1_bn": "bn_conv1"}
    for stage, block, unit in resnet_units(model):
        for branch, ours in enumerate(("branch1", "branch2a", "branch2b", "branch2c")):
            theirs[f"conv{stage}_block{block}_{branch}_conv"] = f"res{unit}_{ours}"
            theirs[f"conv{stage}_block{block}_{branch}_bn"] = f"bn{unit}_{ours}"
    renamed = {theirs.get(name, name): dict(arrays) for name, arrays in layers.items()}
    fold_biases(renamed)
    fold_epsilon(renamed, _EPSILON)
    return Source(kind, renamed, preprocessing="keras", bottleneck="caffe")


def fully_connected(fc6: dict, fc7: dict, model, seed: int) -> Layers:
    """VGG-16's fc6 and fc7 as the convolutions of the model's head (Sec. 3.1 and 4.1.1).

    fc6 keeps every tap of its 7x7 grid that is on a coarser, equally spaced one: all of them for 7x7, rows and columns
    0, 2, 4, 6 for 4x4 and 0, 3, 6 for 3x3. Where the head has fewer than 4,096 filters, each branch keeps a random
    subset of its own, in fc7 of fc6's subset.

    Args:
        fc6: kernel [7, 7, 512, 4096] and bias [4096].
        fc7: kernel [4096, 4096] or [1, 1, 4096, 4096], and bias [4096].
        model: the `DeepLab`, with the backbone VGG-16.
        seed: of the random subsets.
    """
    rng = np.random.default_rng(seed)
    layers: Layers = {}
    for layer in model.network.layers:
        if not re.fullmatch(r"fc6(_\d)?", layer.name):
            continue
        side, filters = layer.kernel.shape[0], layer.kernel.shape[-1]
        taps = {7: slice(None), 4: slice(None, None, 2), 3: slice(None, None, 3)}[side]
        of_fc6, of_fc7 = (np.sort(rng.permutation(len(weights["bias"]))[:filters]) for weights in (fc6, fc7))
        kernel = fc7["kernel"].reshape(len(fc6["bias"]), -1)
        layers[layer.name] = {"kernel": fc6["kernel"][taps, taps][..., of_fc6], "bias": fc6["bias"][of_fc6]}
        layers[layer.name.replace("fc6", "fc7")] = {
            "kernel": kernel[np.newaxis, np.newaxis, of_fc6[:, np.newaxis], of_fc7],
            "bias": fc7["bias"][of_fc7],
        }
    return layers
