"""Times two implementations of atrous convolution (Sec. 3.1) against each other, forward and backward.

    python benchmarks/atrous.py --repeats=7

The layers are those of the networks at a crop of 321 (maps of 41x41). A third column is Keras' own layer with a
`dilation_rate`. All run in turn, and the best time of each counts; the ratios say how much faster "dilation" is.
"""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
from absl import app, flags

from deeplab_tf.models.atrous import AtrousConv2D

_REPEATS = flags.DEFINE_integer("repeats", 7, "Timed runs of each implementation.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 1, "Images in a batch.", lower_bound=1)
_SIZE = flags.DEFINE_integer("size", 41, "Side of the feature map.", lower_bound=1)

# Layer, channels in, channels out, side of the kernel, rates.
_LAYERS = (
    ("VGG-16 conv5", 512, 512, 3, (2,)),
    ("VGG-16 fc6", 512, 1024, 3, (2, 6, 12, 18, 24)),
    ("ResNet-101 res4", 256, 256, 3, (2,)),
    ("ResNet-101 res5", 512, 512, 3, (4,)),
    ("ResNet-101 ASPP", 2048, 21, 3, (2, 6, 12, 18, 24)),
)


def _steps(channels: int, filters: int, side: int, rate: int) -> dict:
    """One compiled forward and backward pass for each implementation, on the same numbers."""
    x = tf.random.normal((_BATCH.value, _SIZE.value, _SIZE.value, channels), seed=0)

    def step(layer: keras.layers.Layer):
        @tf.function
        def forward_backward():
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(tf.square(layer(x)))
            # Sums need every gradient and copy none of them.
            return [tf.reduce_sum(gradient) for gradient in tape.gradient(loss, [x, *layer.trainable_weights])]

        return forward_backward

    steps = {
        name: step(AtrousConv2D(filters, side, rate=rate, implementation=name)) for name in ("dilation", "deinterlace")
    }
    return steps | {"keras": step(keras.layers.Conv2D(filters, side, dilation_rate=rate, padding="same"))}


def _best_times(steps: dict) -> dict:
    """Best seconds of each step; the steps take turns, so that a busy moment hits all of them."""
    times = {name: [] for name in steps}
    for repeat in range(_REPEATS.value + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            _ = [value.numpy() for value in step()]
            if repeat:  # the first run compiles
                times[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in times.items()}


def main(_) -> None:
    """Prints one line per layer and rate."""
    print(f"batch {_BATCH.value}, map {_SIZE.value}x{_SIZE.value}, forward and backward, best of {_REPEATS.value}")
    print("| layer | rate | dilation, ms | deinterlace, ms | Keras, ms | deinterlace / dilation | Keras / dilation |")
    print("|---|---|---|---|---|---|---|")
    for layer, channels, filters, side, rates in _LAYERS:
        for rate in rates:
            best = _best_times(_steps(channels, filters, side, rate))
            times = [f"{1000 * seconds:.0f}" for seconds in best.values()]
            ratios = [f"{best[other] / best['dilation']:.2f}" for other in ("deinterlace", "keras")]
            print(f"| {' | '.join([layer, str(rate), *times, *ratios])} |", flush=True)


if __name__ == "__main__":
    app.run(main)
