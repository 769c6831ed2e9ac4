"""One trained network in every runtime: milliseconds and mean IoU; and all backbones by size, arithmetic and time.

python benchmarks/runtimes.py --model_dir=runs/laptop --data_dir=data       mean IoU and ms, of every form of an export
python benchmarks/runtimes.py --backbones                                  parameters, GFLOPs, ms; random weights
python benchmarks/runtimes.py --runtimes=resnet101 --size=513              ms of one backbone in every runtime

Milliseconds are medians for one image, uint8 in, labels out, all runtimes with the same number of threads, one after
the other; each runs in a process of its own, since OpenVINO beside TensorFlow aborts. Mean IoU is over the images of
the validation split (--limit). PyTorch has its own code of the same network (benchmarks/pytorch_networks.py), for
VGG-16 and the ResNets. A runtime that is not installed is left out and named.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_MODEL_DIR = flags.DEFINE_string("model_dir", None, "A run, for mean IoU before and after.")
_DATA_DIR = flags.DEFINE_string("data_dir", "~/tensorflow_datasets", "Where its prepared data set is.")
_LIMIT = flags.DEFINE_integer("limit", None, "Only the first images of the split.", lower_bound=1)
_BACKBONES = flags.DEFINE_bool("backbones", False, "The table of all backbones.")
_INT8 = flags.DEFINE_bool("int8", True, "With --backbones and --runtimes: also ONNX in int8.")
_RUNTIMES = flags.DEFINE_string("runtimes", None, "A backbone, random weights, in every runtime.")
_SIZE = flags.DEFINE_integer("size", 513, "With --backbones and --runtimes: height and width, pixels.", lower_bound=33)
_REPEATS = flags.DEFINE_integer("repeats", 7, "Timed calls.", lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", os.cpu_count(), "Of every runtime.", lower_bound=1)
_WORK = flags.DEFINE_string("work", None, "Used by itself: a runtime, a model, the images and the result, with commas.")

BACKBONES = ("vgg16", "resnet50", "resnet101", "efficientnet_lite0", "resnet_tiny")
SMALL = ("efficientnet_lite0", "resnet_tiny")
FORMS = {  # name in the table -> runtime and file
    "SavedModel": ("tensorflow", "1"),
    "ONNX Runtime": ("onnxruntime", "model.onnx"),
    "ONNX Runtime, int8": ("onnxruntime", "model_int8.onnx"),
    "OpenVINO": ("openvino", "model.onnx"),
    "OpenVINO, int8": ("openvino", "model_int8.onnx"),
    "LiteRT": ("litert", "model.tflite"),
    "LiteRT, float16": ("litert", "model_float16.tflite"),
    "LiteRT, int8": ("litert", "model_int8.tflite"),
}


def tensorflow_model(path: str, threads: int):
    """The labels of a SavedModel, as a function of images uint8 [1, H, W, 3]."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    loaded = tf.saved_model.load(path)
    serve = loaded.signatures["serving_default"]
    return lambda images, loaded=loaded: serve(images=tf.constant(images))["labels"].numpy()


def onnxruntime_model(path: str, threads: int):
    """Likewise of an ONNX file in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["labels"], {"images": images})[0]


def openvino_model(path: str, threads: int):
    """Likewise in OpenVINO, in float32 (or int8) and not in a shorter kind that it would choose by itself."""
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(path, "CPU", settings)
    return lambda images: compiled(images)["labels"]


def litert_model(path: str, threads: int):
    """Likewise of a LiteRT file, on the CPU (XNNPACK)."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=threads)
    run = interpreter.get_signature_runner()
    return lambda images, interpreter=interpreter: run(images=images)["labels"]


def pytorch_model(backbone: str, threads: int):
    """The same network, written in PyTorch, channels last, with random weights; by the name of the backbone."""
    import pytorch_networks as networks
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(threads)
    network = (networks.VGG16() if backbone == "vgg16" else networks.ResNet(backbone)).eval()
    network = network.to(memory_format=torch.channels_last)
    mean = torch.tensor(networks.CAFFE_MEAN).reshape(1, 3, 1, 1)

    @torch.inference_mode()
    def labels(images):
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).flip(1).float() - mean
        scores = network(pixels.contiguous(memory_format=torch.channels_last))
        scores = F.interpolate(scores, images.shape[1:3], mode="bilinear", align_corners=True)
        return scores.argmax(1).to(torch.uint8).numpy()

    return labels


LOADERS = {
    "tensorflow": tensorflow_model,
    "onnxruntime": onnxruntime_model,
    "openvino": openvino_model,
    "litert": litert_model,
    "pytorch": pytorch_model,
}


