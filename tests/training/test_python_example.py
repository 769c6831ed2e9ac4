"""The examples of docs/training.md run as they stand there."""

import re

import pytest

from tests.helpers import REPOSITORY


@pytest.mark.slow
def test_they_train_and_load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = (REPOSITORY / "docs/training.md").read_text(encoding="utf-8").split("## From Python")[1]
    names = {}
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(block, names)
    assert names["result"].steps == 20 and (tmp_path / "runs/mine/best").is_dir()
    assert names["segmenter"].checkpoint == "ckpt-20"
    images, labels = next(iter(names["batches"]))
    assert images.shape == (4, 65, 65, 3) and labels.shape == names["model"](images).shape[:3] == (4, 9, 9)
    (loss,) = names["history"].history["loss"]
    assert 0 < loss < 5  # that of equal scores is ln 8 = 2.1
