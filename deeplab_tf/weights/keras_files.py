"""Weights in HDF5: our own `.weights.h5` and `.keras`, and those of keras.applications, old and new."""

import contextlib
import io
import json
import mmap
import pathlib
import struct
import zipfile
from typing import Any

import h5py
import numpy as np

from deeplab_tf.errors import UserError
from deeplab_tf.models.deeplab import current_config
from deeplab_tf.models.preprocessing import STYLES, color_transform
from deeplab_tf.weights import imagenet
from deeplab_tf.weights.source import Array, Layers, Source, network_of, vgg_convolutions

# What Keras writes of a layer, by the number of its arrays.
_NAMES = {1: ("kernel",), 2: ("kernel", "bias"), 4: ("gamma", "beta", "moving_mean", "moving_variance")}
# The arguments of a `DeepLab` that its weights depend on, or that its run goes on with.
_OF_THE_NETWORK = ("backbone", "head", "num_classes", "output_stride", "scales")
_OF_THE_WEIGHTS = ("block_style", "preprocessing", "average_pool")
_MOST_COMPRESSED = 100  # times; weights hardly shrink at all
_HEAP = b"GCOL\1\0\0\0"
_LARGEST_CHUNK = 1 << 28  # bytes
_LONGEST_CONFIG = 1 << 16  # bytes


def read(path: pathlib.Path, stack: contextlib.ExitStack) -> Source:
    """Reads names and shapes; the numbers are read later, until `stack` closes the file."""
    if path.suffix == ".keras":
        archive = stack.enter_context(zipfile.ZipFile(path))
        entry = archive.getinfo("model.weights.h5")
        if entry.file_size > _MOST_COMPRESSED * entry.compress_size:
            raise UserError(f"{path}: its weights are compressed {entry.file_size // entry.compress_size} times")
        content = archive.read(entry)
        file = stack.enter_context(h5py.File(io.BytesIO(content)))
    else:
        file = stack.enter_context(h5py.File(path))
        with path.open("rb") as stored:
            content = stack.enter_context(mmap.mmap(stored.fileno(), 0, access=mmap.ACCESS_READ))
    _check_heaps(content, path)
    datasets, groups = _visit(file)
    layers = _layers(datasets, groups, path)
    if not layers:
        raise UserError(f"{path}: found no weights of layers, expected a file of model.save_weights() or model.save()")
    if imagenet.is_application(layers):
        return imagenet.convert(layers, "weights of keras.applications", str(path))
    convolutions = vgg_convolutions(layers, {layer: groups[layer][0] for layer in layers})
    if convolutions:
        note = "found by the shapes of their kernels; colours are taken as Caffe's"
        network = {"backbone": "vgg16", "preprocessing": "caffe"}
        return Source("VGG-16 features in a Keras file", convolutions, network, notes=[note])
    style = color_style(layers.pop("preprocessing", {}), str(path))
    network = network_of(layers) | style | told_by(_config(datasets, path), str(path))
    return Source("weights of Keras", layers, network)


