"""Networks with random weights, photographs from noise, commands run as a user runs them: for all tests."""

import functools
import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
from unittest import mock

import numpy as np

from deeplab_tf.models import architectures

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]

# Makes "resnet_tiny" a network of one block in each stage: tracing its layers is what takes the time of many a test.
small_network = functools.partial(
    mock.patch.dict, architectures.RESNETS, {"resnet_tiny": ((1, 1, 1, 1), 16, (16, 32, 48, 64))}
)
whole_network = functools.partial(mock.patch.dict, architectures.RESNETS, dict(architectures.RESNETS))


@functools.cache
def _truncated_normal() -> np.ndarray:
    """Some millions of random numbers of variance 1, truncated as Keras does it."""
    numbers = np.random.default_rng(0).standard_normal(5_000_000, np.float32)
    return numbers[np.abs(numbers) < 2] / 0.87962566103423978


def draw_initial_weights_quickly() -> None:
    """Takes He's initial weights out of a store of random numbers from now on; the seeds still decide which.

    Drawing them is half of building ResNet-101.
    """
    import keras

    def draw(self, shape, dtype=None):
        store = _truncated_normal()
        value, filled, start = np.empty(np.prod(shape), np.float32), 0, self.seed % len(store)
        spread = np.float32(np.sqrt(2 / np.prod(shape[:-1])))
        while filled < len(value):
            piece = store[start : start + len(value) - filled]
            np.multiply(piece, spread, out=value[filled : filled + len(piece)])
            filled, start = filled + len(piece), 0
        return keras.ops.convert_to_tensor(value.reshape(shape), dtype)

    keras.initializers.HeNormal.__call__ = draw


def randomise(model, seed: int = 3):
    """Gives all layers random weights under which activations neither vanish nor explode, batch norm's included.

    Args:
        model: a `DeepLab`, another Keras model (tf_keras' too) or a PyTorch module.
        seed: of the weights.

    Returns:
        the model (PyTorch's in evaluation mode). Scores differ from place to place.
    """
    rng = np.random.default_rng(seed)
    if hasattr(model, "state_dict"):
        import torch

        for name, tensor in model.eval().state_dict().items():
            if tensor.is_floating_point():
                kernel, kind = tensor.ndim > 1, name.rsplit(".", 1)[-1]
                kind = "kernel" if kernel else {"weight": "gamma", "running_var": "moving_variance"}.get(kind, kind)
                tensor.copy_(torch.from_numpy(_random(kind, tensor.shape, tensor.shape[1:], rng)))
        return model
    for weight in getattr(model, "network", model).weights:
        path = getattr(weight, "path", weight.name)
        kind = path.rsplit("/", 1)[-1].split(":")[0]
        inputs = weight.shape[:2] if "depthwise" in path else weight.shape[:-1]  # such a filter sees one channel
        weight.assign(_random(kind, weight.shape, inputs, rng))
    return model


def _random(kind: str, shape, inputs, rng) -> np.ndarray:
    """A random weight, float32; `inputs` is the part of the shape that is summed over."""
    if "kernel" in kind:  # He's
        value = rng.standard_normal(shape, np.float32) * np.sqrt(2 / np.prod(inputs))
    elif kind == "moving_variance":
        value = rng.uniform(0.5, 2, shape)
    elif kind == "gamma":
        value = rng.uniform(0.2, 0.6, shape)
    else:  # biases, offsets, means
        value = rng.normal(0, 0.1, shape)
    return np.asarray(value, np.float32)


def photograph(height: int, width: int, seed: int = 0, patch: int = 12) -> np.ndarray:
    """Patches of random colours with noise on them, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (height // patch + 2, width // patch + 2, 3))
    fine = np.kron(coarse, np.ones((patch, patch, 1)))[:height, :width] + rng.normal(0, 12, (height, width, 3))
    return np.clip(fine, 0, 255).astype(np.uint8)


def full_resolution(model, images):
    """The logits of every pixel of a batch of images, float32 [B, H, W, C], by the DeepLab's own network."""
    from keras import ops

    from deeplab_tf.models import geometry

    fused = model.score_maps(images, crop=False)["fused"]
    height, width = ops.shape(images)[1:3]
    return geometry.upsample_score_map(fused, height, width, model.output_stride)


