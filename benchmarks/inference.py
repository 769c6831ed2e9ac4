"""Times an exported DeepLab against other forms of it: same weights, same images, in one run, in turn.

python benchmarks/inference.py                                        ResNet-101 ASPP-L, 513x513, one and three scales
python benchmarks/inference.py --precisions=bfloat16 --batches=1,8    throughput too
python benchmarks/inference.py --before=../before --nopytorch         beside the export of another checkout

All go from uint8 images to the labels of every pixel, on the device that TensorFlow takes. Ours is the signature
`serving_default` of a SavedModel, loaded from disk; "unfolded" is the Keras model as training has it, in a graph;
"before" is the SavedModel that the code of another checkout writes. PyTorch runs in channels_last under inference_mode:
as it is written, with batch norm folded, and compiled (inductor, weights frozen); in bfloat16 by autocast and with its
weights converted. Its fastest counts.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from absl import app, flags, logging

_SIZE = flags.DEFINE_integer("size", 513, "Height and width of the images, pixels.", lower_bound=9)
_BATCHES = flags.DEFINE_list("batches", ["1"], "Images in a batch: 1 is latency, more is throughput.")
_PRECISIONS = flags.DEFINE_list("precisions", ["float32", "bfloat16"], "Of both sides.")
_SCALES = flags.DEFINE_multi_string("scales", ["1", "0.5,0.75,1"], "Scales of the input; may be given several times.")
_REPEATS = flags.DEFINE_integer("repeats", 7, "Timed calls of each side.", lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", os.cpu_count(), "Threads of each side.", lower_bound=1)
_BEFORE = flags.DEFINE_string("before", None, "Another checkout, such as a worktree of an older commit.")
_PYTORCH = flags.DEFINE_bool("pytorch", True, "Whether the same network in PyTorch runs too.")
_COMPILE = flags.DEFINE_bool("compile", True, "Whether PyTorch also runs compiled; needs a C++ compiler.")

CLASSES = 21

# Runs under the code of either checkout; its last line is the path of the export.
_EXPORT = """
import json, sys
import numpy as np
from deeplab_tf import DeepLab, Segmenter
from deeplab_tf.data import info
from deeplab_tf.serving import export_saved_model

weights, classes, scales, precision, folder = json.loads(sys.argv[1])
model = DeepLab("resnet101", "aspp_l", num_classes=classes, scales=scales)
with np.load(weights) as arrays:
    for weight in model.network.weights:
        weight.assign(arrays[weight.path])
segmenter = Segmenter(model, info=info("voc2012"))
print(export_saved_model(segmenter, folder, outputs=["labels"], precision=precision))
"""


def network():
    """A ResNet-101 ASPP-L, its batch norm with statistics of its own."""
    from deeplab_tf import DeepLab

    model = DeepLab("resnet101", "aspp_l", num_classes=CLASSES)
    rng = np.random.default_rng(0)
    for weight in model.network.weights:
        if weight.path.endswith(("beta", "moving_mean")):
            weight.assign(rng.normal(0, 0.3, weight.shape))
        elif weight.path.endswith(("gamma", "moving_variance")):
            weight.assign(rng.uniform(0.4, 0.9, weight.shape))
    return model


def exported(checkout: pathlib.Path, model, scales: tuple[float, ...], precision: str):
    """The model as a checkout's code exports it, as a function of uint8 images to labels."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        weights = f"{folder}/weights.npz"
        np.savez(weights, **{weight.path: weight.numpy() for weight in model.network.weights})
        given = json.dumps([weights, CLASSES, scales, precision, f"{folder}/exported"])
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        command = [sys.executable, "-c", _EXPORT, given]
        said = subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        loaded = tf.saved_model.load(said.stdout.splitlines()[-1])
    serve = loaded.signatures["serving_default"]
    return lambda images, loaded=loaded: serve(images=tf.constant(images))["labels"].numpy()


def unfolded(model, scales: tuple[float, ...], precision: str):
    """Our Keras model as training has it, in a graph, as a function of uint8 images to labels."""
    import tensorflow as tf

    from deeplab_tf import DeepLab
    from deeplab_tf.models import geometry

    dtype = "mixed_bfloat16" if precision == "bfloat16" else precision
    scaled = DeepLab.from_config(model.get_config() | {"scales": scales, "dtype": dtype})
    scaled.set_weights(model.get_weights())

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    def segment(images):
        fused = scaled.score_maps(images, crop=False)["fused"]
        scores = geometry.upsample_score_map(fused, *tf.unstack(tf.shape(images)[1:3]), scaled.output_stride)
        return tf.cast(tf.argmax(scores, axis=-1), tf.uint8)

    return lambda images: segment(images).numpy()


