"""ADE20K's annotations of the scene parsing benchmark."""

import zipfile

import numpy as np
import pytest

from deeplab_tf import classes, data
from deeplab_tf.errors import UserError


@pytest.fixture
def ade20k(raw, grid):
    for folder, name in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        raw.image(f"ADEChallengeData2016/images/{folder}/{name}.jpg")
        raw.mask(f"ADEChallengeData2016/annotations/{folder}/{name}.png", grid([0, 1, 13, 150]))
    return raw


def zipped(raw):
    with zipfile.ZipFile(raw.path("ADEChallengeData2016.zip"), "w") as archive:
        for path in sorted((raw.folder / "ADEChallengeData2016").rglob("*.*")):
            archive.write(path, path.relative_to(raw.folder))
            path.unlink()


@pytest.mark.parametrize("arrange", [lambda raw: None, zipped])
def test_numbers_count_from_1_and_0_is_none(ade20k, grid, arrange):
    arrange(ade20k)
    directory = ade20k.prepare("ade20k")
    info = data.info("ade20k", ade20k.data_dir)
    assert info.splits == {"train": 1, "val": 1} and info.num_classes == 150
    assert [info.class_names[index] for index in (0, 12, 149)] == ["wall", "person", "flag"]
    np.testing.assert_array_equal(info.palette[[0, 149]], [[120, 120, 120], [92, 0, 255]])
    (example,) = ade20k.examples(directory, "val").values()
    np.testing.assert_array_equal(example["label"], grid([255, 0, 12, 149]))


def test_classes_and_colours_are_as_many():
    assert (
        len(classes.ADE20K) == len(set(classes.ADE20K)) == 150 == len(set(classes.ADE20K_PALETTE)) + 1
    )  # as published


def test_mistakes_are_named(ade20k, grid):
    path = ade20k.mask("ADEChallengeData2016/annotations/training/ADE_train_00000001.png", grid([1, 151]))
    with pytest.raises(UserError, match="ADE_train_00000001.png: 300 pixels of the mask have the value 151"):
        ade20k.prepare("ade20k")
    path.unlink()
    with pytest.raises(UserError, match=r"has no images/training/\*.jpg and annotations/training/\*.png"):
        ade20k.prepare("ade20k")
    assert ade20k.left_behind() == []
