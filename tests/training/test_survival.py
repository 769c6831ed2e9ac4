"""A run that is killed, asked to stop, or meets a bad file or a full disk, ends as one that was never stopped."""

import functools
import json
import multiprocessing
import os
import pathlib
import resource
import shutil
import signal
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf import DeepLab
from deeplab_tf.errors import UserError
from deeplab_tf.inference import Segmenter
from deeplab_tf.run_folder import best_checkpoint, checkpoint_step, latest_checkpoint, locked
from deeplab_tf.stopping import Stopped
from deeplab_tf.training import train
from deeplab_tf.training.checkpoints import Checkpoints
from tests.helpers import REPOSITORY, start_command
from tests.training import toy
from tests.training.toy import trained

pytestmark = pytest.mark.slow  # processes of commands, or many trainings

STEPS = 24  # of runs that are stopped from outside
FEW = 12  # of those that stop themselves at step 8
without_network = functools.partial(trained, network=False)


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory) -> np.ndarray:
    moved, _ = trained(tmp_path_factory.mktemp("never_stopped") / "run", max_steps=STEPS)
    return moved


@pytest.fixture(scope="module")
def few_steps(tmp_path_factory) -> np.ndarray:
    moved, _ = without_network(tmp_path_factory.mktemp("few_steps") / "run", max_steps=FEW)
    return moved


