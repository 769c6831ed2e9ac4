"""Times training steps of the four networks of Table 1, in turn, and prints images per second beside the paper's.

python benchmarks/table1_speed.py                 one crop of 321
python benchmarks/table1_speed.py --batch=20      the paper's batch, on a GPU

The paper's column Speed is of its own GPU, so only the ratios compare: LargeFOV is 3.36 times as fast as the direct
adaptation of VGG-16 (Sec. 4.1.1).
"""

import time

import numpy as np
from absl import app, flags

_BATCH = flags.DEFINE_integer("batch", 1, "Images in the batch.", lower_bound=1)
_CROP = flags.DEFINE_integer("crop", 321, "Height and width of the crop, pixels.", lower_bound=9)
_STEPS = flags.DEFINE_integer("steps", 3, "Timed steps of each network.", lower_bound=1)

# Head: the paper's images per second.
PUBLISHED = {"fc_7x7_r4": 1.44, "fc_4x4_r4": 2.90, "fc_4x4_r8": 2.90, "large_fov": 4.84}
CLASSES = 21


def training_step(head: str):
    """One update of VGG-16 with a head, as a function of a batch of images and labels."""
    import tensorflow as tf

    from deeplab_tf import DeepLab, training

    model = DeepLab("vgg16", head, num_classes=CLASSES, scales=(1.0,))
    optimizer = training.CaffeSGD(1e-9, multipliers=training.caffe_multipliers(model))
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(images, labels):
        labels = training.labels_on_grid(labels, model.output_stride)
        weights = training.position_weights(labels)
        with tf.GradientTape() as tape:
            loss = training.summed_cross_entropy(model(images, training=True), labels, weights)
            loss /= tf.reduce_sum(weights)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    return step


def main(_) -> None:
    """Prints images per second, ours and the paper's, and each as a multiple of the first row's."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (_BATCH.value, _CROP.value, _CROP.value, 3)).astype(np.uint8)
    labels = rng.choice([*range(CLASSES), 255], (_BATCH.value, _CROP.value, _CROP.value)).astype(np.uint8)
    steps = {head: training_step(head) for head in PUBLISHED}
    seconds = {head: [] for head in steps}
    for repeat in range(_STEPS.value + 1):
        for head, step in steps.items():
            started = time.perf_counter()
            step(images, labels).numpy()
            if repeat:  # the first step traces and allocates
                seconds[head].append(time.perf_counter() - started)
    speeds = {head: _BATCH.value / float(np.median(values)) for head, values in seconds.items()}
    print(f"VGG-16, batch {_BATCH.value}, crop {_CROP.value}: images per second in training, and times the first row")
    print(f"{'head':<12}{'here':>8}{'':>8}{'paper':>8}")
    for head, published in PUBLISHED.items():
        ratios = speeds[head] / speeds["fc_7x7_r4"], published / PUBLISHED["fc_7x7_r4"]
        print(f"{head:<12}{speeds[head]:8.3f}{ratios[0]:7.2f}x{published:8.2f}{ratios[1]:7.2f}x")


if __name__ == "__main__":
    app.run(main)
