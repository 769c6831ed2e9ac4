"""The loop: it learns, repeats bit for bit, accumulates micro-batches, goes on from a checkpoint."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf import DeepLab
from deeplab_tf.errors import UserError
from deeplab_tf.training import CaffeSGD, caffe_multipliers, learning_rate_schedule, make_strategy
from deeplab_tf.training.run import train

BATCH = 4
CLASSES = 3


def make_dataset(start_step: int, host: int = 0, hosts: int = 1) -> tf.data.Dataset:
    """Random colour patches; the class is the brightest channel, unlabelled where the place in the batch says so."""

    def batch(step):
        coarse = tf.random.stateless_uniform([BATCH, 5, 5, 3], tf.stack([step, 0]))
        image = tf.repeat(tf.repeat(255 * coarse, 13, axis=1), 13, axis=2)
        label = tf.argmax(image, -1, output_type=tf.int32)
        row = tf.range(65)[tf.newaxis, :, tf.newaxis]
        unlabelled = row < 20 * tf.range(BATCH)[:, tf.newaxis, tf.newaxis]
        return {"image": tf.cast(image, tf.uint8), "label": tf.cast(tf.where(unlabelled, 255, label), tf.uint8)}

    return tf.data.Dataset.counter(tf.cast(start_step, tf.int64)).map(batch)


def trained(model_dir, *, batch_norm="trainable", learning_rate=0.01, max_steps=6, stop_at=None, **options):
    keras.utils.set_random_seed(3)
    strategy = make_strategy("one_device")
    with strategy.scope():
        model = DeepLab("resnet_tiny", "aspp_s", num_classes=CLASSES, scales=(0.5, 1.0), batch_norm=batch_norm)
        start = weights(model)
        optimizer = CaffeSGD(
            learning_rate_schedule("poly", learning_rate, max_steps),
            multipliers=caffe_multipliers(model, classifier=1.0),
        )
    result = train(
        model,
        optimizer,
        make_dataset,
        model_dir=model_dir,
        strategy=strategy,
        max_steps=stop_at or max_steps,
        batch_size=BATCH,
        steps_per_loop=2,
        checkpoint_every=2,
        **options,
    )
    return weights(model) - start, result


def weights(model) -> np.ndarray:
    return np.concatenate([variable.numpy().ravel() for variable in model.variables])


def test_runs_repeat_bit_for_bit_also_when_stopped_and_continued(tmp_path):
    reference, _ = trained(tmp_path / "reference")
    assert np.abs(reference).max() > 0.01
    trained(tmp_path / "stopped", stop_at=4)
    continued, result = trained(tmp_path / "stopped")
    assert result.steps == 6
    np.testing.assert_array_equal(continued, reference)


def test_micro_batches_equal_the_full_batch(tmp_path):
    """Although the unlabelled pixels are spread unevenly over them."""
    frozen = {"batch_norm": "frozen", "learning_rate": 1e-5}
    full, _ = trained(tmp_path / "full", **frozen)
    accumulated, _ = trained(tmp_path / "micro", accumulation_steps=2, **frozen)
    assert np.abs(full).max() > 1e-5
    np.testing.assert_allclose(accumulated, full, atol=1e-3 * np.abs(full).max())


def test_it_learns_validates_and_writes_scalars(tmp_path):
    validated = []

    def validate(step):
        validated.append(step)
        return {"mean_iou": 0.25}

    _, result = trained(tmp_path, max_steps=60, eval_every=30, validate=validate)
    assert validated == [30, 60]
    assert result.validation == {"mean_iou": 0.25}
    assert read_scalars(tmp_path / "validation")["mean_iou"] == [0.25, 0.25]

    scalars = read_scalars(tmp_path / "train")
    losses = [np.array(scalars[f"loss/{name}"]) for name in ("scale_0.5", "scale_1", "fused")]
    np.testing.assert_allclose(scalars["loss/total"], sum(losses), rtol=1e-5)
    assert losses[-1][-1] < 0.6 * losses[-1][0]
    np.testing.assert_allclose(scalars["learning_rate"][-1], 0.0, atol=1e-8)
    assert min(scalars["images_per_second"]) > 0


def test_an_infinite_loss_stops_the_run(tmp_path):
    with pytest.raises(UserError, match="loss became (nan|inf).*by step.*--learning_rate"):
        trained(tmp_path, learning_rate=1e9, batch_norm="frozen")


def read_scalars(folder) -> dict[str, list[float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag: [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }
