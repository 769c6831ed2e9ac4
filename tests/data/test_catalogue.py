"""What data sets hold, from the catalogue and from prepared data sets."""

import subprocess
import sys

import numpy as np
import pytest

from deeplab_tf import classes, data
from deeplab_tf.data import catalogue
from deeplab_tf.errors import UserError


def test_voc_palette_is_the_published_one():
    expected = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128], [0, 128, 128]]
    np.testing.assert_array_equal(classes.voc_palette(7), expected)
    np.testing.assert_array_equal(classes.voc_palette(256)[255], [224, 224, 192])


def test_voc_palette_is_that_of_real_masks(voc_masks_dir):
    from PIL import Image

    palette = Image.open(next(voc_masks_dir.glob("*.png"))).getpalette()
    np.testing.assert_array_equal(classes.voc_palette(256).ravel(), palette)


@pytest.mark.parametrize("name", sorted(catalogue.KNOWN))
def test_known_data_sets_are_consistent(name):
    info = data.info(name)
    assert info.name == name
    assert info.num_classes == len(info.class_names) == len(set(info.class_names)) == len(info.palette)
    assert info.palette.dtype == np.uint8 and info.palette.shape == (info.num_classes, 3)
    assert info.ignore_label == 255
    assert all(size > 0 for size in info.splits.values())


@pytest.mark.slow
def test_a_prepared_data_set_tells_what_it_holds(data_dir, shapes_dir):
    info, known = data.info("shapes", data_dir), data.info("shapes")
    assert (info.class_names, info.splits, info.ignore_label) == (known.class_names, known.splits, known.ignore_label)
    np.testing.assert_array_equal(info.palette, known.palette)
    assert data.prepared_directory("shapes", data_dir) == shapes_dir


def test_the_newest_version_counts(tmp_path):
    for version in ("1.0.0", "1.10.0", "1.9.0"):
        (tmp_path / "some" / version).mkdir(parents=True)
        (tmp_path / "some" / version / "dataset_info.json").write_text("{}")
    assert data.prepared_directory("some", tmp_path).endswith("1.10.0")


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(UserError, match="run: python datasets/prepare.py --dataset=camvid"):
        data.prepared_directory("camvid", tmp_path)
    with pytest.raises(UserError, match="'mine' is not in the catalogue"):
        data.info("mine")
    with pytest.raises(UserError, match="'image_folder/mine' is not prepared"):
        data.info("image_folder/mine", tmp_path)


def test_the_catalogue_needs_no_tensorflow():
    code = "import sys; from deeplab_tf import data; data.info('shapes'); assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
