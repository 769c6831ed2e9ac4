"""Winograd's algorithm against the definition of a convolution, and inside trainings."""

import gc
import json
import signal
import subprocess
import sys
import time
import weakref

import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf import DeepLab, Segmenter
from deeplab_tf.errors import UserError
from deeplab_tf.models import atrous, winograd
from deeplab_tf.training import Recipe
from tests.helpers import REPOSITORY


def _convolved(convolution, x, w, dy):
    """The result of a convolution, and its gradients by the map and the kernel."""
    with tf.GradientTape() as tape:
        tape.watch([x, w])
        y = convolution(x, w)
    return y, *tape.gradient(y, [x, w], dy)


def _by_definition(x, w, rate):
    """Equation (1) of the paper: a sum over the taps."""
    height, width = x.shape[1:3]
    x = tf.pad(x, [[0, 0], [rate, rate], [rate, rate], [0, 0]])
    taps = [(i, j) for i in range(3) for j in range(3)]
    return tf.add_n([x[:, i * rate : i * rate + height, j * rate : j * rate + width] @ w[i, j] for i, j in taps])


def _float32(rng, *shape) -> tf.Tensor:
    return tf.constant(rng.normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("rate", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (21, 17)])
def test_value_and_gradients_are_the_convolutions(size, rate):
    rng = np.random.default_rng(0)
    x, w, dy = _float32(rng, 2, *size, 24), _float32(rng, 3, 3, 24, 40), _float32(rng, 2, *size, 40)
    found = tf.function(_convolved)(lambda x, w: winograd.convolution(x, w, rate), x, w, dy)
    expected = _convolved(
        lambda x, w: _by_definition(x, w, rate), *(tf.cast(tensor, tf.float64) for tensor in (x, w, dy))
    )
    for ours, exact in zip(found, expected, strict=True):
        scale = np.abs(exact).max()
        np.testing.assert_allclose(ours / scale, exact / scale, atol=1e-5)


def test_sizes_may_be_unknown_when_the_graph_is_made():
    rng = np.random.default_rng(0)
    w = _float32(rng, 3, 3, 8, 8)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 8])])
    def gradient(x):
        return _convolved(lambda x, w: winograd.convolution(x, w, 2), x, w, x)[1]

    for shape in ((1, 11, 7, 8), (3, 4, 13, 8)):
        x = _float32(rng, *shape)
        expected = _convolved(lambda x, w: _by_definition(x, w, 2), x, w, x)[1]
        np.testing.assert_allclose(gradient(x), expected, atol=1e-5 * np.abs(expected).max())


def test_tensors_keep_their_numbers():
    """TensorFlow takes the arrays over without a copy; none may be used again while a tensor is on it."""
    rng = np.random.default_rng(0)
    kernels = [_float32(rng, 3, 3, 16, 16) for _ in range(6)]
    transformed = tf.function(winograd.transformed_kernel)
    copies = [transformed(kernel).numpy().copy() for kernel in kernels]
    kept = [transformed(kernel) for kernel in kernels]
    for tensor, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(tensor, copy)


def test_memory_is_given_back_after_the_step(monkeypatch):
    """Of all arrays that Python gave to TensorFlow, none is alive when the step is over and another one has begun."""
    alive, make = [], winograd._array

    def watched(shape):
        array = make(shape)
        alive.append(weakref.ref(array.base))
        return array

    monkeypatch.setattr(winograd, "_array", watched)
    rng = np.random.default_rng(0)
    x, w = _float32(rng, 1, 21, 21, 32), _float32(rng, 3, 3, 32, 32)

    @tf.function
    def step(x):
        y = winograd.convolution(winograd.convolution(x, w, 1), w, 2)
        return tf.reduce_sum(tf.gradients(y, [x])[0])

    for _ in range(3):
        step(x).numpy()
    first = len(alive) // 3
    step(x).numpy()
    gc.collect()
    assert first >= 6 and not [reference for reference in alive[: 3 * first] if reference() is not None]


