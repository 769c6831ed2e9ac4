"""The Model Garden's checkpoints: equal features to the Garden's own networks, dense and sparse."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf import DeepLab, weights
from deeplab_tf.errors import UserError
from tests.helpers import assert_same_scores, randomise

IMAGES = np.random.default_rng(0).integers(0, 256, (1, 97, 97, 3), dtype=np.uint8)


def network(output_stride: int, epsilon: float, model_id: int = 101):
    """The Garden's ResNet, or its DilatedResNet, with random weights."""
    import tf_keras
    from official.vision.modeling.backbones import resnet, resnet_deeplab

    shape = tf_keras.layers.InputSpec(shape=[None, None, None, 3])
    if output_stride == 32:
        garden = resnet.ResNet(model_id, shape, norm_epsilon=epsilon)
    else:
        garden = resnet_deeplab.DilatedResNet(model_id, output_stride, shape, norm_epsilon=epsilon)
    randomise(garden)
    return garden


def assert_equal_features(model: DeepLab, garden) -> None:
    mean, deviation = np.array([0.485, 0.456, 0.406]) * 255, np.array([0.229, 0.224, 0.225]) * 255
    theirs = garden(((IMAGES - mean) / deviation).astype("float32"))
    theirs = theirs[max(theirs, key=int)].numpy()
    ours = keras.Model(model.network.inputs, model.network.get_layer("res5c_relu").output)(model.preprocess(IMAGES))
    assert_same_scores(ours, theirs)


@pytest.mark.parametrize("output_stride, items", [(32, "backbone"), (8, "model")])
@pytest.mark.slow
def test_features_of_resnet101(output_stride, items, tmp_path):
    garden = network(output_stride, 1e-3)
    tf.train.Checkpoint(**{items: garden}).save(str(tmp_path / "ckpt"))
    model = DeepLab("resnet101", "linear", 3, output_stride, scales=(1.0,), block_style="garden", preprocessing="torch")
    report = weights.load(model, tmp_path)
    assert len(report.taken) == 208 and list(report.initialised) == ["fc1"] and report.preprocessing == "torch"
    assert "epsilon is taken as 0.001, the default of the Garden's classes" in str(report)
    assert_equal_features(model, garden)


@pytest.mark.slow
def test_another_epsilon_in_the_checkpoint_of_a_whole_training(tmp_path, unchanged):
    import tf_keras
    from official.vision.modeling.classification_model import ClassificationModel

    garden = network(32, 1e-5, model_id=50)
    shape = tf_keras.layers.InputSpec(shape=[None, None, None, 3])
    whole = ClassificationModel(backbone=garden, num_classes=10, input_specs=shape)
    optimizer = tf_keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(whole.trainable_variables)
    prefix = tf.train.Checkpoint(model=whole, optimizer=optimizer, **whole.checkpoint_items).save(
        str(tmp_path / "ckpt")
    )

    model = DeepLab("resnet50", "linear", 3, 32, scales=(1.0,), block_style="garden", preprocessing="torch")
    weights.load(model, prefix, batch_norm_epsilon=1e-5)
    assert_equal_features(model, garden)
    variance = model.network.get_layer("bn5c_branch2c").moving_variance.numpy()
    weights.load(model, prefix)
    assert (model.network.get_layer("bn5c_branch2c").moving_variance.numpy() > variance).all()
    (tmp_path / "params.yaml").write_text("task:\n  model:\n    norm_activation:\n      norm_epsilon: 1.0e-05\n")
    weights.load(model, prefix)
    np.testing.assert_array_equal(model.network.get_layer("bn5c_branch2c").moving_variance, variance)

    deeper = DeepLab("resnet101", "linear", 3, block_style="garden", preprocessing="torch")
    check = unchanged(deeper)
    with pytest.raises(UserError, match="build the model with backbone='resnet50'"):
        weights.load(deeper, prefix)
    check()
