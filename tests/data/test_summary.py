"""Counts and pictures of a prepared data set."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from deeplab_tf import data
from deeplab_tf.data import summary
from deeplab_tf.pictures import contact_sheet
from tests.helpers import run_command


def test_counts_are_those_of_the_labels(shapes_dir):
    found = summary.summarize_split(shapes_dir, "val")
    labels = [example["label"] for example in data.evaluation_pipeline(shapes_dir, "val").as_numpy_iterator()]
    np.testing.assert_array_equal(found.sizes, [label.shape for label in labels])
    for value in range(256):
        assert found.pixels[value] == sum((label == value).sum() for label in labels)
        assert found.images[value] == sum((label == value).any() for label in labels)


@pytest.mark.slow
def test_the_command_prints_and_draws(data_dir, shapes_dir):
    flags = ("--dataset=shapes", f"--data_dir={data_dir}", "--summarize")
    printed = run_command("datasets/prepare.py", *flags, cwd=data_dir).stdout
    assert "train            400" in printed and "background" in printed and "never occur" not in printed
    sheet = Image.open(pathlib.Path(shapes_dir) / "contact_sheet.jpg")
    assert sheet.size[0] > 1000 and sheet.size[1] > 800


def test_classes_that_never_occur_are_named(shapes_dir, monkeypatch):
    found = summary.summarize_split(shapes_dir, "val")
    found.pixels[3] = 0
    monkeypatch.setattr(summary, "summarize_split", lambda directory, split: found)
    assert "never occur: star" in summary.summarize(shapes_dir)


def test_a_sheet_shows_image_and_mask_side_by_side():
    image, mask = np.full((100, 200, 3), 100, np.uint8), np.zeros((100, 200), np.uint8)
    mask[:, 100:] = 255
    sheet = contact_sheet([(image, mask)], ["thing"], np.array([[0, 0, 200]], np.uint8))
    np.testing.assert_array_equal(sheet[50, 100], [100, 100, 100])
    np.testing.assert_allclose(sheet[50, 224 + 30], [40, 40, 160], atol=1)
    np.testing.assert_allclose(sheet[50, 224 + 170], [193, 193, 193], atol=1)
