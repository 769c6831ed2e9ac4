"""`Source`, which every reader of weights returns: arrays in the names and the layout of our own layers."""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from deeplab_tf.errors import UserError
from deeplab_tf.models.architectures import RESNET_HEADS, VGG_HEADS, block_names

# The epsilon of our batch norm; others' is folded into their variance.
EPSILON = 1e-5
# The filters of each convolution of VGG-16, by our name.
VGG_CONVOLUTIONS = {
    f"conv{stage}_{i}": filters
    for stage, (count, filters) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), start=1)
    for i in range(1, count + 1)
}


@dataclasses.dataclass(frozen=True)
class Array:
    """An array in a file: its shape is known, its numbers are read when they are asked for.

    Attributes:
        shape: of the array.
        read: returns the numbers.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]

    @classmethod
    def of(cls, values) -> "Array":
        """Numbers that are in memory already."""
        values = np.asarray(values)
        return cls(values.shape, lambda: values)

    def transposed(self, *axes: int) -> "Array":
        """The array with its axes in another order."""
        return Array(tuple(self.shape[axis] for axis in axes), lambda: self.read().transpose(axes))

    def plus(self, other: "Array | float") -> "Array":
        """The sum, in float64 until it is used."""
        return Array(
            self.shape,
            lambda: self.read().astype(np.float64) + (other.read() if isinstance(other, Array) else other),
        )


Layers = dict[str, dict[str, Array]]


@dataclasses.dataclass
class Source:
    """Weights as they lie in a file, before any of them is in a model.

    Attributes:
        kind: what they are read from, in words.
        layers: arrays by layer and by "kernel" [h, w, in, out], "bias", "gamma", "beta", "moving_mean" and
            "moving_variance" [out]; layers of the names of ours are meant for them.
        network: arguments of `DeepLab` that the file, or the family it belongs to, tells.
        dense: whether fc6 and fc7 are VGG-16's dense layers, fc6 as [7, 7, 512, filters].
        other_heads: heads besides network["head"] that its classifiers may serve, if asked for.
        crf: parameters of `DenseCRF` that were published with it; None: none were.
        notes: for the reader of the report.
    """

    kind: str
    layers: Layers
    network: dict[str, Any]
    dense: bool = False
    other_heads: tuple[str, ...] = ()
    crf: dict[str, Any] | None = None
    notes: list[str] = dataclasses.field(default_factory=list)


def batch_norm_of(convolution: str) -> str:
    """The layer that normalises a convolution of a ResNet: conv1 -> bn_conv1, res2a_branch1 -> bn2a_branch1."""
    return f"bn_{convolution}" if convolution == "conv1" else f"bn{convolution.removeprefix('res')}"


def fold_biases(layers: Layers) -> None:
    """Moves the bias of a convolution before batch norm into the mean that is subtracted there, in place."""
    for name, arrays in layers.items():
        normalised = layers.get(batch_norm_of(name))
        if normalised and "bias" in arrays and "moving_mean" in normalised:
            bias = arrays.pop("bias")
            normalised["moving_mean"] = normalised["moving_mean"].plus(
                Array(bias.shape, lambda bias=bias: -bias.read())
            )


def fold_epsilon(layers: Layers, epsilon: float) -> None:
    """Makes variance + our epsilon what variance + `epsilon` was, in place."""
    for arrays in layers.values():
        if "moving_variance" in arrays and epsilon != EPSILON:
            arrays["moving_variance"] = arrays["moving_variance"].plus(epsilon - EPSILON)


_RESNETS = ("resnet101", "resnet50", "resnet_tiny")


def _block_counts(backbone: str) -> tuple[int, ...]:
    names = block_names(backbone)
    return tuple(sum(name.startswith(str(stage)) for name in names) for stage in (2, 3, 4, 5))


def resnet_of(blocks: set[tuple[int, int]], name: str) -> str:
    """The ResNet whose blocks these are.

    Args:
        blocks: (stage, from 2; number in the stage) of each block.
        name: of the source, for messages.

    Raises:
        UserError: there is no such ResNet here.
    """
    counts = tuple(sum(stage == of_stage for stage, _ in blocks) for of_stage in (2, 3, 4, 5))
    known = {_block_counts(backbone): backbone for backbone in _RESNETS}
    if counts not in known:
        raise UserError(
            f"{name}: a ResNet with {counts} blocks in its stages; expected one of "
            + ", ".join(f"{each} ({backbone})" for each, backbone in known.items())
        )
    return known[counts]


def resnet_units(backbone: str) -> Iterator[tuple[int, int, str]]:
    """(stage, from 2; block, from 1; Caffe's name such as "4b22") of each block of a ResNet."""
    block: dict[int, int] = {}
    for name in block_names(backbone):
        stage = int(name[0])
        block[stage] = block.get(stage, 0) + 1
        yield stage, block[stage], name


def vgg_convolutions(layers: Layers, paths: Mapping[str, str]) -> Layers:
    """The thirteen convolutions of a VGG-16 under any names: a chain of 3x3 kernels with its channels; {} without one.

    Args:
        layers: by names of anybody's.
        paths: where each lies in its file; the chain follows their natural order, conv2d_2 before conv2d_10.
    """

    def natural(layer: str) -> list:
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", paths[layer])]

    if "conv1_1" in layers or "conv1" in layers:
        return {}  # ours
    shapes = {layer: arrays["kernel"].shape for layer, arrays in layers.items() if set(arrays) == {"kernel", "bias"}}
    names = sorted((layer for layer, shape in shapes.items() if shape[:2] == (3, 3)), key=natural)
    widths = list(VGG_CONVOLUTIONS.values())
    expected = [(3, 3, *channels) for channels in zip([3, *widths], widths, strict=False)]
    for first in range(len(names) - len(expected) + 1):
        chain = names[first : first + len(expected)]
        if [shapes[layer] for layer in chain] == expected:
            return {ours: layers[layer] for ours, layer in zip(VGG_CONVOLUTIONS, chain, strict=True)}
    return {}


def network_of(layers: Layers, rates: Mapping[str, int] | None = None) -> dict[str, Any]:
    """The network that the names and shapes of layers tell.

    Args:
        layers: by our names.
        rates: atrous rates by layer, where they are known; heads of equal shapes differ in them alone.

    Returns:
        the arguments "backbone", "head" and "num_classes" of `DeepLab`, as far as they are clear.
    """
    network: dict[str, Any] = {}
    units = {name[3 : -len("_branch2a")] for name in layers if re.fullmatch(r"res\w+_branch2a", name)}
    if "conv1_1" in layers:
        network["backbone"] = "vgg16"
    elif "stem_conv" in layers:
        network["backbone"] = "efficientnet_lite0"
    else:
        known = [backbone for backbone in _RESNETS if set(block_names(backbone)) == units]
        if not known:
            return network
        network["backbone"] = known[0]
    is_vgg = network["backbone"] == "vgg16"
    fitting = [head for head in (VGG_HEADS if is_vgg else RESNET_HEADS) if _fits(head, is_vgg, layers, rates or {})]
    if len(fitting) == 1:
        network["head"] = fitting[0]
    first = next((name for name in layers if re.fullmatch(r"fc8(_1)?|fc1(_c0)?", name)), None)
    if first and len(layers[first]["kernel"].shape) == 4:
        network["num_classes"] = layers[first]["kernel"].shape[3]
    return network


def _fits(head: str, is_vgg: bool, layers: Layers, rates: Mapping[str, int]) -> bool:
    """Whether the layers can be those of a head: their names, the side of the kernel, its filters, the rates."""
    if is_vgg:
        side, filters, of_branch = VGG_HEADS[head]
        names = ["fc6"] if len(of_branch) == 1 else [f"fc6_{i}" for i in range(1, len(of_branch) + 1)]
    else:
        side, of_branch = RESNET_HEADS[head]
        filters = None
        names = ["fc1"] if len(of_branch) == 1 else [f"fc1_c{i}" for i in range(len(of_branch))]
    stem = "fc6" if is_vgg else "fc1"
    if {name for name in layers if re.fullmatch(rf"{stem}(_c?\d)?", name)} != set(names):
        return False
    shapes = [layers[name]["kernel"].shape for name in names]
    return all(
        len(shape) == 4
        and shape[0] == side
        and filters in (None, shape[3])
        and (side == 1 or rates.get(name, rate) == rate)
        for name, shape, rate in zip(names, shapes, of_branch, strict=True)
    )