def pytorchs(model, scales: tuple[float, ...], precision: str, way: str):
    """The network in PyTorch as a function of uint8 images to labels.

    Args:
        model: ours, for its weights.
        scales: of the input.
        precision: "float32" or "bfloat16".
        way: "as written", "folded", "converted" (folded, with weights in bfloat16) or "compiled" (folded).
    """
    import pytorch_networks
    import torch

    torch.set_num_threads(_THREADS.value)
    device = pytorch_networks.device()
    net = pytorch_networks.take_weights(pytorch_networks.ResNet(classes=CLASSES), model)
    net = net if way == "as written" else pytorch_networks.fold(net)
    dtype = getattr(torch, precision) if way == "converted" else torch.float32
    net = net.to(device, dtype, memory_format=torch.channels_last)

    def scores(x):
        return net(x.to(dtype, memory_format=torch.channels_last)).float()

    def segment(images):
        x = pytorch_networks.preprocess(images)
        fused = pytorch_networks.score_maps(scores, x, scales)[-1]
        return pytorch_networks.resize(fused, x.shape[2:]).argmax(1).byte()

    if way == "compiled":
        import torch._inductor.config

        torch._inductor.config.freezing = True
        segment = torch.compile(segment, dynamic=False)

    def call(images: np.ndarray) -> np.ndarray:
        autocast = precision == "bfloat16" and way != "converted"
        with (
            torch.inference_mode(way != "compiled"),
            torch.no_grad(),
            torch.autocast(device.type, torch.bfloat16, enabled=autocast),
        ):
            return segment(torch.from_numpy(images).to(device)).cpu().numpy()

    return call


def compare(model, scales: tuple[float, ...], precision: str, batches: list[int]) -> None:
    """Times all ways in turn and prints one line for each and the ratios."""
    rng = np.random.default_rng(1)
    blocks = np.kron(
        rng.uniform(0, 255, (max(batches), _SIZE.value // 32 + 1, _SIZE.value // 32 + 1, 3)), np.ones((1, 32, 32, 1))
    )
    images = np.clip(
        blocks[:, : _SIZE.value, : _SIZE.value] + rng.normal(0, 20, (1, _SIZE.value, _SIZE.value, 1)), 0, 255
    )
    images = images.astype(np.uint8)
    here = pathlib.Path(__file__).resolve().parents[1]
    sides = {
        "deeplab_tf": exported(here, model, scales, precision),
        "deeplab_tf, unfolded": unfolded(model, scales, precision),
    }
    if _BEFORE.value:
        before = pathlib.Path(_BEFORE.value).expanduser().resolve()
        sides["deeplab_tf, before"] = exported(before, model, scales, precision)
    if _PYTORCH.value:
        ways = ["as written", "folded"]
        ways += ["converted"] if precision == "bfloat16" else []
        ways += ["compiled"] if _COMPILE.value else []
        sides |= {f"PyTorch, {way}": pytorchs(model, scales, precision, way) for way in ways}
    for batch in batches:
        print(f"\n{precision}, scales {scales}, batch {batch}")
        seconds = {name: [] for name in sides}
        labels = {name: call(images[:batch]) for name, call in sides.items()}  # Compiles and allocates.
        for _ in range(_REPEATS.value):
            for name, call in sides.items():
                began = time.perf_counter()
                call(images[:batch])
                seconds[name].append(time.perf_counter() - began)
        medians = {name: float(np.median(values)) for name, values in seconds.items()}
        for name, values in seconds.items():
            same = (labels[name] == labels["deeplab_tf"]).mean()
            print(
                f"{name:<22} median {medians[name]:.3f} s ({min(values):.3f} to {max(values):.3f}), "
                f"{batch / medians[name]:.2f} images/s, {same:.2%} of our labels",
                flush=True,
            )
        others = {maker: [name for name in sides if name.startswith(maker)] for maker in ("deeplab_tf, ", "PyTorch")}
        fastest = min(others["PyTorch"], key=medians.get, default=None)
        for name in [*others["deeplab_tf, "], *([fastest] if fastest else [])]:
            least = min(seconds[name]) / min(seconds["deeplab_tf"])
            ratio = medians[name] / medians["deeplab_tf"]
            print(f"ratio, {name} over deeplab_tf: {ratio:.2f} of the medians, {least:.2f} of the least", flush=True)


def main(_) -> None:
    """Prints seconds of each side and their ratio, for every precision and set of scales."""
    import tensorflow as tf

    logging.set_verbosity(logging.WARNING)
    tf.config.threading.set_intra_op_parallelism_threads(_THREADS.value)
    model = network()
    print(f"ResNet-101 aspp_l, {_SIZE.value}x{_SIZE.value}, {CLASSES} classes, {_THREADS.value} threads")
    for precision in _PRECISIONS.value:
        for scales in _SCALES.value:
            numbers = tuple(float(scale) for scale in scales.split(","))
            compare(model, numbers, precision, [int(batch) for batch in _BATCHES.value])


if __name__ == "__main__":
    app.run(main)
