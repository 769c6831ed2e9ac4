"""The time that one update of a recipe takes on this machine, measured before any data set is prepared."""

import dataclasses
import time

import numpy as np
import tensorflow as tf

from deeplab_tf.classes import IGNORE_LABEL
from deeplab_tf.training.assembly import build_model, build_optimizer
from deeplab_tf.training.distribution import distributed, make_strategy
from deeplab_tf.training.loop import DeepLabTrainer
from deeplab_tf.training.recipe import Recipe


def seconds_per_update(recipe: Recipe, num_classes: int, updates: int = 1) -> float:
    """Times the updates that training makes, on noise: the same graph, batch, devices, losses and optimizer.

    Reading and augmenting images is not in it; on a machine with idle cores they cost nothing.

    Args:
        recipe: the training; its initial weights are not loaded.
        num_classes: of the data set.
        updates: to time, after one that traces the graph.

    Returns:
        seconds.
    """
    recipe = dataclasses.replace(recipe, initial_weights=None)
    strategy = make_strategy(recipe.strategy, recipe.tpu)
    with strategy.scope():
        model = build_model(recipe, num_classes)
        for weight in model.network.weights:  # Of each block; frozen batch norm over fresh kernels would overflow.
            if weight.path.endswith("branch2c/gamma"):
                weight.assign(0.1 * weight)
        optimizer = build_optimizer(model, dataclasses.replace(recipe, learning_rate=0.0))
        step = tf.Variable(0, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)
    trainer = DeepLabTrainer(
        model,
        optimizer,
        distributed(lambda host, hosts: _noise(recipe, num_classes, hosts), recipe.batch_size, strategy),
        step=step,
        strategy=strategy,
        recipe=recipe,
    )
    trainer.train(tf.constant(1))
    started = time.monotonic()
    trainer.train(tf.constant(updates))
    return (time.monotonic() - started) / updates


def _noise(recipe: Recipe, num_classes: int, hosts: int) -> tf.data.Dataset:
    """One host's part of a batch, again and again."""
    rng = np.random.default_rng(0)
    shape = (recipe.batch_size // hosts, recipe.crop_size, recipe.crop_size)
    labels = rng.choice([*range(num_classes), IGNORE_LABEL], shape).astype(np.uint8)
    images = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    return tf.data.Dataset.from_tensors({"image": images, "label": labels}).repeat()
