"""Times Winograd's algorithm against TensorFlow's 3x3 convolution, forward and backward, in turn, on a CPU.

python benchmarks/winograd.py

The shapes are those of ResNet-101 and VGG-16 on crops of 321 pixels, and of the smaller scales. "saving" is how many
times fewer multiplications there are. The errors, TensorFlow's and ours, are the largest differences of the result and
its two gradients from a float64 convolution's, over the largest value.
"""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from absl import app, flags

from deeplab_tf.models import winograd
from deeplab_tf.models.atrous import deinterlaced_convolution

_REPEATS = flags.DEFINE_integer("repeats", 15, "Timed calls of each side.", lower_bound=1)

# Of the map: side, channels; atrous rate.
SHAPES = {
    "VGG conv1_2": (321, 64, 1),
    "VGG conv2_2": (161, 128, 1),
    "VGG conv3_2": (81, 256, 1),
    "VGG conv4_2": (41, 512, 1),
    "VGG conv5": (41, 512, 2),
    "res2": (81, 64, 1),
    "res3": (41, 128, 1),
    "res4": (41, 256, 2),
    "res5": (41, 512, 4),
    "res3, scale 0.5": (21, 128, 1),
    "res4, scale 0.75": (31, 256, 2),
    "res4, scale 0.5": (21, 256, 2),
    "res5, scale 0.75": (31, 512, 4),
    "res5, scale 0.5": (21, 512, 4),
    "large_fov": (41, 512, 12),
}


def with_gradients(convolution):
    """A compiled function of a map, a kernel and the gradient of the result to the result and its gradients."""

    @tf.function(autograph=False)
    def compute(x, w, dy):
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            y = convolution(x, w)
        return y, *tape.gradient(y, [x, w], dy)

    return compute


def error(found, exact) -> float:
    """The largest difference between tensors, over the largest value of each."""
    return max(float(np.abs(a.numpy() - b).max() / np.abs(b).max()) for a, b in zip(found, exact, strict=True))


def main(_) -> None:
    """Prints a line for each shape."""
    rng = np.random.default_rng(0)
    print(f"{'':18} side channels rate  saving    TensorFlow    Winograd  ratio   errors")
    for name, (side, channels, rate) in SHAPES.items():
        sides = {
            "tensorflow": lambda x, w, rate=rate: tf.nn.conv2d(x, w, 1, "SAME", dilations=rate),
            "winograd": lambda x, w, rate=rate: winograd.convolution(x, w, rate),
        }
        sides = {side: with_gradients(convolution) for side, convolution in sides.items()}
        x, dy = (tf.constant(rng.normal(size=(1, side, side, channels)).astype(np.float32)) for _ in range(2))
        w = tf.constant(rng.normal(size=(3, 3, channels, channels)).astype(np.float32))
        exact = with_gradients(lambda x, w, rate=rate: deinterlaced_convolution(x, w, rate))(
            *(tf.cast(tensor, tf.float64) for tensor in (x, w, dy))
        )
        errors = {side: error(compute(x, w, dy), exact) for side, compute in sides.items()}
        seconds = {side: [] for side in sides}
        for _ in range(_REPEATS.value):
            for side_name, compute in sides.items():
                started = time.perf_counter()
                compute(x, w, dy)
                seconds[side_name].append(time.perf_counter() - started)
        theirs, ours = (1e3 * statistics.median(values) for values in seconds.values())
        saving = winograd.saving((1, side, side, channels), rate)
        print(
            f"{name:18}{side:5}{channels:9}{rate:5}{saving:8.2f}{theirs:11.1f} ms{ours:9.1f} ms{theirs / ours:7.2f}"
            f"   {errors['tensorflow']:.0e} {errors['winograd']:.0e}",
            flush=True,
        )


if __name__ == "__main__":
    app.run(main)
