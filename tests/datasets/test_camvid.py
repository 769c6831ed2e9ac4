"""CamVid's folders."""

import numpy as np
import pytest
from PIL import Image

from deeplab_tf import data
from deeplab_tf.errors import UserError


@pytest.mark.slow
def test_real_files_come_back_as_they_were(camvid_dir, tmp_path):
    directory = data.prepare("camvid", tmp_path, camvid_dir)
    info = data.info("camvid", tmp_path)
    assert info.splits == {"train": 367, "val": 101}
    for example in data.evaluation_pipeline(directory, "val", limit=5).as_numpy_iterator():
        name = example["filename"].decode()
        np.testing.assert_array_equal(example["image"], Image.open(camvid_dir / "val" / name))
        mask = np.array(Image.open(camvid_dir / "valannot" / name))
        np.testing.assert_array_equal(example["label"], np.where(mask == 11, 255, mask))


def test_a_test_split_is_read_where_there_is_one(raw, grid):
    for split in ("train", "val", "test"):
        raw.image(f"{split}/{split}.png")
        raw.mask(f"{split}annot/{split}.png", grid([0, 10, 11]))
    directory = raw.prepare("camvid")
    assert data.info("camvid", raw.data_dir).splits == {"train": 1, "val": 1, "test": 1}
    assert set(np.unique(raw.examples(directory, "test")["test.png"]["label"])) == {0, 10, 255}


def test_without_raw_files_it_says_what_it_needs(tmp_path):
    with pytest.raises(UserError, match="'camvid' needs --raw_dir: the folder that holds train, trainannot"):
        data.prepare("camvid", tmp_path)
    with pytest.raises(UserError, match="has no train;"):
        data.prepare("camvid", tmp_path, tmp_path)
