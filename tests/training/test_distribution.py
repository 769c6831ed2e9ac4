"""Several devices and several hosts train to the weights of one device with the same global batch."""

import json
import multiprocessing
import pathlib
import socket

import numpy as np
import pytest

from tests.helpers import REPOSITORY, start_command

pytestmark = pytest.mark.slow  # processes of commands, or many trainings

FROZEN = {"batch_norm": "frozen", "learning_rate": 1e-6, "max_steps": 4}
DROPOUT = {"backbone": "vgg16", "head": "large_fov", "batch_norm": "auto", "learning_rate": 1e-6, "max_steps": 2}
HALF = FROZEN | {"precision": "mixed_float16", "loss_scale": 8.0, "max_steps": 2}


def finish(*processes: tuple[multiprocessing.Process, pathlib.Path]) -> None:
    for process, into in processes:
        process.join(600)
        assert process.exitcode == 0, (into / "errors").read_text()[-3000:]


def start(into: pathlib.Path, devices: int, runs: list[dict], environment: dict | None = None):
    arguments = ("tests.training.toy", devices, json.dumps(runs))
    return start_command(*arguments, cwd=REPOSITORY, into=into, environment=environment), into


def two_hosts(folder: pathlib.Path, runs: list[list[dict]]) -> None:
    """The runs of each of two processes that know each other as hosts, on loopback."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        cluster = {"worker": [f"127.0.0.1:{bound.getsockname()[1]}" for bound in (first, second)]}
    hosts = []
    for index in range(2):
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        hosts.append(start(folder / f"host_{index}", 1, runs[index], {"TF_CONFIG": json.dumps(task)}))
    finish(*hosts)


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """How far the weights moved, by the name of the run."""
    folder = tmp_path_factory.mktemp("distribution")

    def run(name: str, save: str = "", **options) -> dict:
        return {"model_dir": str(folder / name), "save": str(folder / f"{save or name}.npz"), **options}

    finish(
        start(
            folder / "devices",
            2,
            [
                run("one", **FROZEN),
                run("two_replicas", strategy="mirrored", validate=None, **FROZEN),
                run("two_replicas_micro", strategy="mirrored", accumulation_steps=2, **FROZEN),
                run("one_batch_norm", max_steps=4, ema_decay=0.5),
                run("one_half", **HALF),
                run("two_replicas_half", strategy="mirrored", **HALF),
                run("dropout_one", **DROPOUT),
                run("dropout_micro", accumulation_steps=2, **DROPOUT),
                run("dropout_none", **DROPOUT, dropout=0.0),
                run("dropout_two_replicas", strategy="mirrored", **DROPOUT),
                run("synchronised", batch_norm="sync", strategy="mirrored", max_steps=4, ema_decay=0.5),
            ],
        )
    )
    several = {"strategy": "multi_worker", "ema_decay": 0.5}
    options = several | {"validate": None, **FROZEN}  # The real validation, on one of the hosts.
    dropout = several | DROPOUT
    two_hosts(folder / "first", [[run("hosts", f"first_{host}", stop_at=2, **options)] for host in range(2)])
    two_hosts(
        folder / "again",
        [
            [run("hosts", f"host_{host}", **options), run("dropout_hosts", f"dropout_host_{host}", **dropout)]
            for host in range(2)
        ],
    )
    return {path.stem: np.load(path)["moved"] for path in folder.glob("*.npz")} | {"folder": folder}


@pytest.mark.parametrize("name", ["two_replicas", "two_replicas_micro", "host_0", "host_1"])
def test_same_weights_as_one_device(moved, name):
    """To float tolerance, although the ignored pixels are spread unevenly over the replicas."""
    reference = moved["one"]
    assert np.abs(reference).max() > 1e-5
    # Sums in another order: 1e-4 of a gradient (helpers.assert_same_scores); rounding the moved weights costs 1e-5 of
    # the largest move. The rest is for a ReLU whose input is within rounding of 0.
    np.testing.assert_allclose(moved[name], reference, atol=1e-3 * np.abs(reference).max())


@pytest.mark.parametrize("name", ["dropout_micro", "dropout_two_replicas", "dropout_host_0", "dropout_host_1"])
def test_dropout_drops_the_same_features_of_the_same_images(moved, name):
    """VGG-16 at dropout 0.5: the masks depend on the image's place in the stream, not on the device."""
    reference = moved["dropout_one"]
    without = np.abs(moved["dropout_none"] - reference).max()
    # Another mask moves the weights as much as none does; one feature of a hundred that differs would be seen.
    np.testing.assert_allclose(moved[name], reference, atol=1e-2 * without)


def test_a_scaled_loss_of_two_devices_is_that_of_one(moved):
    reference = moved["one_half"]
    assert np.abs(reference).max() > 1e-6
    # float16 rounds by 2^-12: forty roundings, through twenty layers and back, are 0.15%; sums in halves lose more.
    np.testing.assert_allclose(moved["two_replicas_half"], reference, atol=2e-2 * np.abs(reference).max())


def test_synchronised_batch_norm_sees_the_whole_batch(moved):
    reference = moved["one_batch_norm"]
    # Four updates at a learning rate of 0.01: a difference of 1e-4 of a gradient grows with the weights that it moves.
    np.testing.assert_allclose(moved["synchronised"], reference, atol=1e-2 * np.abs(reference).max())


def test_two_devices_average_the_weights_as_one_does(moved):
    from deeplab_tf import Segmenter

    one, two = (Segmenter.load(moved["folder"] / name).model.variables for name in ("one_batch_norm", "synchronised"))
    for variable, other in zip(one, two, strict=True):
        if variable.dtype == "float32":
            # As above, where weights move by up to 1; the variance of the first batch norm is in the thousands.
            bound = 1e-3 * max(1, np.abs(variable.numpy()).max())
            np.testing.assert_allclose(other.numpy(), variable.numpy(), atol=bound)


def test_hosts_agree_and_only_the_first_leaves_files(moved):
    np.testing.assert_array_equal(moved["host_0"], moved["host_1"])
    assert np.abs(moved["first_0"] - moved["host_0"]).max() > 0  # They did go on after the first part.
    assert sorted(path.name for path in (moved["folder"] / "hosts").iterdir()) == [
        ".lock",
        "MODEL_CARD.md",
        "best",
        "checkpoints",
        "config.flags",
        "model_card.json",
        "segmenter.json",
        "train",
        "validation",
        "validation.json",
    ]
