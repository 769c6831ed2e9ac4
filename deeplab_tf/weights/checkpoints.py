"""TensorFlow checkpoints: of our own training, and the Model Garden's ResNets."""

import json
import pathlib
import re

from deeplab_tf.errors import UserError
from deeplab_tf.run_folder import DESCRIPTION_FILE, latest_checkpoint
from deeplab_tf.weights.source import Layers, Source, fold_epsilon, resnet_units

_KINDS = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance", "matrix", "offset")
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
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


def read(prefix: str, model, batch_norm_epsilon: float | None) -> Source:
    """Reads the checkpoint `prefix`, a path without suffix.

    Args:
        prefix: of the checkpoint's files.
        model: the `DeepLab` that it is for.
        batch_norm_epsilon: of the Model Garden's network; None: as the params.yaml beside the checkpoint says, or the
            default of the Garden's classes.
    """
    import tensorflow as tf

    reader = tf.train.load_checkpoint(prefix)
    stem = re.compile(r"(?P<root>.*?)layer_with_weights-0/kernel" + re.escape(_VALUE))
    roots = [match["root"] for match in map(stem.fullmatch, reader.get_variable_to_shape_map()) if match]
    if not roots:
        return Source("checkpoint of deeplab_tf", _own(reader), bottleneck=_bottleneck_of_the_run(prefix))

    epsilon = batch_norm_epsilon or _epsilon_of_the_experiment(prefix)
    layers = _garden(reader, min(roots, key=len), model)
    fold_epsilon(layers, epsilon or _GARDEN_EPSILON)
    note = f"batch norm's epsilon is taken as {epsilon or _GARDEN_EPSILON:g}"
    if not epsilon:
        note += ", the default of the Garden's classes; pass batch_norm_epsilon if its training had another"
    return Source("Model Garden", layers, preprocessing="torch", bottleneck="garden", notes=[note])


def _own(reader) -> Layers:
    """Arrays by the full names of their variables, which are ours: layer/kind."""
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.ParseFromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    layers: Layers = {}
    for attribute in (attribute for node in graph.nodes for attribute in node.attributes):
        layer, _, kind = attribute.full_name.rpartition("/")
        if layer and kind in _KINDS:
            layers.setdefault(layer.rpartition("/")[2], {})[kind] = reader.get_tensor(attribute.checkpoint_key)
    return layers


def _bottleneck_of_the_run(prefix: str) -> str | None:
    """Where the network of our own training run has its strides, if the checkpoint lies in the run's folder."""
    description = pathlib.Path(prefix).parent.parent / DESCRIPTION_FILE
    if not description.is_file():
        return None
    return json.loads(description.read_text(encoding="utf-8"))["model"].get("bottleneck")


def _garden(reader, root: str, model) -> Layers:
    """The backbone's layers: the stem's convolution and batch norm, then one Keras layer for each block."""

    def arrays(path: str) -> dict:
        keys = {kind: f"{root}{path}/{kind}{_VALUE}" for kind in _KINDS}
        return {kind: reader.get_tensor(key) for kind, key in keys.items() if reader.has_tensor(key)}

    layers = {"conv1": arrays("layer_with_weights-0"), "bn_conv1": arrays("layer_with_weights-1")}
    branches = (
        ("branch1", "_shortcut", "_norm0"),
        *((f"branch2{'abc'[i - 1]}", f"_conv{i}", f"_norm{i}") for i in (1, 2, 3)),
    )
    for position, (_, _, unit) in enumerate(resnet_units(model), start=2):
        for branch, convolution, norm in branches:
            layers[f"res{unit}_{branch}"] = arrays(f"layer_with_weights-{position}/{convolution}")
            layers[f"bn{unit}_{branch}"] = arrays(f"layer_with_weights-{position}/{norm}")
    return {name: found for name, found in layers.items() if found}


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
