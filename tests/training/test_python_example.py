"""The example of docs/training.md runs as it stands there."""

import pathlib
import re

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_it_trains_and_loads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = (REPOSITORY / "docs/training.md").read_text(encoding="utf-8").split("## From Python")[1]
    names = {}
    exec(re.search(r"```python\n(.*?)```", section, re.DOTALL)[1], names)
    assert names["result"].steps == 20 and (tmp_path / "runs/mine/best").is_dir()
    assert names["segmenter"].checkpoint == "ckpt-20"
