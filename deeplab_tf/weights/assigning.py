"""From weights that were read to the variables of a model: all checked first, then all assigned."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from deeplab_tf.errors import UserError
from deeplab_tf.models import DeepLab
from deeplab_tf.weights.report import LoadReport, listed
from deeplab_tf.weights.source import EPSILON, Array, Layers, Source
from deeplab_tf.weights.vgg import fully_connected


@dataclasses.dataclass(frozen=True)
class Assignment:
    """Values for variables, all read and checked."""

    values: list[tuple[Any, np.ndarray]]
    report: LoadReport

    def apply(self) -> LoadReport:
        """Gives the variables their values."""
        for variable, value in self.values:
            variable.assign(value)
        return self.report


def prepare(model: DeepLab, source: Source, name: str, seed: int, overrule: Sequence[str] = ()) -> Assignment:
    """Finds and reads the weights in `source` for each layer of a model, which is not changed.

    Args:
        model: the network to fill.
        source: the weights.
        name: of the source, for messages.
        seed: of the filters of VGG-16's dense layers that thinner heads draw.
        overrule: arguments in which the model may differ from what the source tells.

    Raises:
        UserError: the source is of another network, a shape does not fit, a layer of the backbone is missing, or a
            value is not a finite number.
    """
    theirs, notes = source.layers, list(source.notes)
    layers = {layer.name: layer for layer in model.network.layers if layer.weights}
    notes += _check_network(model, layers, source, name, overrule)
    if source.dense:
        theirs = {key: arrays for key, arrays in theirs.items() if key not in ("fc6", "fc7")}
        theirs |= fully_connected(source.layers["fc6"], source.layers["fc7"], model, seed)
        notes.append(f"fc6 and fc7 are the dense layers, subsampled (seed {seed})")

    pairs: list[tuple[str, str, Any, Array]] = []
    taken, initialised = [], {}
    for layer_name, layer in layers.items():
        variables = {variable.name: variable for variable in layer.weights}
        found = theirs.get(layer_name)
        reason = "not in the source" if found is None else None
        if found is not None and layer_name in model.classifier_layers:
            reason = _other_classifier(found, variables, source, model)
        if reason:
            initialised[layer_name] = reason
            continue
        pairs += _pairs(layer_name, variables, found, name)
        taken.append(layer_name)
    missing = [layer_name for layer_name in backbone_layers(model) if layer_name in initialised]
    if missing:
        raise UserError(
            f"{name} ({source.kind}) does not hold the backbone {model.backbone}: it lacks {listed(missing)}; "
            f"it holds {listed(list(theirs)) if theirs else 'no layers at all'}"
        )
    classifier = theirs.get(model.classifier_layers[0], {})
    report = LoadReport(
        source=name,
        kind=source.kind,
        taken=tuple(taken),
        left=tuple(layer_name for layer_name in theirs if layer_name not in layers),
        initialised=initialised,
        classes=classifier["bias"].shape[0] if "bias" in classifier else None,
        preprocessing=model.preprocessing,
        notes=tuple(notes),
    )
    return Assignment([(variable, _numbers(array, kind, where)) for where, kind, variable, array in pairs], report)


def backbone_layers(model: DeepLab) -> list[str]:
    """Names of the layers with weights below the head, which starts at fc1 (ResNet) or fc6 (VGG-16)."""
    return [layer.name for layer in model.network.layers if layer.weights and not layer.name.startswith("fc")]


def _check_network(model: DeepLab, layers: dict, source: Source, name: str, overrule: Sequence[str]) -> list[str]:
    """Refuses the weights of another network, naming the arguments to change; returns notes on overruled ones."""
    told = source.network
    shared = [layer for layer in layers if layer.startswith("fc") and layer in source.layers and not source.dense]
    asked = {"backbone", "block_style", "preprocessing"}
    if any(layer not in model.classifier_layers or _same_shape(source.layers, layers, layer) for layer in shared):
        asked |= {"head"} if model.head not in source.other_heads else set()
        asked |= {"average_pool"} if told.get("head") == model.head else set()
    other = {key: value for key, value in told.items() if key in asked and value != getattr(model, key)}
    refused = {key: value for key, value in other.items() if key not in overrule}
    if refused:
        here = ", ".join(f"{key}={getattr(model, key)!r}" for key in refused)
        wanted = ", ".join(f"{key}={value!r}" for key, value in refused.items())
        raise UserError(f"{name} ({source.kind}) is of another network: build the model with {wanted} (it has {here})")
    return [f"its {key}={value!r} is overruled by {getattr(model, key)!r}" for key, value in other.items()]


def _same_shape(theirs: Layers, layers: dict, layer: str) -> bool:
    found = theirs[layer].get("kernel")
    return found is not None and found.shape == tuple(layers[layer].kernel.shape)


def _pairs(layer: str, variables: dict, found: dict[str, Array], name: str) -> list:
    """(where, kind, variable, array) for each variable of a layer, once names and shapes are checked."""
    if set(found) != set(variables):
        raise UserError(f"{name}: layer {layer} has {_words(found)}, expected {_words(variables)}")
    for kind, variable in variables.items():
        if found[kind].shape != tuple(variable.shape):
            raise UserError(
                f"{name}: layer {layer}: found a {kind} of shape {list(found[kind].shape)}, expected "
                f"{list(variable.shape)}; is it for another backbone or head?"
            )
    return [(f"{name}: layer {layer}", kind, variable, found[kind]) for kind, variable in variables.items()]


def _numbers(array: Array, kind: str, where: str) -> np.ndarray:
    """Reads an array as float32, once what it holds is checked."""
    values = np.asarray(array.read())
    if values.dtype.kind not in "fiu":
        raise UserError(f"{where}: its {kind} holds values of type {values.dtype}, expected real numbers")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{where}: its {kind} holds values that are not finite in float32")
    if kind == "moving_variance" and values.min(initial=0) < -EPSILON:
        raise UserError(f"{where}: its {kind} holds negative numbers")
    return values


def _other_classifier(found: dict[str, Array], variables: dict, source: Source, model: DeepLab) -> str | None:
    """Why a classifier cannot be taken, where it is of another head or for another number of classes."""
    if set(found) != set(variables):
        return None
    if len(found["kernel"].shape) != 4:
        return "the source's is for whole images"
    theirs, ours = found["kernel"].shape, tuple(variables["kernel"].shape)
    if theirs == ours:
        return None
    if source.network.get("head", model.head) != model.head:
        return f"head {source.network['head']} in the source, {model.head} here"
    if theirs[:3] == ours[:3] and found["bias"].shape == theirs[3:]:
        return f"{theirs[3]} classes in the source, {ours[3]} here"
    return None


def _words(names) -> str:
    return " and ".join(sorted(names)) or "nothing"
