"""A run that is killed, asked to stop, or meets a bad file or a full disk, ends as one that was never stopped."""

import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from deeplab_tf.errors import UserError
from deeplab_tf.training.checkpoints import best_checkpoint
from tests.training.toy import trained

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
STEPS = 30


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory) -> np.ndarray:
    moved, _ = trained(tmp_path_factory.mktemp("never_stopped"), max_steps=STEPS)
    return moved


def start(model_dir: pathlib.Path) -> subprocess.Popen:
    arguments = json.dumps([{"model_dir": str(model_dir), "max_steps": STEPS}])
    command = [sys.executable, "-m", "tests.training.toy", "1", arguments]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ)


def wait_for_checkpoint(model_dir: pathlib.Path, process: subprocess.Popen, after_step: int) -> None:
    deadline = time.monotonic() + 300
    while not any(
        int(path.stem.rsplit("-", 1)[1]) >= after_step for path in (model_dir / "checkpoints").glob("ckpt-*.index")
    ):
        assert process.poll() is None, process.stderr.read().decode()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def saved_steps(model_dir: pathlib.Path) -> list[int]:
    return sorted(int(path.stem.rsplit("-", 1)[1]) for path in (model_dir / "checkpoints").glob("ckpt-*.index"))


def test_killed_twice_and_continued_is_bit_identical(tmp_path, never_stopped):
    for after_step in (4, 14):
        process = start(tmp_path)
        wait_for_checkpoint(tmp_path, process, after_step)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert after_step <= saved_steps(tmp_path)[-1] < STEPS
    moved, result = trained(tmp_path, max_steps=STEPS)
    assert result.steps == STEPS
    np.testing.assert_array_equal(moved, never_stopped)


def test_sigterm_saves_first(tmp_path, never_stopped):
    process = start(tmp_path)
    wait_for_checkpoint(tmp_path, process, 2)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert b"stopped, all is in" in errors and b"Traceback" not in errors
    assert saved_steps(tmp_path)[-1] < STEPS
    moved, _ = trained(tmp_path, max_steps=STEPS)
    np.testing.assert_array_equal(moved, never_stopped)


@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
def test_a_checkpoint_cut_short_is_passed_over(tmp_path, never_stopped, suffix, capsys):
    trained(tmp_path, max_steps=STEPS, stop_at=8)
    last = tmp_path / "checkpoints" / f"ckpt-8.{suffix}"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    moved, _ = trained(tmp_path, max_steps=STEPS)
    assert "ckpt-8 cannot be read and is passed over" in capsys.readouterr().err
    np.testing.assert_array_equal(moved, never_stopped)


def test_no_readable_checkpoint_is_an_error(tmp_path):
    trained(tmp_path, stop_at=2)
    for path in (tmp_path / "checkpoints").glob("ckpt-*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="none of the 1 checkpoints"):
        trained(tmp_path)


def test_a_full_disk_is_one_line_and_spoils_nothing(tmp_path, never_stopped):
    trained(tmp_path, max_steps=STEPS, stop_at=4)
    before = {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").glob("ckpt-*")}
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # No file beyond 100 kB: as a disk that is full.
    try:
        with pytest.raises(UserError, match=r"checkpoint of step 6 could not be written.*make room.*ckpt-4"):
            trained(tmp_path, max_steps=STEPS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").glob("ckpt-*")} == before
    moved, _ = trained(tmp_path, max_steps=STEPS)
    np.testing.assert_array_equal(moved, never_stopped)


def test_no_validation_no_best(tmp_path):
    assert best_checkpoint(tmp_path) is None
