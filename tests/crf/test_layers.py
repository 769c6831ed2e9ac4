"""The CRF layer: its start, its gradients, and its life in Keras models and SavedModels."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf.crf import DenseCRF
from deeplab_tf.crf.layers import CRFLayer
from deeplab_tf.errors import UserError

PARAMETERS = {"bilateral_weight": 5.0, "bilateral_spatial_std": 20.0, "bilateral_color_std": 15.0, "spatial_std": 2.0}


@pytest.fixture
def batch(small):
    """Images uint8 [2, 20, 24, 3] and scores float32 [2, 20, 24, 3], some of probabilities below the floor."""
    image, probabilities = small
    scores = np.log(probabilities)
    scores[:3, :3, 2] = -20
    return np.stack([image, image[::-1]]), np.stack([scores, 2 * scores[:, ::-1]])


def test_starts_as_the_dense_crf(batch):
    images, scores = batch
    layer = CRFLayer(**PARAMETERS)
    found = keras.ops.softmax(layer(images, scores + 7))
    for image, score, marginals in zip(images, scores, found, strict=True):
        probabilities = np.exp(score) / np.exp(score).sum(-1, keepdims=True)
        expected = DenseCRF(**PARAMETERS, class_threshold=0)(image, probabilities)
        # Two backends' sums in another order, scores up to 20, ten iterations; the 7 that is added costs 5e-7 more.
        np.testing.assert_allclose(marginals, expected, atol=1e-4)
    assert [weight.name for weight in layer.trainable_weights] == [
        "bilateral_weight",
        "spatial_weight",
        "compatibility",
    ]


def test_compatibility_is_the_cost_of_a_pair(small, exact):
    """One iteration with an arbitrary matrix, against the sum over all pairs of pixels."""
    from deeplab_tf.crf.features import bilateral_features, spatial_features

    image, probabilities = small
    layer = CRFLayer(**PARAMETERS, iterations=1)
    layer(image[None], np.log(probabilities)[None])
    costs = np.array([[0, 1, 0.5], [2, -0.3, 0], [0.1, 0, 0]], np.float32)
    layer.compatibility.assign(costs)
    found = layer(image[None], np.log(probabilities)[None])
    flat = probabilities.reshape(-1, 3)
    messages = (
        5 * exact(bilateral_features(image, 20, 15)) @ flat + 3 * exact(spatial_features(image.shape[:2], 2)) @ flat
    )
    expected = np.log(flat) - np.einsum("il,kl->ik", messages, costs)
    error = np.abs(np.reshape(found, (-1, 3)) - expected).mean()
    print(f"mean error of the scores {error:.3f}, mean size {np.abs(expected).mean():.2f}")
    # The lattice's 2% (test_exact.py).
    assert error < 0.02 * np.abs(expected).mean()


@pytest.mark.parametrize("of", ["scores", "bilateral_weight", "spatial_weight", "compatibility"])
def test_gradients_are_numerically_right(small, of):
    image, probabilities = small
    image, scores = image[None, :9, 6:16], np.log(probabilities[None, :9, 6:16]).astype(np.float64)
    layer = CRFLayer(**PARAMETERS, iterations=3, dtype="float64")
    layer(image, scores)
    generator = np.random.default_rng(0)
    layer.compatibility.assign(layer.compatibility + generator.normal(0, 0.2, (3, 3)))
    readout = generator.normal(size=scores.shape)
    start = scores if of == "scores" else np.array(getattr(layer, of))

    def loss(value):
        if of == "scores":
            return tf.reduce_sum(readout * tf.nn.softmax(layer(image, value)))
        getattr(layer, of).assign(value)
        return tf.reduce_sum(readout * tf.nn.softmax(layer(image, tf.constant(scores))))

    with tf.GradientTape() as tape:
        source = tf.constant(start) if of == "scores" else getattr(layer, of).value
        tape.watch(source)
        value = loss(source) if of == "scores" else tf.reduce_sum(readout * tf.nn.softmax(layer(image, scores)))
    gradient = tape.gradient(value, source)
    for _ in range(3):
        direction = generator.normal(size=start.shape)
        numerical = (loss(start + 1e-5 * direction) - loss(start - 1e-5 * direction)) / 2e-5
        np.testing.assert_allclose(np.sum(gradient * direction), numerical, rtol=1e-6)


def test_a_sure_mistake_still_learns(batch):
    """Below the floor of the probabilities the gradient is not cut off."""
    image, scores = batch[0][:1], np.zeros((1, 20, 24, 3), np.float32)
    scores[..., 0] = 30
    source = tf.constant(scores)
    with tf.GradientTape() as tape:
        tape.watch(source)
        loss = -tf.reduce_mean(tf.nn.log_softmax(CRFLayer(iterations=2)(image, source))[..., 1])
    assert np.all(tape.gradient(loss, source)[..., 1] < 0)


@pytest.mark.slow
def test_learns_inside_a_model(small, tmp_path):
    """A network with the layer at its end is trained, saved and read again, for images of any size."""
    image, probabilities = small
    keras.utils.set_random_seed(0)
    inputs = keras.Input([None, None, 3])
    scores = keras.layers.Conv2D(3, 1)(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, CRFLayer(**PARAMETERS, iterations=2, name="crf")(inputs, scores))
    model.compile(keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [np.array(weight) for weight in model.get_layer("crf").weights]
    labels = probabilities.argmax(-1)
    history = model.fit(image[None].astype(np.float32), labels[None], epochs=4, verbose=0).history["loss"]
    assert history[-1] < history[0]
    for weight, old in zip(model.get_layer("crf").weights, before, strict=True):
        assert np.abs(weight - old).max() > 0
    expected = model(image[None, :, :13])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    # Scores of up to 20 have steps of 2e-6; another graph may add up in another order in each iteration.
    np.testing.assert_allclose(loaded(image[None, :, :13]), expected, atol=1e-4)
    assert loaded.get_layer("crf").get_config() == model.get_layer("crf").get_config()
    model.export(tmp_path / "exported", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(served.serve(tf.constant(image[None, :, :13], tf.float32)), expected, atol=1e-4)


def test_mixed_precision_stays_exact(batch):
    images, scores = batch
    found = CRFLayer(**PARAMETERS, dtype="mixed_bfloat16")(images, scores)
    assert found.dtype == tf.float32
    # bfloat16 anywhere would cost 2^-9 of scores of up to 20, forty times the bound.
    np.testing.assert_allclose(found, CRFLayer(**PARAMETERS)(images, scores), atol=1e-3)


def test_complains(batch):
    images, scores = batch
    with pytest.raises(UserError, match="interpolate the scores first"):
        CRFLayer()(images, scores[:, ::2, ::2])
    with pytest.raises(UserError, match="expected images"):
        CRFLayer()(images[0], scores[0])
    with pytest.raises(UserError, match="spatial_std is 0"):
        CRFLayer(spatial_std=0)