@pytest.fixture(scope="module")
def folder_stopped_at_8(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("stopped_at_8")
    without_network(folder / "run", max_steps=FEW, stop_at=8)
    return folder


@pytest.fixture
def stopped_at_8(folder_stopped_at_8, tmp_path) -> pathlib.Path:
    """A copy of a run that was stopped at step 8 of `FEW`."""
    shutil.copytree(folder_stopped_at_8, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


def start(model_dir: pathlib.Path, **settings) -> multiprocessing.Process:
    run = {"model_dir": str(model_dir), "max_steps": STEPS, "pause": 0.2, **settings}
    into = model_dir.with_name("printed")
    return start_command("tests.training.toy", 1, json.dumps([run]), cwd=REPOSITORY, into=into)


def errors(model_dir: pathlib.Path) -> str:
    """What the process of a run has printed there."""
    return model_dir.with_name("printed").joinpath("errors").read_text()


def wait_for_checkpoint(model_dir: pathlib.Path, process: multiprocessing.Process, after_step: int) -> None:
    deadline = time.monotonic() + 300
    while not any(
        int(path.stem.rsplit("-", 1)[1]) >= after_step for path in (model_dir / "checkpoints").glob("ckpt-*.index")
    ):
        assert process.exitcode is None, errors(model_dir)[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def saved_steps(model_dir: pathlib.Path) -> list[int]:
    return sorted(int(path.stem.rsplit("-", 1)[1]) for path in (model_dir / "checkpoints").glob("ckpt-*.index"))


def test_killed_twice_and_continued_is_bit_identical(tmp_path, never_stopped):
    for after_step in (4, 14):
        process = start(tmp_path / "run")
        wait_for_checkpoint(tmp_path / "run", process, after_step)
        process.kill()
        process.join()
        assert after_step <= saved_steps(tmp_path / "run")[-1] < STEPS
    moved, result = trained(tmp_path / "run", max_steps=STEPS)
    assert result.steps == STEPS
    np.testing.assert_array_equal(moved, never_stopped)


def test_sigterm_saves_first(tmp_path, never_stopped):
    process = start(tmp_path / "run")
    wait_for_checkpoint(tmp_path / "run", process, 2)
    process.terminate()
    process.join(120)
    assert process.exitcode == 128 + signal.SIGTERM
    said = errors(tmp_path / "run")
    assert "stopped, all is in" in said and "Traceback" not in said
    assert saved_steps(tmp_path / "run")[-1] < STEPS
    moved, _ = trained(tmp_path / "run", max_steps=STEPS)
    np.testing.assert_array_equal(moved, never_stopped)


@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
def test_a_checkpoint_cut_short_is_passed_over(stopped_at_8, few_steps, suffix, capsys):
    last = stopped_at_8 / "checkpoints" / f"ckpt-8.{suffix}"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    moved, _ = without_network(stopped_at_8, max_steps=FEW)
    assert "ckpt-8 cannot be read and is passed over" in capsys.readouterr().err
    np.testing.assert_array_equal(moved, few_steps)


def test_no_readable_checkpoint_is_an_error(stopped_at_8):
    for path in (stopped_at_8 / "checkpoints").glob("ckpt-*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="none of the 3 checkpoints"):
        without_network(stopped_at_8, max_steps=FEW)


def test_a_full_disk_is_one_line_and_spoils_nothing(stopped_at_8, few_steps):
    before = {path.name: path.read_bytes() for path in (stopped_at_8 / "checkpoints").glob("ckpt-*")}
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # No file beyond 100 kB: as a disk that is full.
    try:
        with pytest.raises(UserError, match=r"checkpoint of step 10 could not be written.*make room.*ckpt-8"):
            without_network(stopped_at_8, max_steps=FEW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert {path.name: path.read_bytes() for path in (stopped_at_8 / "checkpoints").glob("ckpt-*")} == before
    moved, _ = without_network(stopped_at_8, max_steps=FEW)
    np.testing.assert_array_equal(moved, few_steps)


def test_no_validation_no_best(tmp_path):
    assert best_checkpoint(tmp_path) is None


# Mean IoU by step, of the validations that a run makes that is never stopped.
FIGURES = {4: 0.2, 8: 0.6, 12: 0.3, 14: 0.4}
VALIDATED = {"max_steps": 14, "eval_every": 4, "steps_per_loop": 3, "checkpoint_every": 3}


def validated(model_dir, calls=None, **options):
    def validate(step):
        if calls is not None:
            calls.append(step)
        return {"mean_iou": FIGURES[step]}

    return without_network(model_dir, validate=validate, **VALIDATED | options)


@pytest.fixture(scope="module")
def validated_folders(tmp_path_factory) -> dict[int, pathlib.Path]:
    """Of runs with validations, one whole and one stopped at step 11."""
    folders = {stop_at: tmp_path_factory.mktemp(f"validated_{stop_at}") for stop_at in (11, 14)}
    validated(folders[11] / "run", stop_at=11)
    shutil.copytree(folders[11], folders[14], dirs_exist_ok=True)
    validated(folders[14] / "run")
    return folders


def best_figures(model_dir):
    return json.loads((model_dir / "best/best.json").read_text())


def test_validations_and_the_best_are_the_same_wherever_it_was_stopped(tmp_path):
    calls = []
    moved, reference = validated(tmp_path / "reference", calls)
    assert calls == [4, 8, 12, 14] and reference.best_mean_iou == 0.6
    calls = []
    for stop_at in (3, 8, 11):  # Before a validation, at one, after one.
        assert validated(tmp_path / "run", calls, stop_at=stop_at)[1] is None
    resumed, result = validated(tmp_path / "run", calls)
    assert calls == [4, 8, 12, 14]
    np.testing.assert_array_equal(resumed, moved)
    assert (
        best_figures(tmp_path / "run")
        == best_figures(tmp_path / "reference")
        == {"checkpoint": "ckpt-8", "mean_iou": 0.6}
    )
    assert result.validation == reference.validation


@pytest.mark.parametrize("damage", ["cut", "flip", "no_data", "no_index"])
def test_the_last_step_s_checkpoint_is_written_again_when_damaged(tmp_path, validated_folders, damage):
    """And best/ keeps what is readable."""
    shutil.copytree(validated_folders[14], tmp_path, dirs_exist_ok=True)
    reference = toy.saved(tmp_path / "run")
    data, index = (tmp_path / f"run/checkpoints/ckpt-14.{suffix}" for suffix in ("data-00000-of-00001", "index"))
    content = bytearray(data.read_bytes())
    if damage == "cut":
        data.write_bytes(content[:1000])
    elif damage == "flip":
        content[len(content) // 2] ^= 255
        data.write_bytes(content)
    else:
        (data if damage == "no_data" else index).unlink()
    calls = []
    _, result = validated(tmp_path / "run", calls)
    assert result.steps == 14 and calls == [14]
    for key, value in toy.saved(tmp_path / "run").items():
        np.testing.assert_array_equal(value, reference[key])
    assert best_figures(tmp_path / "run")["checkpoint"] == "ckpt-8"


def test_a_segmenter_is_loaded_from_the_last_readable_checkpoint(stopped_at_8, capsys):
    data = stopped_at_8 / "checkpoints/ckpt-8.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    assert Segmenter.load(stopped_at_8).checkpoint == "ckpt-6"
    assert "ckpt-8 cannot be read and is passed over" in capsys.readouterr().err


def test_best_is_not_replaced_by_something_unreadable(tmp_path, capsys):
    def damaging(step):
        if step == 14:
            data = tmp_path / "run/checkpoints/ckpt-14.data-00000-of-00001"
            data.write_bytes(data.read_bytes()[:1000])
        return {"mean_iou": step / 20}

    without_network(tmp_path / "run", **VALIDATED | {"validate": damaging})
    assert "ckpt-14 is damaged on the disk, so best/ stays as it is" in capsys.readouterr().err
    assert best_figures(tmp_path / "run")["checkpoint"] == "ckpt-12"
    assert best_checkpoint(tmp_path / "run").endswith("best/ckpt-12")


@pytest.mark.parametrize("content", [None, b"", b"\0garbage"])
def test_without_the_list_of_checkpoints_the_run_goes_on_from_the_last(stopped_at_8, few_steps, content):
    state = stopped_at_8 / "checkpoints/checkpoint"
    state.unlink() if content is None else state.write_bytes(content)
    assert latest_checkpoint(stopped_at_8).endswith("ckpt-8")
    steps = []
    moved, _ = without_network(stopped_at_8, max_steps=FEW, on_loop=lambda step, scalars: steps.append(step))
    assert steps[0] == 10
    np.testing.assert_array_equal(moved, few_steps)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]"])
def test_a_damaged_best_json_does_not_stop_the_run_nor_lose_the_best(tmp_path, validated_folders, content):
    shutil.copytree(validated_folders[11], tmp_path, dirs_exist_ok=True)
    (tmp_path / "run/best/best.json").write_bytes(content)
    validated(tmp_path / "run")
    assert best_checkpoint(tmp_path / "run").endswith("best/ckpt-8")
    assert best_figures(tmp_path / "run") == {"checkpoint": "ckpt-8", "mean_iou": 0.6}


@pytest.mark.parametrize("damage", ["data cut", "data lost", "index lost"])
@pytest.mark.parametrize(("kept", "expected"), [(True, "ckpt-8"), (False, "ckpt-14")])
def test_a_damaged_best_is_replaced_from_what_is_whole(tmp_path, validated_folders, damage, kept, expected):
    """From the same checkpoint where that is still kept, else by the best of the later validations."""
    shutil.copytree(validated_folders[11], tmp_path, dirs_exist_ok=True)
    run = tmp_path / "run"
    if kept:
        for path in (run / "best").glob("ckpt-8.*"):
            shutil.copy(path, run / "checkpoints" / path.name)
    else:
        for path in (run / "checkpoints").glob("ckpt-8.*"):
            path.unlink()
    data, index = run / "best/ckpt-8.data-00000-of-00001", run / "best/ckpt-8.index"
    if damage == "data cut":
        data.write_bytes(data.read_bytes()[:1000])
    else:
        (data if damage == "data lost" else index).unlink()
    validated(run)
    name = best_figures(run)["checkpoint"]
    assert (name, best_figures(run)["mean_iou"]) == (expected, FIGURES[int(expected[5:])])
    assert Segmenter.load(run, checkpoint="best").checkpoint == expected


def test_remains_of_killed_processes_are_removed(tmp_path, validated_folders):
    shutil.copytree(validated_folders[11], tmp_path, dirs_exist_ok=True)
    run = tmp_path / "run"
    (run / "checkpoints/ckpt-12_temp").mkdir()
    (run / ".checkpoints-of-host-77").mkdir()
    names = ["ckpt-12_temp/part-0", "checkpoint.tmp0123", "ckpt-2.data-00000-of-00001"]
    remains = [run / "checkpoints" / name for name in names]
    remains += [run / "best/ckpt-4.index", run / "best/.ckpt-9.77.part.index", run / ".config.7.part.flags"]
    for path in remains:
        path.write_bytes(b"")
    validated(run)
    assert [path for path in remains if path.exists()] == [] and not (run / ".checkpoints-of-host-77").exists()
    assert sorted(path.name for path in (run / "best").iterdir()) == [
        "best.json",
        "ckpt-8.data-00000-of-00001",
        "ckpt-8.index",
    ]


def test_every_host_saves_at_the_same_steps_after_a_resume(tmp_path):
    def of_host(chief: bool) -> tuple[Checkpoints, tf.Variable]:
        layer, step = keras.layers.Dense(1), tf.Variable(0, dtype=tf.int64)
        layer.build((None, 1))
        saved = tf.train.Checkpoint(model=layer, step=step)
        return Checkpoints(tmp_path, saved, step, every=10, keep=3, chief=chief), step

    first, step = of_host(True)
    step.assign(10)
    first.save()
    for checkpoints, step in (of_host(False), of_host(True)):  # the first one's folder is thrown away
        checkpoints.restore()
        steps = []
        for now in range(11, 41):
            step.assign(now)
            checkpoints.save(if_due=True)
            steps.append(checkpoint_step(checkpoints.latest))
        assert sorted(set(steps)) == [10, 20, 30, 40] and steps[8:10] == [10, 20]
        checkpoints.clean_up()
    assert saved_steps(tmp_path) == [20, 30, 40]


def test_a_second_training_in_the_same_folder_is_refused(tmp_path):
    process = start(tmp_path / "run", max_steps=10_000)
    wait_for_checkpoint(tmp_path / "run", process, 2)
    with pytest.raises(UserError, match=rf"is being trained by process {process.pid} on .*give another --model_dir"):
        trained(tmp_path / "run", max_steps=10_000)
    process.kill()
    process.join()
    with locked(tmp_path / "run"):
        pass  # The dead process has left no lock behind.


def test_sigterm_is_obeyed_during_validation(tmp_path):
    """The validation is made again at the next start."""
    options = {"max_steps": 4, "steps_per_loop": 4, "checkpoint_every": 4}

    def interrupted(step, stop):
        os.kill(os.getpid(), signal.SIGTERM)
        raise Stopped(signal.SIGTERM)

    _, result = without_network(tmp_path / "run", raw_validate=interrupted, **options)
    assert result is None and latest_checkpoint(tmp_path / "run").endswith("ckpt-4")
    calls = []
    without_network(tmp_path / "run", validate=lambda step: calls.append(step) or {"mean_iou": 0.1}, **options)
    assert calls == [4]


def test_the_real_validation_looks_for_the_signal_after_every_image(stopped_at_8):
    from deeplab_tf import data
    from deeplab_tf.evaluation.validation import make_validate
    from deeplab_tf.stopping import StopRequest

    segmenter = Segmenter.load(stopped_at_8)
    validate = make_validate(segmenter, data.evaluation_pipeline(toy.prepared(stopped_at_8.parent / "data"), "val"))
    stop = StopRequest()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped):
            validate(2, stop)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--model_dir=.*/file/run cannot be written: Not a directory"):
        train(tmp_path / "file/run", toy.prepared(tmp_path / "data"))


def test_patience_ends_a_run_the_same_wherever_it_was_stopped(tmp_path, capsys):
    figures = {2: 0.2, 4: 0.6, 6: 0.5, 8: 0.6, 10: 0.9}
    options = {"max_steps": 10, "eval_every": 2, "steps_per_loop": 2, "checkpoint_every": 2, "patience": 2}
    calls = []
    options["validate"] = lambda step: calls.append(step) or {"mean_iou": figures[step]}
    moved, reference = without_network(tmp_path / "reference", **options)
    assert (calls, reference.steps, reference.best_mean_iou) == ([2, 4, 6, 8], 8, 0.6)
    assert reference.best_checkpoint.endswith("best/ckpt-4") and reference.checkpoint.endswith("ckpt-8")
    assert "ended at step 8 by --patience=2: the mean IoU did not rise" in capsys.readouterr().err
    calls.clear()
    for stop_at in (2, 6):
        assert without_network(tmp_path / "run", stop_at=stop_at, **options)[1] is None
    resumed, result = without_network(tmp_path / "run", **options)
    assert calls == [2, 4, 6, 8] and result.steps == 8
    np.testing.assert_array_equal(resumed, moved)
    again = without_network(tmp_path / "run", **options)[1]
    assert calls == [2, 4, 6, 8] and (again.steps, again.best_checkpoint) == (8, result.best_checkpoint)
    further = without_network(tmp_path / "run", **options | {"patience": 3})[1]
    assert further.steps == 10  # It goes on when asked to.


def test_an_average_of_the_weights_is_what_is_validated_kept_and_resumed(tmp_path):
    from deeplab_tf.run_folder import read_description

    options = {"max_steps": 4, "steps_per_loop": 1, "checkpoint_every": 1, "max_checkpoints": 4}
    plain, _ = without_network(tmp_path / "plain", **options)
    moved, _ = without_network(tmp_path / "reference", ema_decay=0.5, **options)
    np.testing.assert_array_equal(moved, plain)  # The training itself is the same.
    without_network(tmp_path / "run", stop_at=2, ema_decay=0.5, **options)
    without_network(tmp_path / "run", ema_decay=0.5, **options)
    reference, resumed = (toy.saved(tmp_path / name) for name in ("reference", "run"))
    for key, value in reference.items():
        np.testing.assert_array_equal(resumed[key], value)

    config = read_description(tmp_path / "run")["model"]
    average, now = DeepLab.from_config(config), DeepLab.from_config(config)
    expected = None
    for step in range(1, 5):  # The rule of the average, from the weights of every step.
        path = str(tmp_path / f"run/checkpoints/ckpt-{step}")
        tf.train.Checkpoint(model=average, training_model=now).read(path).expect_partial()
        of_step, found = toy.weights(now).astype(float), toy.weights(average)
        rate = 1 - min(0.5, step / (step + 9))
        expected = found if expected is None else expected + rate * (of_step - expected)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found - of_step).max() > 1e-4
    np.testing.assert_array_equal(toy.weights(Segmenter.load(tmp_path / "run").model), found)