def test_saving():
    assert winograd.saving((1, 3, 3, 8), 1) == pytest.approx(81 / 25)
    assert winograd.saving((2, 41, 41, 8), 2) == pytest.approx(9 * 41**2 / (25 * 196))  # 7x7 tiles of 4 sub-maps


def test_the_layer_uses_it_where_it_pays_and_gives_the_same(monkeypatch):
    calls = []
    monkeypatch.setattr(
        winograd, "convolution", lambda *args, convolution=winograd.convolution: calls.append(0) or convolution(*args)
    )
    rng = np.random.default_rng(0)
    for shape, filters, rate, used in (((1, 41, 41, 256), 256, 2, True), ((1, 41, 41, 16), 21, 6, False)):
        x = _float32(rng, *shape)
        layer = atrous.AtrousConv2D(filters, 3, rate=rate, implementation="winograd")
        other = atrous.AtrousConv2D(filters, 3, rate=rate)
        other.build(shape)
        layer.build(shape)
        layer.set_weights(other.get_weights())
        calls.clear()
        np.testing.assert_allclose(layer(x), other(x), atol=2e-5 * np.abs(other(x)).max())
        assert bool(calls) == used


def test_what_it_is_not_for_is_refused():
    layer = atrous.AtrousConv2D(8, 3, implementation="winograd")
    with pytest.raises(UserError, match=r"winograd'.*\(None, None, None, 8\), expected a height and a width"):
        tf.function(layer, autograph=False).get_concrete_function(tf.TensorSpec([None, None, None, 8]))
    half = atrous.AtrousConv2D(8, 3, implementation="winograd", dtype="mixed_bfloat16")
    with pytest.raises(UserError, match="maps of bfloat16, expected float32"):
        half(tf.zeros((1, 9, 9, 8)))
    with pytest.raises(UserError, match="--atrous=winograd: expected dilation with --precision=mixed_bfloat16"):
        Recipe(atrous="winograd", precision="mixed_bfloat16")
    segmenter = Segmenter(DeepLab("resnet_tiny", "linear", num_classes=3, scales=(1.0,), atrous="winograd"))
    assert segmenter(np.zeros((40, 50, 3), np.uint8)).labels.shape == (40, 50)  # any size: inference has its own way


# Thresholds of nothing: the small network of the toy has convolutions that it would not pay for.
_EVERYWHERE = "from deeplab_tf.models import winograd; winograd._LEAST_RATIO = winograd._LEAST_SAVED = 0; "
_TOY = "import runpy; runpy.run_module('tests.training.toy', run_name='__main__', alter_sys=True)"


def start(devices: int, runs: list[dict]) -> subprocess.Popen:
    command = [sys.executable, "-c", _EVERYWHERE + _TOY, str(devices), json.dumps(runs)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen) -> None:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output.decode()[-3000:]


@pytest.mark.slow
def test_trainings_on_one_and_two_devices_and_after_a_kill(tmp_path):
    """The trainer's weights are those of "dilation", but for rounding; a killed run ends bit for bit as another."""

    def run(name: str, **options) -> dict:
        settings = {"atrous": "winograd", "batch_norm": "frozen", "learning_rate": 1e-6, "max_steps": 6}
        return {"model_dir": str(tmp_path / name), "save": str(tmp_path / f"{name}.npz")} | settings | options

    finish(
        start(2, [run("dilation", atrous="dilation"), run("one"), run("two", strategy="mirrored")]),
    )
    killed = start(1, [run("killed", max_steps=40)])
    checkpoints = tmp_path / "killed" / "checkpoints"
    deadline = time.monotonic() + 300
    while not list(checkpoints.glob("ckpt-*.index")):
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    finish(start(1, [run("killed", max_steps=40), run("never", max_steps=40)]))

    moved = {path.stem: np.load(path)["moved"] for path in tmp_path.glob("*.npz")}
    assert np.linalg.norm(moved["dilation"]) > 0
    for name in ("one", "two"):
        # Sums in another order, and the few ReLUs whose sign they turn.
        difference = np.linalg.norm(moved[name] - moved["dilation"])
        assert 0 < difference < 1e-2 * np.linalg.norm(moved["dilation"])
    np.testing.assert_array_equal(moved["killed"], moved["never"])
