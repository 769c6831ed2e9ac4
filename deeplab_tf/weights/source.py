"""What every reader of weights returns, in the names and the layout of our own layers."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from deeplab_tf.models.resnet import block_names

# The epsilon of our batch norm; others' is folded into their variance.
EPSILON = 1e-5

Layers = dict[str, dict[str, np.ndarray]]


@dataclasses.dataclass
class Source:
    """Weights as read, before any of them is in a model.

    Attributes:
        kind: what they were read from, in words.
        layers: arrays by layer and by "kernel" [h, w, in, out], "bias", "gamma", "beta", "moving_mean" and
            "moving_variance" [out]; layers of the names of ours are meant for them.
        preprocessing: the style of the colour statistics they were trained with; None: not told.
        bottleneck: where the blocks of the ResNet had their strides, one of `BOTTLENECKS`; None: not told.
        notes: for the reader of the report.
    """

    kind: str
    layers: Layers
    preprocessing: str | None = None
    bottleneck: str | None = None
    notes: list[str] = dataclasses.field(default_factory=list)


def batch_norm_of(convolution: str) -> str:
    """The layer that normalises a convolution of a ResNet: conv1 -> bn_conv1, res2a_branch1 -> bn2a_branch1."""
    return f"bn_{convolution}" if convolution == "conv1" else f"bn{convolution.removeprefix('res')}"


def fold_biases(layers: Layers) -> None:
    """Moves the bias of a convolution before batch norm into the mean that is subtracted there, in place."""
    for name, arrays in layers.items():
        normalised = layers.get(batch_norm_of(name))
        if normalised and "bias" in arrays and "moving_mean" in normalised:
            normalised["moving_mean"] = normalised["moving_mean"] - arrays.pop("bias")


def fold_epsilon(layers: Layers, epsilon: float) -> None:
    """Makes variance + our epsilon what variance + `epsilon` was, in place."""
    for arrays in layers.values():
        if "moving_variance" in arrays and epsilon != EPSILON:
            variance = arrays["moving_variance"].astype(np.float64) + (epsilon - EPSILON)
            arrays["moving_variance"] = variance.astype(np.float32)


def resnet_units(model) -> Iterator[tuple[int, int, str]]:
    """(stage, from 2; block, from 1; Caffe's name such as "4b22") of each block of the ResNet; none for VGG-16."""
    block = {}
    for name in block_names(model.backbone) if model.backbone != "vgg16" else ():
        stage = int(name[0])
        block[stage] = block.get(stage, 0) + 1
        yield stage, block[stage], name
