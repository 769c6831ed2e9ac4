"""The drawn data set."""

import pathlib

import numpy as np
import pytest

from deeplab_tf import data


@pytest.mark.slow
def test_it_is_the_same_every_time(shapes_dir, tmp_path):
    first, second = (
        {path.name: path.read_bytes() for path in pathlib.Path(directory).glob("*.tfrecord*")}
        for directory in (shapes_dir, data.prepare("shapes", tmp_path))
    )
    assert first == second and len(first) == 2


def test_it_holds_every_class_borders_and_many_sizes(shapes_dir):
    examples = list(data.evaluation_pipeline(shapes_dir, "val").as_numpy_iterator())
    counts = sum(np.bincount(example["label"].ravel(), minlength=256) for example in examples)
    share = counts / counts.sum()
    assert set(np.flatnonzero(counts)) == {*range(8), 255}
    assert share[1:8].min() > 0.004 and 0.5 < share[0] < 0.9 and 0.01 < share[255] < 0.15
    shapes = {example["image"].shape[:2] for example in examples}
    assert len(shapes) > 50 and max(max(shape) for shape in shapes) <= 160
    assert len({example["filename"] for example in examples}) == 100


def test_train_and_val_share_no_image(shapes_dir):
    train, val = (
        {example["image"].tobytes() for example in data.evaluation_pipeline(shapes_dir, split).as_numpy_iterator()}
        for split in ("train", "val")
    )
    assert len(train) == 400 and not train & val
