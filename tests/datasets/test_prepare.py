"""The command line `python datasets/prepare.py`."""

import numpy as np
import pytest

from deeplab_tf import data
from deeplab_tf.data import finding
from deeplab_tf.errors import UserError
from tests.helpers import run_command


def run(folder, *flags):
    return run_command("datasets/prepare.py", *flags, cwd=folder)


@pytest.mark.slow
def test_it_runs_from_anywhere_and_says_what_it_made(raw, grid):
    for split in ("train", "val"):
        raw.image(f"{split}/a.png")
        raw.mask(f"{split}annot/a.png", grid([0, 11]))
    result = run(raw.folder, "--dataset=camvid", "--raw_dir=.", "--data_dir=../data")
    assert result.returncode == 0, result.stderr
    assert "camvid is prepared in ../data/camvid/2.0.0" in result.stdout
    assert "train 1, val 1" in result.stdout and "11: sky, building" in result.stdout
    assert "camvid train: 100%" in result.stderr
    assert {path.name for path in raw.data_dir.iterdir()} == {"camvid"}


@pytest.mark.slow
def test_a_mistake_is_one_line(raw, grid):
    for split in ("train", "val"):
        raw.image(f"{split}/a.png")
        raw.mask(f"{split}annot/a.png", np.full((20, 30), 12))
    result = run(raw.folder, "--dataset=camvid", "--raw_dir=.", f"--data_dir={raw.data_dir}")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "trainannot/a.png: 600 pixels of the mask have the value 12" in result.stderr.splitlines()[-1]
    assert raw.left_behind() == []


def test_help_tells_the_data_sets(tmp_path):
    result = run(tmp_path, "--help")
    assert "shapes" in result.stdout and "--dataset" in result.stdout and "raw files in, TFRecords out" in result.stdout


def test_builders_need_a_clone(monkeypatch, tmp_path):
    monkeypatch.setattr(finding, "FOLDER", tmp_path / "datasets")
    with pytest.raises(UserError, match="the builders come with the repository"):
        data.prepare("camvid", tmp_path, tmp_path)
