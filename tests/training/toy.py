"""A small training that the tests run here or, for several devices and hosts and for kills, in processes of their own.

As a process: `python -m tests.training.toy DEVICES '[{"save": "a.npz", ...}, ...]'`, one `trained(...)` per dictionary.
"""

import json
import pathlib
import sys

import numpy as np

BATCH = 4
CLASSES = 3


def make_dataset(start_step: int, host: int = 0, hosts: int = 1):
    """Random colour patches; the class is the brightest channel. Later images of a batch have more ignored rows."""
    import tensorflow as tf

    def batch(step):
        coarse = tf.random.stateless_uniform([BATCH, 5, 5, 3], tf.stack([step, 0]))
        image = tf.repeat(tf.repeat(255 * coarse, 13, axis=1), 13, axis=2)
        label = tf.argmax(image, -1, output_type=tf.int32)
        row = tf.range(65)[tf.newaxis, :, tf.newaxis]
        ignored = row < 20 * tf.range(BATCH)[:, tf.newaxis, tf.newaxis]
        share = slice(host * BATCH // hosts, (host + 1) * BATCH // hosts)
        return {
            "image": tf.cast(image, tf.uint8)[share],
            "label": tf.cast(tf.where(ignored, 255, label), tf.uint8)[share],
        }

    return tf.data.Dataset.counter(tf.cast(start_step, tf.int64)).map(batch)


def weights(model) -> np.ndarray:
    return np.concatenate([variable.numpy().ravel() for variable in model.variables])


def trained(
    model_dir,
    *,
    strategy="one_device",
    scales=(1.0,),
    batch_norm="trainable",
    learning_rate=0.01,
    precision="float32",
    loss_scale=2.0**15,
    max_steps=6,
    stop_at=None,
    save=None,
    **options,
):
    """How far the weights moved, and the result, of a training of `max_steps` (or up to `stop_at`)."""
    import keras

    from deeplab_tf import DeepLab
    from deeplab_tf.training import CaffeSGD, caffe_multipliers, learning_rate_schedule, make_strategy
    from deeplab_tf.training.run import train

    keras.utils.set_random_seed(3)
    strategy = make_strategy(strategy)
    with strategy.scope():
        model = DeepLab(
            "resnet_tiny", "aspp_s", num_classes=CLASSES, scales=scales, batch_norm=batch_norm, dtype=precision
        )
        start = weights(model)
        optimizer = CaffeSGD(
            learning_rate_schedule("poly", learning_rate, max_steps),
            multipliers=caffe_multipliers(model, classifier=1.0),
        )
        if precision == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=loss_scale)
    defaults = {"steps_per_loop": 2, "checkpoint_every": 2}
    result = train(
        model,
        optimizer,
        make_dataset,
        model_dir=model_dir,
        strategy=strategy,
        max_steps=stop_at or max_steps,
        batch_size=BATCH,
        **defaults | options,
    )
    moved = weights(model) - start
    if save:
        np.savez(save, moved=moved)
    return moved, result


if __name__ == "__main__":
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = int(sys.argv[1])
    tf.config.set_logical_device_configuration(cpu, devices * [tf.config.LogicalDeviceConfiguration()])
    for arguments in json.loads(sys.argv[2]):
        pathlib.Path(arguments["model_dir"]).mkdir(parents=True, exist_ok=True)
        trained(**arguments)
