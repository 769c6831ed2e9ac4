"""Frozen layers get no gradient step; the others do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf import DeepLab, weights
from deeplab_tf.errors import UserError


def changed_by_a_step(model: DeepLab) -> dict[str, bool]:
    """Trains one step; returns whether each layer with weights changed, statistics of batch norm included."""
    layers = [layer for layer in model.network.layers if layer.weights]
    before = {layer.name: layer.get_weights() for layer in layers}
    images = np.random.default_rng(0).uniform(0, 255, (2, 33, 33, 3)).astype("float32")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(images, training=True) - 1))
    gradients = tape.gradient(loss, model.trainable_variables)
    keras.optimizers.SGD(1e-3).apply(gradients, model.trainable_variables)
    return {
        layer.name: any((a != b).any() for a, b in zip(before[layer.name], layer.get_weights(), strict=True))
        for layer in layers
    }


@pytest.mark.parametrize(
    "what, frozen",
    [
        ("none", lambda name: False),
        ("backbone", lambda name: not name.startswith("fc1")),
        ("conv1|bn_conv1|(res|bn)2.*", lambda name: name in ("conv1", "bn_conv1") or name[:4] in ("res2", "bn2a")),
        ("conv1", lambda name: name == "conv1"),
    ],
)
def test_frozen_layers_stay(what, frozen):
    model = DeepLab("resnet_tiny", "linear", 3, scales=(1.0,))
    names = weights.freeze(model, what)
    changed = changed_by_a_step(model)
    assert changed == {name: not frozen(name) for name in changed}
    assert set(names) == {name for name in changed if frozen(name)}


def test_vgg_backbone_ends_before_fc6():
    model = DeepLab("vgg16", "large_fov", 3)
    names = weights.freeze(model, "backbone")
    assert len(names) == 13 and names[-1] == "conv5_3"
    assert [variable.path.split("/")[0] for variable in model.trainable_variables[::2]] == ["fc6", "fc7", "fc8"]


@pytest.mark.parametrize(
    "what, match",
    [
        ("backbon", "matches no layer; expected none, backbone"),
        ("conv1(", "not a regular expression"),
        (".*", "nothing"),
    ],
)
def test_mistakes_freeze_nothing(what, match):
    model = DeepLab("resnet_tiny", "linear", 3)
    count = len(model.trainable_variables)
    with pytest.raises(UserError, match=match):
        weights.freeze(model, what)
    assert len(model.trainable_variables) == count