def told_by(config: dict, name: str) -> dict[str, Any]:
    """The arguments that the configuration of a `DeepLab`, of any version, tells of its network; {} of {}."""
    if not config:
        return {}
    try:
        config = current_config(config)
        network = {key: config[key] for key in _OF_THE_NETWORK if key in config}
        is_vgg = config["backbone"] == "vgg16"
        skipped = "block_style" if not config["backbone"].startswith("resnet") else None
        network |= {key: config[key] for key in _OF_THE_WEIGHTS if key in config and key != skipped}
        if not is_vgg:
            network.pop("average_pool", None)
        if "scales" in network:
            network["scales"] = tuple(float(scale) for scale in network["scales"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{name}: its description of the model cannot be read ({error!r:.200})") from None
    return network


def color_style(arrays: dict[str, Array], name: str) -> dict[str, str]:
    """The `preprocessing` whose numbers a file of ours holds; {} where it holds none."""
    if set(arrays) != {"matrix", "offset"} or arrays["matrix"].shape != (3, 3) or arrays["offset"].shape != (3,):
        return {}
    for style in STYLES:
        matrix, offset = color_transform(style)
        if np.allclose(arrays["matrix"].read(), matrix) and np.allclose(arrays["offset"].read(), offset):
            return {"preprocessing": style}
    raise UserError(f"{name}: its colour statistics are those of no known preprocessing ({', '.join(STYLES)})")


def _check_heaps(content: bytes | mmap.mmap, path: pathlib.Path) -> None:
    """Refuses a file at which HDF5 (1.14.6) goes in a circle: free space of no size in a heap of texts.

    A heap is "GCOL", a version, its size, then objects of 16 bytes (number, count, size) and a content that is filled
    up to a multiple of 8; number 0 is the free space at its end, whose size counts the 16.
    """
    start, objects = content.find(_HEAP), 0
    while start >= 0:
        (size,) = struct.unpack("<Q", content[start + 8 : start + 16].ljust(8, b"\0"))
        end = min(start + size, len(content))
        at = start + 16
        while at + 16 <= end:
            number, _, length = struct.unpack("<HH4xQ", content[at : at + 16])
            objects += 1
            if number == 0 and length < 16 or 16 * objects > len(content):
                raise UserError(f"{path}: a heap of texts in it is damaged")
            at += length if number == 0 else 16 + -(-length // 8) * 8
        start = content.find(_HEAP, start + 4)


def _visit(file: h5py.File) -> tuple[dict[str, h5py.Dataset], dict[str, list[str]]]:
    """The datasets by their paths, and the paths of each layer's, in order.

    Keras 3 keeps a layer's name beside its `vars`; Keras 2 made it the name of the group. Only what lies in the file
    itself is visited: links, also to other files, are not followed.
    """
    datasets: dict[str, h5py.Dataset] = {}
    groups: dict[str, list[str]] = {}

    def visit(name: str, item) -> None:
        if isinstance(item, h5py.Dataset):
            datasets[name] = item
        elif "weight_names" in item.attrs:
            names = (key.decode() if isinstance(key, bytes) else str(key) for key in item.attrs["weight_names"])
            groups[name.removeprefix("model_weights/")] = [f"{name}/{key}" for key in names]
        elif name.endswith("/vars") and "name" in item.attrs:
            groups[str(item.attrs["name"])] = sorted(f"{name}/{key}" for key in item)

    file.visititems(visit)
    return datasets, groups


def _config(datasets: dict[str, h5py.Dataset], path: pathlib.Path) -> dict:
    """The configuration that a `DeepLab` writes into its files; empty in others'."""
    config = datasets.get("vars/config")
    if config is None:
        return {}
    if config.ndim != 1 or config.size > _LONGEST_CONFIG:
        raise UserError(f"{path}: found a configuration of shape {list(config.shape)}, expected some hundred bytes")
    return json.loads(_array(config, path).read().tobytes())


def _layers(datasets: dict[str, h5py.Dataset], groups: dict[str, list[str]], path: pathlib.Path) -> Layers:
    """Every layer's arrays."""
    layers: Layers = {}
    for layer, names in groups.items():
        kinds = ("matrix", "offset") if layer == "preprocessing" else _NAMES.get(len(names))
        if kinds and len(kinds) == len(names) and all(name in datasets for name in names):
            layers[layer] = {kind: _array(datasets[name], path) for kind, name in zip(kinds, names, strict=True)}
    return layers


def _array(dataset: h5py.Dataset, path: pathlib.Path) -> Array:
    """A dataset, read when asked for, from this file alone."""

    def read() -> np.ndarray:
        if dataset.external or dataset.is_virtual:
            raise UserError(f"{path}: {dataset.name} refers to another file, which is not read")
        if dataset.chunks and np.prod(dataset.chunks, dtype=np.float64) * dataset.dtype.itemsize > _LARGEST_CHUNK:
            raise UserError(f"{path}: {dataset.name} is stored in chunks of {dataset.chunks}, too large to be read")
        return np.asarray(dataset)

    return Array(tuple(dataset.shape or ()), read)
