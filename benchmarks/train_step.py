"""Times a training step of DeepLab against the same network in PyTorch, in one run, in turn, on the same batch.

python benchmarks/train_step.py                  ResNet-101 ASPP-L, crop 321, one scale
python benchmarks/train_step.py --multi_scale    inputs at 0.5, 0.75 and 1
python benchmarks/train_step.py --backbone=vgg16 --head=large_fov                 ours alone

Both sides: forward, the losses of all score maps, backward, one SGD update with momentum and weight decay, batch norm
frozen, on the device that TensorFlow takes. PyTorch runs eagerly in its default layout and in channels_last, and
compiled by inductor. A large matrix product, in turn with them, tells what the machine can do at most;
benchmarks/step_cost.py counts the arithmetic of a step.
"""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from absl import app, flags

_MULTI_SCALE = flags.DEFINE_bool("multi_scale", False, "Inputs at 0.5, 0.75 and 1 instead of 1.")
_BACKBONE = flags.DEFINE_string("backbone", "resnet101", "Of our network; PyTorch's is a ResNet-101.")
_HEAD = flags.DEFINE_string("head", "aspp_l", "Of our network; PyTorch's is ASPP-L.")
_ATROUS = flags.DEFINE_list("atrous", ["dilation"], "Implementations of atrous convolution on our side.")
_BATCH = flags.DEFINE_integer("batch", 1, "Images in the batch.", lower_bound=1)
_CROP = flags.DEFINE_integer("crop", 321, "Height and width of the crop, pixels.", lower_bound=9)
_STEPS = flags.DEFINE_integer("steps", 5, "Timed steps of each side.", lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", os.cpu_count(), "Threads of each side.", lower_bound=1)

_COMPILE = flags.DEFINE_bool("compile", True, "Whether PyTorch also runs compiled; needs a C++ compiler.")

CLASSES = 21
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


def pytorchs(images: np.ndarray, labels: np.ndarray, scales: tuple[float, ...], way: str):
    """The same step in PyTorch as a function without arguments; `way`: "default", "channels_last" or "compiled"."""
    import pytorch_networks
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(_THREADS.value)
    torch.set_flush_denormal(True)  # as TensorFlow does
    device = pytorch_networks.device()
    network = pytorch_networks.ResNet(classes=CLASSES).eval()  # batch norm frozen
    for name, parameter in network.named_parameters():
        if ".bn." in name:
            parameter.requires_grad_(False)
        if name.endswith("increase.bn.weight"):
            torch.nn.init.constant_(parameter, RESIDUAL)
    layout = torch.contiguous_format if way == "default" else torch.channels_last
    network = network.to(device, memory_format=layout)
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=1e-9, momentum=0.9, weight_decay=5e-4)
    images, targets = torch.from_numpy(images).to(device), torch.from_numpy(labels.astype(np.int64)).to(device)

    def loss_of(scores):
        shrunk = F.interpolate(targets[:, None].float(), scores.shape[2:], mode="nearest")[:, 0].long()
        return F.cross_entropy(scores, shrunk, ignore_index=255)

    def loss():
        x = pytorch_networks.preprocess(images).contiguous(memory_format=layout)
        return sum(loss_of(scores) for scores in pytorch_networks.score_maps(network, x, scales))

    loss = torch.compile(loss, dynamic=False) if way == "compiled" else loss

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def matrix_product():
    """A product of two 2048x2048 matrices in float32, 17.2 GFLOP, as a function without arguments."""
    import pytorch_networks
    import torch

    a, b = torch.rand(2, 2048, 2048, device=pytorch_networks.device())
    return lambda: (a @ b)[0, 0].item()  # waits for the device


def main(_) -> None:
    """Prints seconds per step of each side and their ratio."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (_BATCH.value, _CROP.value, _CROP.value, 3)).astype(np.uint8)
    labels = rng.choice([*range(CLASSES), 255], (_BATCH.value, _CROP.value, _CROP.value)).astype(np.uint8)
    scales = (0.5, 0.75, 1.0) if _MULTI_SCALE.value else (1.0,)
    sides = {f"deeplab_tf, {atrous}": ours(images, labels, scales, atrous) for atrous in _ATROUS.value}
    if (_BACKBONE.value, _HEAD.value) == ("resnet101", "aspp_l"):
        ways = ["default", "channels_last", *["compiled"] * _COMPILE.value]
        sides |= {f"PyTorch, {way}": pytorchs(images, labels, scales, way) for way in ways}
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
    first, *others = sides
    for name in others:
        print(f"ratio, {name} over {first}: {medians[name] / medians[first]:.2f}")


if __name__ == "__main__":
    app.run(main)
