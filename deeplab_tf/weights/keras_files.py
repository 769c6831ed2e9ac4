"""Weights in HDF5: our own `.weights.h5` and `.keras`, and those of keras.applications, old and new."""

import json
import pathlib
import zipfile

import h5py
import numpy as np

from deeplab_tf.errors import UserError
from deeplab_tf.weights import imagenet
from deeplab_tf.weights.source import Layers, Source

# What Keras writes of a layer, by the number of its arrays.
_NAMES = {1: ("kernel",), 2: ("kernel", "bias"), 4: ("gamma", "beta", "moving_mean", "moving_variance")}


def read(path: pathlib.Path, model, seed: int) -> Source:
    """Reads `path`; where it is of keras.applications, its layers become the model's."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as content, h5py.File(content) as file:
            layers, config = _layers(file), _config(file)
    else:
        with h5py.File(path) as file:
            layers, config = _layers(file), _config(file)
    if not layers:
        raise UserError(f"{path}: found no weights of layers, expected a file of model.save_weights() or model.save()")
    if imagenet.is_application(layers):
        return imagenet.converted(layers, "weights of keras.applications", model, seed)
    return Source("weights of Keras", layers, bottleneck=config.get("bottleneck"))


def _config(file: h5py.File) -> dict:
    """The configuration that a `DeepLab` writes into its files; empty in others'."""
    config = file.get("vars/config")
    return {} if config is None else json.loads(np.asarray(config).tobytes())


def _layers(file: h5py.File) -> Layers:
    """Every layer's arrays. Keras 3 keeps a layer's name beside its `vars`; Keras 2 made it the name of the group."""
    groups: dict[str, list] = {}

    def visit(path: str, item) -> None:
        if isinstance(item, h5py.Group) and "weight_names" in item.attrs:
            names = (name.decode() if isinstance(name, bytes) else name for name in item.attrs["weight_names"])
            groups[path.removeprefix("model_weights/")] = [item[name] for name in names]
        elif isinstance(item, h5py.Group) and path.endswith("/vars") and "name" in item.attrs:
            groups[item.attrs["name"]] = [item[key] for key in sorted(item)]

    file.visititems(visit)
    layers: Layers = {}
    for name, datasets in groups.items():
        names = ("matrix", "offset") if name == "preprocessing" else _NAMES.get(len(datasets))
        if names:
            layers[name] = {kind: np.asarray(dataset) for kind, dataset in zip(names, datasets, strict=True)}
    return layers
