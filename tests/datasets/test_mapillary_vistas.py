"""Mapillary Vistas' label maps, as version 1.2 and version 2.0 have them."""

import numpy as np
import pytest

from deeplab_tf import data
from deeplab_tf.errors import UserError


@pytest.fixture(params=["labels", "v1.2/labels"])
def mapillary(raw, grid, request):
    for folder in ("training", "validation", "testing"):
        raw.image(f"{folder}/images/{folder[:5]}.jpg")
        if folder != "testing":
            raw.mask(f"{folder}/{request.param}/{folder[:5]}.png", grid([0, 13, 64, 65]), mode="P")
    raw.labels = request.param
    return raw


def test_the_last_number_has_no_label(mapillary, grid):
    directory = mapillary.prepare("mapillary_vistas")
    info = data.info("mapillary_vistas", mapillary.data_dir)
    assert info.splits == {"train": 1, "val": 1, "test": 1} and info.num_classes == 65
    assert [info.class_names[index] for index in (0, 13, 64)] == ["Bird", "Road", "Ego Vehicle"]
    np.testing.assert_array_equal(info.palette[13], [128, 64, 128])
    (example,) = mapillary.examples(directory, "val").values()
    np.testing.assert_array_equal(example["label"], grid([0, 13, 64, 255]))


def test_mistakes_are_named(mapillary, grid):
    path = mapillary.mask(f"training/{mapillary.labels}/train.png", grid([66]), mode="P")
    with pytest.raises(UserError, match="train.png: 600 pixels of the mask have the value 66; expected"):
        mapillary.prepare("mapillary_vistas")
    path.unlink()
    with pytest.raises(UserError, match=r"has no training/images/\*.jpg and training/v1.2/labels/\*.png"):
        mapillary.prepare("mapillary_vistas")
    assert mapillary.left_behind() == []