def work(runtime: str, path: str, images_file: str, result_file: str) -> None:
    """In a process of its own: times a model on the first image, and stores the labels of all."""
    images = np.load(images_file)
    labels_of = LOADERS[runtime](path, _THREADS.value)
    seconds = []
    for _ in range(_REPEATS.value + 1):
        started = time.perf_counter()
        labels_of(images["0"][np.newaxis])
        seconds.append(time.perf_counter() - started)
    labels = {name: labels_of(images[name][np.newaxis])[0] for name in images.files}
    np.savez(result_file, milliseconds=1000 * np.median(seconds[1:]), **labels)


def run(runtime: str, path: str, images: list[np.ndarray], folder: str) -> dict[str, np.ndarray] | None:
    """`work` in another process; None, and a line, where the runtime is not installed or fails."""
    images_file, result_file = os.path.join(folder, "images.npz"), os.path.join(folder, "result.npz")
    np.savez(images_file, **{str(i): image for i, image in enumerate(images)})
    command = [sys.executable, __file__, f"--work={runtime},{path},{images_file},{result_file}"]
    command += [f"--threads={_THREADS.value}", f"--repeats={_REPEATS.value}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"left out   {runtime}, {os.path.basename(path)}: {(done.stderr.strip() or '?').splitlines()[-1]}")
        return None
    return dict(np.load(result_file))


def export(segmenter, folder: str, size: tuple[int, int], calibration: list[np.ndarray], litert: bool = True) -> None:
    """Every form of a segmenter, labels only, in a folder; int8 where there are images for the calibration.

    LiteRT only of the small networks: its converter takes more than 20 GB for a ResNet-101.
    """
    from deeplab_tf import serving

    folder = pathlib.Path(folder)
    serving.export_saved_model(segmenter, folder, outputs=["labels"])
    serving.export_onnx(segmenter, folder / "model.onnx", outputs=["labels"])
    if calibration:
        serving.export_onnx(segmenter, folder / "model_int8.onnx", outputs=["labels"], calibration=calibration)
    names = {"float32": "model.tflite", "float16": "model_float16.tflite", "int8": "model_int8.tflite"}
    for precision, name in names.items() if litert and segmenter.model.backbone in SMALL else ():
        options = {"image_size": size, "outputs": ["labels"], "precision": precision, "calibration": calibration}
        if calibration or precision != "int8":
            serving.export_litert(segmenter, folder / name, **options)


def trained() -> None:
    """A run's network in every form: file size, milliseconds, mean IoU, and labels equal to the SavedModel's."""
    from deeplab_tf import data, run_folder
    from deeplab_tf.counts import ConfusionMatrix
    from deeplab_tf.inference import Segmenter
    from deeplab_tf.serving import calibration
    from deeplab_tf.training import Recipe

    flags_of_run = run_folder.read_flags(_MODEL_DIR.value)
    recipe = Recipe.from_flags(flags_of_run)
    directory = data.prepared_directory(flags_of_run["dataset"], _DATA_DIR.value)
    segmenter = Segmenter.load(_MODEL_DIR.value, **recipe.inference_options())
    examples = list(data.evaluation_pipeline(directory, recipe.val_split, limit=_LIMIT.value).as_numpy_iterator())
    size = examples[0]["image"].shape[:2]
    examples = [example for example in examples if example["image"].shape[:2] == size]  # LiteRT's one size
    with tempfile.TemporaryDirectory() as folder:
        export(segmenter, folder, size, calibration.from_data_set(directory, recipe.train_split))
        print(f"{segmenter}: {len(examples)} images of {size[0]}x{size[1]}\n")
        print("| | MB | ms | mean IoU, % | same labels, % |\n|---|---|---|---|---|")
        reference = None
        for name, (runtime, file) in FORMS.items():
            path = pathlib.Path(folder) / file
            if not path.exists():
                continue
            found = run(runtime, str(path), [example["image"] for example in examples], folder)
            if found is None:
                continue
            labels = [found[str(i)] for i in range(len(examples))]
            reference = reference or labels
            matrix = ConfusionMatrix.empty(segmenter.info.num_classes)
            for example, mask in zip(examples, labels, strict=True):
                matrix.add(example["label"], mask, segmenter.info.ignore_label)
            same = np.mean([(a == b).mean() for a, b in zip(labels, reference, strict=True)])
            bytes_ = sum(part.stat().st_size for part in ([path] if path.is_file() else path.rglob("*.*")))
            figures = f"{found['milliseconds']:.0f} | {100 * matrix.summary()['mean_iou']:.2f} | {100 * same:.2f}"
            print(f"| {name} | {bytes_ / 1e6:.1f} | {figures} |", flush=True)


def random_segmenter(backbone: str):
    """A single-scale network with random weights, batch norm's included, for 21 classes."""
    from deeplab_tf import DeepLab, Segmenter
    from deeplab_tf.data import info

    model = DeepLab(backbone, "large_fov" if backbone == "vgg16" else "aspp_l", num_classes=21, scales=(1.0,))
    return Segmenter(model, info=info("voc2012"))


def image() -> np.ndarray:
    """Colours that change slowly, uint8 [size, size, 3]."""
    rows, columns = np.mgrid[: _SIZE.value, : _SIZE.value]
    waves = [128 + 100 * np.sin(rows / a + columns / b) for a, b in ((40, 60), (25, 90), (70, 30))]
    return np.stack(waves, axis=-1).astype(np.uint8)


def billions_of_operations(segmenter) -> float:
    """Multiplications and additions of one image's network, in 1e9, counted by TensorFlow's profiler."""
    import tensorflow as tf
    from tensorflow.python.profiler import model_analyzer, option_builder

    graph = segmenter.graph("float32")
    shape = tf.TensorSpec([1, _SIZE.value, _SIZE.value, 3], tf.uint8)
    function = tf.function(graph.score_maps, autograph=False).get_concrete_function(shape)
    frozen, definition = tf.Graph(), inlined(function)
    with frozen.as_default():
        tf.graph_util.import_graph_def(definition, name="")
        options = option_builder.ProfileOptionBuilder(option_builder.ProfileOptionBuilder.float_operation())
        found = model_analyzer.profile(frozen, options=options.with_empty_output().build())
    return found.total_float_ops / 1e9


def inlined(function):
    """The graph of a function with those that it calls in it, which the profiler does not look into."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(function).graph.as_graph_def()


def backbones() -> None:
    """Parameters, operations and milliseconds of every backbone."""
    forms = ["SavedModel", "ONNX Runtime", "OpenVINO"] + (
        ["ONNX Runtime, int8", "OpenVINO, int8"] if _INT8.value else []
    )
    print(f"One image of {_SIZE.value}x{_SIZE.value}, output stride 8, one scale, {_THREADS.value} threads, ms\n")
    print(f"| backbone | head | parameters, M | GFLOPs | {' | '.join(forms)} |\n{'|---' * (4 + len(forms))}|")
    for backbone in BACKBONES:
        segmenter = random_segmenter(backbone)
        model = segmenter.model
        row = [backbone, model.head, f"{model.count_params() / 1e6:.1f}", f"{billions_of_operations(segmenter):.0f}"]
        with tempfile.TemporaryDirectory() as folder:
            export(segmenter, folder, (_SIZE.value,) * 2, [image()] if _INT8.value else [], litert=False)
            found = [
                run(runtime, os.path.join(folder, file), [image()], folder) for runtime, file in map(FORMS.get, forms)
            ]
        row += ["-" if one is None else f"{one['milliseconds']:.0f}" for one in found]
        print(f"| {' | '.join(row)} |", flush=True)


def runtimes(backbone: str) -> None:
    """Milliseconds of one backbone in every runtime."""
    segmenter = random_segmenter(backbone)
    print(f"{backbone}, {_SIZE.value}x{_SIZE.value}, one scale, {_THREADS.value} threads\n\n| | ms |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        export(segmenter, folder, (_SIZE.value,) * 2, [image()] if _INT8.value else [])
        forms = {name: (runtime, os.path.join(folder, file)) for name, (runtime, file) in FORMS.items()}
        for name, (runtime, path) in (forms | {"PyTorch": ("pytorch", backbone)}).items():
            found = run(runtime, path, [image()], folder) if runtime == "pytorch" or os.path.exists(path) else None
            if found is not None:
                print(f"| {name} | {found['milliseconds']:.0f} |", flush=True)


def main(_) -> None:
    """Prints the tables that are asked for."""
    if _WORK.value:
        work(*_WORK.value.split(","))
    elif not (_MODEL_DIR.value or _BACKBONES.value or _RUNTIMES.value):
        sys.exit("error: expected --model_dir, --backbones or --runtimes; see the top of this file")
    if _MODEL_DIR.value:
        trained()
    if _BACKBONES.value:
        backbones()
    if _RUNTIMES.value:
        runtimes(_RUNTIMES.value)


if __name__ == "__main__":
    app.run(main)
