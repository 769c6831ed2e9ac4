"""A small training that the tests run here or, for several devices and hosts and for kills, in processes of their own.

As a process: `python -m tests.training.toy DEVICES '[{"model_dir": "a", "save": "a.npz", ...}, ...]'`, one
`trained(...)` per dictionary.
"""

import functools
import json
import os
import pathlib
import signal
import sys
import time
from unittest import mock

import numpy as np

from deeplab_tf.models.architectures import VGG_STAGES

BATCH = 4
CLASSES = 3
IMAGES = 16
SIDE = 65


def prepared(folder: pathlib.Path) -> pathlib.Path:
    """A prepared data set: colour patches whose class is the brightest channel; some images have ignored rows."""
    import tensorflow as tf

    directory = folder / "toy" / "1.0.0"
    if directory.is_dir():
        return directory
    directory.mkdir(parents=True)
    splits = {"train": IMAGES, "val": 3}
    shards = [{"name": name, "shardLengths": [str(size)]} for name, size in splits.items()]
    (directory / "dataset_info.json").write_text(json.dumps({"splits": shards}))
    metadata = {
        "name": "toy",
        "class_names": ["red", "green", "blue"],
        "palette": (255 * np.eye(3, dtype=int)).tolist(),
    }
    (directory / "metadata.json").write_text(json.dumps(metadata | {"ignore_label": 255, "unions": {}}))
    rng = np.random.default_rng(0)
    for name, size in splits.items():
        with tf.io.TFRecordWriter(str(directory / f"toy-{name}.tfrecord-00000-of-00001")) as writer:
            for i in range(size):
                image = np.kron(rng.integers(0, 256, (5, 5, 3)), np.ones((13, 13, 1))).astype(np.uint8)
                label = image.argmax(-1).astype(np.uint8)
                label[: 20 * (i % 4)] = 255
                texts = {
                    "image/encoded": tf.io.encode_png(image).numpy(),
                    "image/filename": f"{i}.png".encode(),
                    "image/segmentation/class/encoded": tf.io.encode_png(label[..., None]).numpy(),
                }
                feature = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v])) for key, v in texts.items()}
                for key in ("image/height", "image/width"):
                    feature[key] = tf.train.Feature(int64_list=tf.train.Int64List(value=[SIDE]))
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return directory


def weights(model) -> np.ndarray:
    """All trained numbers; not the states of random generators."""
    return np.concatenate([variable.numpy().ravel() for variable in model.weights if variable.dtype == "float32"])


def saved(model_dir) -> dict[str, np.ndarray]:
    """Everything in the last checkpoint of a run, by name."""
    import tensorflow as tf

    from deeplab_tf import run_folder

    reader = tf.train.load_checkpoint(run_folder.latest_checkpoint(model_dir))
    names = set(reader.get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    return {name: reader.get_tensor(name) for name in names}


def _gradients_of_brightness(trainer, images, labels, weights, positions, totals):
    """In the place of `DeepLabTrainer._losses_and_gradients`: what surrounds the network goes the same ways."""
    import tensorflow as tf

    brightness = tf.reduce_mean(images) / 255
    return [brightness] * len(labels), [tf.fill(each.shape, brightness) for each in trainer.model.trainable_variables]


def trained(
    model_dir,
    *,
    stop_at=None,
    save=None,
    loss_scale=2.0**15,
    validate=lambda step: {"mean_iou": 0.5},
    raw_validate=None,
    on_loop=None,
    pause=0,
    network=True,
    devices=None,
    **settings,
):
    """How far the weights moved, and the result, of a training; None as the result where it was stopped.

    Args:
        model_dir: folder of the run; the data set lies beside it.
        stop_at: ask this process to stop, by SIGTERM, after the first loop that ends at this step or later.
        save: file for how far the weights moved, or for the weights where it was stopped.
        loss_scale: initial scale of the loss of float16.
        validate: (step) -> scalars, in the place of the validation; None: the real one.
        raw_validate: likewise, (step, stop) -> scalars.
        on_loop: called after every loop with the step and the scalars.
        pause: seconds to wait after every loop, in which it can be stopped from outside.
        network: whether updates ask the network; otherwise they go by the images alone, and it is not traced.
        devices: the strategy; None: the one that the recipe names.
        **settings: of the recipe, in the place of the toy's own.
    """
    import keras

    from deeplab_tf.stopping import Stopped
    from deeplab_tf.training import Recipe, assembly, loop, train

    recipe = Recipe(
        **{
            "backbone": "resnet_tiny",
            "head": "linear",
            "scales": (1.0,),
            "batch_norm": "trainable",
            "crop_size": SIDE,
            "batch_size": BATCH,
            "random_scale": (1.0,),
            "mirror": False,
            "max_steps": 6,
            "learning_rate": 0.01,
            "classifier_multiplier": 1.0,
            "seed": 3,
            "strategy": "one_device",
            "steps_per_loop": 2,
            "checkpoint_every": 2,
            "eval_every": 0,
        }
        | settings
    )
    models, starts = [], []

    def build(*args):
        models.append(make_model(*args))
        starts.append(weights(models[0]))
        return models[0]

    def look(step, scalars):
        if on_loop:
            on_loop(step, scalars)
        time.sleep(pause)
        if stop_at and step >= stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    make_model = assembly._model
    scaled = functools.partial(keras.optimizers.LossScaleOptimizer, initial_scale=loss_scale)
    in_its_place = raw_validate or (validate and (lambda step, stop: validate(step)))
    gradients = loop.DeepLabTrainer._losses_and_gradients if network else _gradients_of_brightness
    make_validate = (lambda *args, **options: in_its_place) if in_its_place else assembly.make_validate
    with (
        mock.patch.object(assembly, "_model", build),
        mock.patch("keras.optimizers.LossScaleOptimizer", scaled),
        mock.patch.object(assembly, "make_validate", make_validate),
        mock.patch.object(loop.DeepLabTrainer, "_losses_and_gradients", gradients),
    ):
        directory = prepared(pathlib.Path(model_dir).parent / "data")
        try:
            result = train(model_dir, directory, recipe, on_loop=look, strategy=devices)
        except Stopped:
            if not (stop_at or raw_validate):
                raise
            result = None
    moved = weights(models[0]) - starts[0]
    if save:
        np.savez(save, moved=moved)
    return moved, result


if __name__ == "__main__":
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    count = int(sys.argv[1])
    tf.config.set_logical_device_configuration(cpu, count * [tf.config.LogicalDeviceConfiguration()])

    from deeplab_tf.training import make_strategy

    # One strategy of a kind for all: TensorFlow confuses the collective operations of two in one process.
    strategy = functools.cache(lambda kind: make_strategy(kind, "local"))
    narrow = tuple((8,) * len(filters) for filters in VGG_STAGES)
    with mock.patch("deeplab_tf.models.vgg.VGG_STAGES", narrow):
        for arguments in json.loads(sys.argv[2]):
            trained(**arguments, devices=strategy(arguments.get("strategy", "one_device")))