def rounding(scores) -> float:
    """How far apart two computations of the same float32 scores, or of their probabilities, may lie.

    A sum of products in another order rounds otherwise, by about a step (2^-23) of the largest score, and some thirty
    layers add up; other backends were seen to differ by 40 steps, 128 leave room. A probability changes by no more than
    half of what the difference of two scores changes by. Scores below 1 count as 1: what they are made of is larger.
    """
    return 128 * np.finfo(np.float32).eps * max(1.0, float(np.abs(scores).max()))


def assert_same_scores(found, expected, name: str = "") -> None:
    """Two computations of the same float32 scores or features, by other libraries or graphs, agree.

    To 1e-4 of the largest: a sum of n products in another order differs by about sqrt(n) roundings of 2^-24, 4e-6 for a
    3x3 filter on 512 channels. A hundred layers of that (ResNet-101) add up, as the root of their number, to 4e-5.
    """
    expected = np.asarray(expected)
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-4 * np.abs(expected).max(), err_msg=name)


def assert_labels(labels: np.ndarray, probabilities: np.ndarray, tolerance: float) -> None:
    """Every label is a most probable class, as far as probabilities [H, W, C] known to `tolerance` can tell."""
    assert labels.dtype == np.uint8
    chosen = np.take_along_axis(probabilities, labels[..., np.newaxis].astype(int), axis=-1)[..., 0]
    assert (probabilities.max(-1) - chosen).max() <= 2 * tolerance


# A command begins as a copy of a process that has imported what most of them need, which takes longer than they do.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tensorflow", "keras", "deeplab_tf.flags", "deeplab_tf.training.assembly"])


def start_command(command: str, *arguments, cwd: pathlib.Path, into: pathlib.Path, environment=None):
    """Starts a command in a process of its own.

    Args:
        command: of the repository, such as "tools/refine.py", or a module, such as "tests.training.toy".
        *arguments: of its command line.
        cwd: its working directory.
        into: folder for its output and errors, as files of these names.
        environment: further variables.

    Returns:
        a `multiprocessing.Process`.
    """
    into.mkdir(parents=True, exist_ok=True)
    line = [str(REPOSITORY / command) if command.endswith(".py") else command, *map(str, arguments)]
    arguments = (line, str(cwd), str(into), environment or {}, architectures.RESNETS)
    process = _PROCESSES.Process(target=_command, args=arguments)
    process.start()
    return process


def run_command(command: str, *flags, cwd: pathlib.Path, timeout: float = 600) -> subprocess.CompletedProcess:
    """Runs one of the repository's commands as `start_command` does, to its end; output and errors as text."""
    with tempfile.TemporaryDirectory() as folder:
        into = pathlib.Path(folder)
        process = start_command(command, *flags, cwd=cwd, into=into)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(command, timeout)
        texts = ((into / name).read_text() for name in ("output", "errors"))
        return subprocess.CompletedProcess([command, *flags], process.exitcode, *texts)


def _command(line: list[str], folder: str, into: str, environment: dict[str, str], resnets: dict) -> None:
    """What the process of a command does: as `python` would, but for the files that take its output."""
    for stream, name in enumerate(("output", "errors"), start=1):
        os.dup2(os.open(os.path.join(into, name), os.O_WRONLY | os.O_CREAT), stream)
    os.chdir(folder)
    os.environ.update(environment)
    architectures.RESNETS.update(resnets)
    draw_initial_weights_quickly()
    sys.argv = line
    if line[0].endswith(".py"):
        sys.path[0] = os.path.dirname(line[0])
        runpy.run_path(line[0], run_name="__main__")
    else:
        runpy.run_module(line[0], run_name="__main__")
