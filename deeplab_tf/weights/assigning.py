"""From weights that were read to the variables of a model: all checked first, then all assigned."""

import dataclasses
from typing import Any

import numpy as np

from deeplab_tf.errors import UserError
from deeplab_tf.weights.source import Source


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of a load; `print` it.

    Attributes:
        source: as given to `load`.
        kind: what that was, in words.
        taken: names of the model's layers that now have the source's weights.
        left: names of the source's layers that the model has no use for.
        initialised: names of the model's layers that keep their values, each with the reason.
        classes: of the source's classifier; None where it has none for this head.
        preprocessing: style of the colour statistics of the model, after the load.
        notes: further things to know.
    """

    source: str
    kind: str
    taken: tuple[str, ...]
    left: tuple[str, ...]
    initialised: dict[str, str]
    classes: int | None
    preprocessing: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"weights      {self.source} ({self.kind})", f"taken        {_listed(self.taken)}"]
        if self.left:
            lines.append(f"left         {_listed(self.left)}")
        reasons = dict.fromkeys(self.initialised.values())
        lines += [
            f"initialised  {_listed([n for n, r in self.initialised.items() if r == why])}: {why}" for why in reasons
        ]
        lines.append(f"preprocessing  {self.preprocessing}")
        return "\n".join([*lines, *(f"note         {note}" for note in self.notes)])


def assign(model, source: Source, name: str) -> LoadReport:
    """Gives `model` the weights of `source`, or raises and changes nothing.

    Args:
        model: a `DeepLab`.
        source: the weights.
        name: of the source, for messages.

    Raises:
        UserError: a shape does not fit, a layer of the backbone is missing, or a value is not finite.
    """
    pairs: list[tuple[Any, np.ndarray]] = []
    taken, initialised, missing = [], {}, []
    layers = {layer.name: layer for layer in [model.preprocess, *model.network.layers] if layer.weights}
    for layer_name, layer in layers.items():
        variables = {variable.name: variable for variable in layer.weights}
        found = source.layers.get(layer_name)
        if found is None:
            if layer_name in backbone_layers(model):
                missing.append(layer_name)
            elif layer is not model.preprocess:
                initialised[layer_name] = "not in the source"
            continue
        fresh = _other_number_of_classes(found, variables) if layer_name in model.classifier_layers else None
        if fresh:
            initialised[layer_name] = fresh
            continue
        pairs += _pairs(layer_name, variables, found, name)
        taken.append(layer_name)
    if missing:
        raise UserError(
            f"{name} ({source.kind}) does not hold the backbone {model.backbone}: it lacks {_listed(missing)}; "
            f"it holds {_listed(list(source.layers)) if source.layers else 'no layers at all'}"
        )

    if source.bottleneck is not None:
        model.bottleneck = source.bottleneck  # First: it may refuse what a file says.
    for variable, value in pairs:
        variable.assign(value)
    if source.preprocessing is not None:
        model.preprocessing = source.preprocessing
    left = tuple(layer_name for layer_name in source.layers if layer_name not in layers)
    classifier = source.layers.get(model.classifier_layers[0], {})
    return LoadReport(
        source=name,
        kind=source.kind,
        taken=tuple(taken),
        left=left,
        initialised=initialised,
        classes=len(classifier["bias"]) if "bias" in classifier else None,
        preprocessing=model.preprocessing,
        notes=tuple(source.notes),
    )


def backbone_layers(model) -> list[str]:
    """Names of the layers with weights below the head, which starts at fc1 (ResNet) or fc6 (VGG-16)."""
    return [layer.name for layer in model.network.layers if layer.weights and not layer.name.startswith("fc")]


def _pairs(layer: str, variables: dict, found: dict[str, np.ndarray], name: str) -> list:
    """(variable, value) for each variable of a layer, after all checks."""
    if set(found) != set(variables):
        raise UserError(f"{name}: layer {layer} has {_words(found)}, expected {_words(variables)}")
    for kind, variable in variables.items():
        value = found[kind]
        if tuple(value.shape) != tuple(variable.shape):
            raise UserError(
                f"{name}: layer {layer}: found a {kind} of shape {list(value.shape)}, expected {list(variable.shape)}; "
                "is it for another backbone or head?"
            )
        if not np.isfinite(value).all():
            raise UserError(f"{name}: layer {layer}: its {kind} holds values that are not finite")
    return [(variable, found[kind]) for kind, variable in variables.items()]


def _other_number_of_classes(found: dict[str, np.ndarray], variables: dict) -> str | None:
    """Why a classifier cannot be taken, where nothing but its number of classes differs."""
    if set(found) != set(variables) or found["kernel"].ndim != 4:
        return None
    theirs, ours = found["kernel"].shape, tuple(variables["kernel"].shape)
    if theirs[:3] == ours[:3] and theirs[3] != ours[3] and found["bias"].shape == theirs[3:]:
        return f"{theirs[3]} classes in the source, {ours[3]} here"
    return None


def _words(names) -> str:
    return " and ".join(sorted(names)) or "nothing"


def _listed(names) -> str:
    """`104 layers: a, b, c, ..., z`, or all where they are few."""
    names = list(names)
    shown = names if len(names) <= 6 else [*names[:3], "...", *names[-2:]]
    return f"{len(names)} layer{'s' * (len(names) != 1)}{': ' * bool(names)}{', '.join(shown)}"
