"""TensorFlow checkpoints: of our own training, the Model Garden's ResNets, DrSleep's of TensorFlow 1."""

import json
import pathlib
import re

from deeplab_tf.errors import UserError
from deeplab_tf.run_folder import DESCRIPTION_FILE, latest_checkpoint
from deeplab_tf.weights.keras_files import color_style, told_by
from deeplab_tf.weights.source import (
    Array,
    Layers,
    Source,
    batch_norm_of,
    fold_epsilon,
    network_of,
    resnet_of,
    resnet_units,
)

_KINDS = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance", "matrix", "offset")
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_SLIM_EPSILON = 1e-3
_GARDEN_EPSILON = 1e-3  # of batch norm, where the Garden's classes are told nothing else


def find(path: pathlib.Path) -> str | None:
    """The checkpoint that `path` means: itself, with or without its suffix; the last one of a folder or of a run."""
    import tensorflow as tf

    if path.is_dir():
        newest = sorted(path.glob("*.index"), key=lambda file: file.stat().st_mtime)[-1:]  # As copied: no list of them.
        return (
            latest_checkpoint(path)
            or tf.train.latest_checkpoint(str(path))
            or next((str(file.with_suffix("")) for file in newest), None)
        )
    prefix = re.sub(r"\.(index|data-\d+-of-\d+)$", "", str(path))
    return prefix if pathlib.Path(f"{prefix}.index").is_file() else None


def read(prefix: str, batch_norm_epsilon: float | None) -> Source:
    """Reads names and shapes of the checkpoint `prefix`, a path without suffix; the numbers when they are asked for.

    Args:
        prefix: of the checkpoint's files.
        batch_norm_epsilon: of the Model Garden's network; None: as the params.yaml beside the checkpoint says, or the
            default of the Garden's classes.
    """
    import tensorflow as tf

    reader = tf.train.load_checkpoint(prefix)
    if "res2a_branch1/weights" in reader.get_variable_to_shape_map():
        return _drsleep(reader)
    stem = re.compile(r"(?P<root>.*?)layer_with_weights-0/kernel" + re.escape(_VALUE))
    roots = [match["root"] for match in map(stem.fullmatch, reader.get_variable_to_shape_map()) if match]
    if not roots:
        layers = _own(reader)
        style = color_style(layers.pop("preprocessing", {}), prefix)
        network = network_of(layers) | style | _description_of_the_run(prefix)
        return Source("checkpoint of deeplab_tf", layers, network)

    epsilon = batch_norm_epsilon or _epsilon_of_the_experiment(prefix)
    layers, backbone = _garden(reader, min(roots, key=len), prefix)
    fold_epsilon(layers, epsilon or _GARDEN_EPSILON)
    note = f"batch norm's epsilon is taken as {epsilon or _GARDEN_EPSILON:g}"
    if not epsilon:
        note += ", the default of the Garden's classes; pass batch_norm_epsilon if its training had another"
    network = {"backbone": backbone, "preprocessing": "torch", "block_style": "garden"}
    return Source("Model Garden", layers, network, notes=[note])


def _drsleep(reader) -> Source:
    """DrSleep's tensorflow-deeplab-resnet (TensorFlow 1): Caffe's names, the epsilon of slim's batch norm."""
    kinds = {"weights": "kernel", "biases": "bias"} | {kind: kind for kind in _KINDS[2:6]}
    layers: Layers = {}
    for key in reader.get_variable_to_shape_map():
        layer, _, kind = key.rpartition("/")
        if kind in kinds and "/" not in layer:
            layers.setdefault(re.sub(r"^fc1_.*?(_c\d)$", r"fc1\1", layer), {})[kinds[kind]] = _array(reader, key)
    fold_epsilon(layers, _SLIM_EPSILON)
    rates = {f"fc1_c{i}": rate for i, rate in enumerate((6, 12, 18, 24))}
    network = network_of(layers, rates) | {"preprocessing": "caffe", "block_style": "caffe"}
    return Source("DrSleep's DeepLab of TensorFlow 1", layers, network)


def _array(reader, key: str) -> Array:
    return Array(tuple(reader.get_variable_to_shape_map()[key]), lambda: reader.get_tensor(key))


def _own(reader) -> Layers:
    """Arrays by the full names of their variables, which are ours: layer/kind."""
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.ParseFromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    layers: Layers = {}
    for attribute in (attribute for node in graph.nodes for attribute in node.attributes):
        layer, _, kind = attribute.full_name.rpartition("/")
        if layer and kind in _KINDS:
            layers.setdefault(layer.rpartition("/")[2], {})[kind] = _array(reader, attribute.checkpoint_key)
    return layers


def _description_of_the_run(prefix: str) -> dict:
    """The network that the run's folder describes, if the checkpoint lies in one."""
    description = pathlib.Path(prefix).parent.parent / DESCRIPTION_FILE
    if not description.is_file():
        return {}
    return told_by(json.loads(description.read_text(encoding="utf-8"))["model"], str(description))


def _garden(reader, root: str, name: str) -> tuple[Layers, str]:
    """The backbone's layers (the stem's convolution and batch norm, then one Keras layer for each block); its name."""
    keys = reader.get_variable_to_shape_map()

    def arrays(path: str) -> dict[str, Array]:
        found = {kind: f"{root}{path}/{kind}{_VALUE}" for kind in _KINDS}
        return {kind: _array(reader, key) for kind, key in found.items() if key in keys}

    blocks, stage, position = set(), 1, 2
    while arrays(f"layer_with_weights-{position}/_conv1"):
        stage += bool(arrays(f"layer_with_weights-{position}/_shortcut"))  # A projection begins a stage.
        blocks.add((stage, position))
        position += 1
    backbone = resnet_of(blocks, name)

    layers = {"conv1": arrays("layer_with_weights-0"), "bn_conv1": arrays("layer_with_weights-1")}
    branches = (
        ("branch1", "_shortcut", "_norm0"),
        *((f"branch2{'abc'[i - 1]}", f"_conv{i}", f"_norm{i}") for i in (1, 2, 3)),
    )
    for position, (_, _, unit) in enumerate(resnet_units(backbone), start=2):
        for branch, convolution, norm in branches:
            ours = f"res{unit}_{branch}"
            layers[ours] = arrays(f"layer_with_weights-{position}/{convolution}")
            layers[batch_norm_of(ours)] = arrays(f"layer_with_weights-{position}/{norm}")
    return {layer: found for layer, found in layers.items() if found}, backbone


def _epsilon_of_the_experiment(prefix: str) -> float | None:
    """Batch norm's epsilon in the params.yaml that the Garden's trainer writes beside its checkpoints."""
    params = pathlib.Path(prefix).parent / "params.yaml"
    if not params.is_file():
        return None
    found = re.search(r"^\s*norm_epsilon:\s*(\S+)\s*$", params.read_text(encoding="utf-8"), re.MULTILINE)
    try:
        return float(found[1]) if found else None
    except ValueError:
        raise UserError(f"{params}: norm_epsilon: found {found[1]!r}, expected a number") from None
