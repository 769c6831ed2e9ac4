"""Layers that training leaves as they are."""

import re

from deeplab_tf.errors import UserError
from deeplab_tf.weights.assigning import backbone_layers


def freeze(model, what: str) -> tuple[str, ...]:
    """Freezes layers of a model; call it before the optimizer is built.

    Args:
        model: a `DeepLab`.
        what: "none"; "backbone", all but the head; or a regular expression that the whole name of a layer must match,
            such as "conv1|bn_conv1|(res|bn)2.*". Names are Caffe's: `[layer.name for layer in model.network.layers]`.

    Returns:
        the names of the layers with weights that are frozen now and were asked for.

    Raises:
        UserError: the expression is none, or no layer has such a name, or nothing is left to train.
    """
    layers = {layer.name: layer for layer in model.network.layers if layer.weights}
    if what == "none":
        return ()
    if what == "backbone":
        names = backbone_layers(model)
    else:
        try:
            pattern = re.compile(what)
        except re.error as error:
            raise UserError(f"--freeze={what} is not a regular expression: {error}") from None
        names = [name for name in layers if pattern.fullmatch(name)]
    if not names:
        raise UserError(
            f"--freeze={what} matches no layer; expected none, backbone, or a regular expression of whole names: "
            f"{', '.join(list(layers)[:4])} ... {list(layers)[-1]}"
        )
    if not any(layer.trainable and layer.trainable_weights for name, layer in layers.items() if name not in names):
        raise UserError(f"--freeze={what} freezes all {len(layers)} layers: nothing is left to train")
    for name in names:
        layers[name].trainable = False
    return tuple(names)
