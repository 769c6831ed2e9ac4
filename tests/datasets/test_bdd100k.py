"""BDD100K's segmented images."""

import numpy as np
import pytest

from deeplab_tf import classes, data
from deeplab_tf.errors import UserError


@pytest.fixture
def bdd100k(raw, grid):
    for split in ("train", "val", "test"):
        raw.image(f"bdd100k/images/10k/{split}/0a0a-{split}.jpg")
        if split != "test":
            raw.mask(f"bdd100k/labels/sem_seg/masks/{split}/0a0a-{split}.png", grid([0, 13, 18, 255]))
    return raw


def test_masks_are_kept(bdd100k, grid):
    directory = bdd100k.prepare("bdd100k")
    info = data.info("bdd100k", bdd100k.data_dir)
    assert info.splits == {"train": 1, "val": 1, "test": 1} and info.class_names == classes.CITYSCAPES
    (example,) = bdd100k.examples(directory, "val").values()
    np.testing.assert_array_equal(example["label"], grid([0, 13, 18, 255]))


def test_mistakes_are_named(bdd100k, grid):
    path = bdd100k.mask("bdd100k/labels/sem_seg/masks/train/0a0a-train.png", grid([19]))
    with pytest.raises(UserError, match="0a0a-train.png: 600 pixels of the mask have the value 19; expected"):
        bdd100k.prepare("bdd100k")
    path.unlink()
    with pytest.raises(UserError, match=r"has no images/10k/train/\*.jpg and labels/sem_seg/masks/train/\*.png"):
        bdd100k.prepare("bdd100k")
    assert bdd100k.left_behind() == []
