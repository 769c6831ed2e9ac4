"""Times a training step of DeepLab against the same network in PyTorch, in one run, in turn, on the same batch.

python benchmarks/train_step.py                  ResNet-101 ASPP-L, crop 321, one scale
python benchmarks/train_step.py --multi_scale    inputs at 0.5, 0.75 and 1
python benchmarks/train_step.py --backbone=vgg16 --head=large_fov                 ours alone, with the ways of --atrous

Both sides: forward, the losses of all score maps, backward, one SGD update with momentum and weight decay, batch norm
frozen. PyTorch runs in its default layout and in channels_last, and the faster one counts. A large matrix product, in
turn with them, tells what the machine can do at most; benchmarks/step_cost.py counts the arithmetic of a step.
"""

import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from absl import app, flags

_MULTI_SCALE = flags.DEFINE_bool("multi_scale", False, "Inputs at 0.5, 0.75 and 1 instead of 1.")
_BACKBONE = flags.DEFINE_string("backbone", "resnet101", "Of our network; PyTorch's is a ResNet-101.")
_HEAD = flags.DEFINE_string("head", "aspp_l", "Of our network; PyTorch's is ASPP-L.")
_ATROUS = flags.DEFINE_list("atrous", ["dilation", "winograd"], "Implementations of atrous convolution on our side.")
_BATCH = flags.DEFINE_integer("batch", 1, "Images in the batch.", lower_bound=1)
_CROP = flags.DEFINE_integer("crop", 321, "Height and width of the crop, pixels.", lower_bound=9)
_STEPS = flags.DEFINE_integer("steps", 5, "Timed steps of each side.", lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", os.cpu_count(), "Threads of each side.", lower_bound=1)

CLASSES = 21
RATES = (6, 12, 18, 24)
# Of each block's last batch norm, on both sides: random weights with frozen batch norm would overflow otherwise.
RESIDUAL = 0.1


def ours(images: np.ndarray, labels: np.ndarray, scales: tuple[float, ...], atrous: str):
    """One step of `DeepLabTrainer` as a function without arguments."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(_THREADS.value)
    from deeplab_tf import DeepLab, training
    from deeplab_tf.training.loop import DeepLabTrainer

    model = DeepLab(_BACKBONE.value, _HEAD.value, num_classes=CLASSES, scales=scales, atrous=atrous)
    for weight in model.network.weights:
        if "branch2c" in weight.path and weight.path.endswith("gamma"):
            weight.assign(weight * RESIDUAL)
    optimizer = training.CaffeSGD(1e-9, multipliers=training.caffe_multipliers(model))
    optimizer.build(model.trainable_variables)
    dataset = tf.data.Dataset.from_tensors({"image": images, "label": labels}).repeat()
    trainer = DeepLabTrainer(
        model,
        optimizer,
        dataset,
        step=tf.Variable(0, dtype=tf.int64),
        strategy=tf.distribute.get_strategy(),
        recipe=training.Recipe(batch_size=len(images)),
    )
    return lambda: trainer.train(tf.constant(1))


def pytorchs(images: np.ndarray, labels: np.ndarray, scales: tuple[float, ...], channels_last: bool):
    """The same step in PyTorch as a function without arguments."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    torch.set_num_threads(_THREADS.value)
    torch.set_flush_denormal(True)  # as TensorFlow does

    class ConvBN(nn.Sequential):
        def __init__(self, inputs, outputs, size, stride=1, rate=1):
            padding = rate * (size - 1) // 2
            super().__init__(
                nn.Conv2d(inputs, outputs, size, stride, padding, rate, bias=False), nn.BatchNorm2d(outputs).eval()
            )

    class Bottleneck(nn.Module):
        def __init__(self, inputs, width, stride, rate, project):
            super().__init__()
            self.reduce = ConvBN(inputs, width, 1, stride)
            self.conv = ConvBN(width, width, 3, 1, rate)
            self.increase = ConvBN(width, 4 * width, 1)
            self.shortcut = ConvBN(inputs, 4 * width, 1, stride) if project else nn.Identity()

        def forward(self, x):
            y = self.increase(F.relu(self.conv(F.relu(self.reduce(x)))))
            return F.relu(y + self.shortcut(x))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            layers, channels = [ConvBN(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], 64
            for blocks, width, stride, rate in ((3, 64, 1, 1), (4, 128, 2, 1), (23, 256, 1, 2), (3, 512, 1, 4)):
                for i in range(blocks):
                    layers.append(Bottleneck(channels, width, stride if i == 0 else 1, rate, i == 0))
                    channels = 4 * width
            self.features = nn.Sequential(*layers)
            self.aspp = nn.ModuleList(nn.Conv2d(2048, CLASSES, 3, padding=rate, dilation=rate) for rate in RATES)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    for parameter in module.parameters():
                        parameter.requires_grad_(False)
                if isinstance(module, Bottleneck):
                    nn.init.constant_(module.increase[1].weight, RESIDUAL)

        def forward(self, x):
            features = self.features(x)
            return sum(branch(features) for branch in self.aspp)

    network = Network()
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
    if channels_last:
        network, x = network.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    targets = torch.from_numpy(labels.astype(np.int64))
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=1e-9, momentum=0.9, weight_decay=5e-4)

    def loss_of(scores):
        shrunk = F.interpolate(targets[:, None].float(), scores.shape[2:], mode="nearest")[:, 0].long()
        return F.cross_entropy(scores, shrunk, ignore_index=255)

    def step():
        optimizer.zero_grad(set_to_none=True)
        maps = []
        for scale in scales:
            size = [round(scale * (side - 1)) + 1 for side in x.shape[2:]]
            scaled = x if scale == 1 else F.interpolate(x, size, mode="bilinear", align_corners=True)
            maps.append(network(scaled))
        if len(maps) > 1:
            size = maps[-1].shape[2:]
            resized = [F.interpolate(scores, size, mode="bilinear", align_corners=True) for scores in maps]
            maps.append(torch.stack(resized).amax(0))
        sum(loss_of(scores) for scores in maps).backward()
        optimizer.step()

    return step


def matrix_product():
    """A product of two 2048x2048 matrices in float32, 17.2 GFLOP, as a function without arguments."""
    import torch

    a, b = torch.rand(2, 2048, 2048)
    return lambda: a @ b


def main(_) -> None:
    """Prints seconds per step of each side and their ratio."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (_BATCH.value, _CROP.value, _CROP.value, 3)).astype(np.uint8)
    labels = rng.choice([*range(CLASSES), 255], (_BATCH.value, _CROP.value, _CROP.value)).astype(np.uint8)
    scales = (0.5, 0.75, 1.0) if _MULTI_SCALE.value else (1.0,)
    sides = {f"deeplab_tf, {atrous}": ours(images, labels, scales, atrous) for atrous in _ATROUS.value}
    if (_BACKBONE.value, _HEAD.value) == ("resnet101", "aspp_l"):
        sides["PyTorch"] = pytorchs(images, labels, scales, channels_last=False)
        sides["PyTorch, channels_last"] = pytorchs(images, labels, scales, channels_last=True)
    ceiling = matrix_product()
    rates, seconds = [], {name: [] for name in sides}
    for repeat in range(_STEPS.value + 1):
        for name, step in sides.items():
            started = time.perf_counter()
            step()
            if repeat:  # The first step compiles and allocates.
                seconds[name].append(time.perf_counter() - started)
        started = time.perf_counter()
        ceiling()
        rates.append(2 * 2048**3 / 1e9 / (time.perf_counter() - started))
    settings = f"batch {_BATCH.value}, crop {_CROP.value}, {_THREADS.value} threads"
    print(f"{_BACKBONE.value} {_HEAD.value}, scales {scales}, {settings}")
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    for name, values in seconds.items():
        print(f"{name:<24} median {medians[name]:.2f} s per step ({min(values):.2f} to {max(values):.2f})")
    print(f"{'matrix product':<24} median {np.median(rates):.0f} GFLOP/s")
    first, *others = (name for name in sides if name.startswith("deeplab_tf"))
    for name in others:
        print(f"ratio, {first} over {name}: {medians[first] / medians[name]:.2f}")
    theirs = [value for name, value in medians.items() if name.startswith("PyTorch")]
    if theirs:
        print(f"ratio, PyTorch's faster layout over {first}: {min(theirs) / medians[first]:.2f}")


if __name__ == "__main__":
    app.run(main)
