"""The network as it is trained on a CPU against the model's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf import DeepLab
from deeplab_tf.training import network as training_networks
from deeplab_tf.training import winograd
from tests.helpers import randomise


def _scores_and_gradients(model, images, network):
    """The score maps in training mode, and the gradient of their squares by every trainable variable."""

    @tf.function
    def compute():
        with tf.GradientTape() as tape:
            maps = model.score_maps(images, training=True, network=network and network(model))
            total = tf.add_n([tf.nn.l2_loss(score_map / 100) for score_map in maps.values()])
        return list(maps.values()), tape.gradient(total, model.trainable_variables)

    return compute()


@pytest.mark.parametrize(
    ("backbone", "head", "options", "shape", "by_winograd"),
    [
        ("resnet_tiny", "aspp_s", {"batch_norm": "frozen", "scales": (0.5, 1.0)}, (1, 65, 49), 0),
        ("resnet_tiny", "aspp_l", {"batch_norm": "trainable"}, (1, 65, 49), 0),
        ("resnet_tiny", "large_fov", {"batch_norm": "frozen", "atrous": "deinterlace"}, (1, 65, 49), 0),
        # Blocks of conv4 and conv5 at scale 1, and of conv4 at 1.25.
        ("resnet50", "aspp_l", {"batch_norm": "frozen", "scales": (1.0, 1.25)}, (2, 161, 161), 9 + 6),
        # conv1_2, conv2_2, conv3_2, conv3_3, conv4_2 and conv4_3.
        ("vgg16", "large_fov", {"dropout": 0.0}, (1, 97, 97), 6),
    ],
)
def test_scores_and_gradients_are_those_of_the_model(backbone, head, options, shape, by_winograd, monkeypatch):
    calls = []
    monkeypatch.setattr(
        winograd, "convolution", lambda *args, convolution=winograd.convolution: calls.append(0) or convolution(*args)
    )
    keras.utils.set_random_seed(0)
    model = DeepLab(backbone, head, num_classes=5, **{"scales": (1.0,)} | options)
    randomise(model, seed=0)
    images = tf.constant(np.random.default_rng(0).uniform(0, 255, (*shape, 3)).astype(np.float32))

    expected = _scores_and_gradients(model, images, None)
    found = _scores_and_gradients(model, images, training_networks.training_network)
    assert len(calls) == by_winograd
    # Sums in another order turn a few ReLUs around: from the gradients in float64, those of resnet50 differ in the norm
    # by up to 2e-4, and by 5e-4 with the model's own network.
    for tolerance, ours, theirs in zip((1e-5, 2e-3), found, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b)


def test_moving_statistics_are_updated():
    keras.utils.set_random_seed(0)
    model = DeepLab("resnet_tiny", "linear", num_classes=5, scales=(1.0,), batch_norm="trainable")
    mean = model.network.get_layer("bn_conv1").moving_mean
    images = tf.random.stateless_uniform((1, 33, 33, 3), (0, 0), 0, 255)
    start = mean.numpy()
    model.score_maps(images, training=True)
    expected = mean.numpy()
    assert np.abs(expected - start).max() > 0
    mean.assign(start)
    model.score_maps(images, training=True, network=training_networks.training_network(model))
    np.testing.assert_allclose(mean.numpy(), expected, rtol=1e-5)


def test_mixed_precision_uses_the_models_own_network():
    model = DeepLab("resnet_tiny", "linear", num_classes=5, scales=(1.0,), dtype="mixed_bfloat16")
    assert training_networks.training_network(model) is None
