"""COCO-Stuff's label maps, of all photographs and of the 10,000."""

import zipfile

import numpy as np
import pytest
import scipy.io

from deeplab_tf import classes, data
from deeplab_tf.errors import UserError


def test_the_table_is_that_of_the_authors():
    """Their file counts from 1: things as COCO numbers them, then stuff by name."""
    names = classes.COCO_STUFF
    assert len(names) == len(set(names)) == 182
    assert all(names[number - 1] == name for number, name in classes.COCO_THINGS.items())
    assert list(names[91:]) == sorted(names[91:]) and (names[91], names[181]) == ("banner", "wood")
    numbered = {
        12: "street sign",
        71: "door",
        91: "hair brush",
        106: "clouds",
        149: "road",
        169: "tree",
        178: "water-other",
    }
    assert {number: names[number - 1] for number in numbered} == numbered


@pytest.fixture
def photographs(raw, grid):
    """The four photographs of 164k, and their label maps under annotations/."""
    for split, number in (("train", 9), ("train", 25), ("val", 139), ("val", 285)):
        raw.image(f"images/{split}2017/{number:012d}.jpg")
        raw.mask(f"annotations/{split}2017/{number:012d}.png", grid([0, 90, 168, 181, 255]))
    return raw


def zipped(raw):
    """The two kinds of folders of the same names, as the archives have them."""
    for kind, name in (("images", "images.zip"), ("annotations", "stuffthingmaps_trainval2017.zip")):
        with zipfile.ZipFile(raw.path(name), "w") as archive:
            for path in sorted((raw.folder / kind).rglob("*.*")):
                archive.write(path, path.relative_to(raw.folder / kind))
                path.unlink()


@pytest.mark.parametrize("arrange", [lambda raw: None, zipped])
def test_label_maps_of_all_photographs_are_kept(photographs, grid, arrange):
    arrange(photographs)
    directory = photographs.prepare("cocostuff/164k")
    info = data.info("cocostuff/164k", photographs.data_dir)
    assert info.splits == {"train": 2, "val": 2} and info.class_names[168] == "tree"
    examples = photographs.examples(directory, "val")
    assert sorted(examples) == ["000000000139.jpg", "000000000285.jpg"]
    np.testing.assert_array_equal(examples["000000000139.jpg"]["label"], grid([0, 90, 168, 181, 255]))


@pytest.fixture
def ten_thousand(raw, grid):
    names = {"train": ["COCO_train2014_000000000077"], "test": ["COCO_train2014_000000000081"]}
    for split, listed in names.items():
        raw.text(f"imageLists/{split}.txt", *listed)
        for name in listed:
            raw.image(f"images/{name}.jpg")
            scipy.io.savemat(raw.path(f"annotations/{name}.mat"), {"S": grid([0, 1, 91, 169, 182]), "captions": "x"})
    return raw


def test_numbers_of_the_10k_count_from_1(ten_thousand, grid):
    directory = ten_thousand.prepare("cocostuff/10k")
    assert data.info("cocostuff/10k", ten_thousand.data_dir).splits == {"train": 1, "test": 1}
    (example,) = ten_thousand.examples(directory, "test").values()
    np.testing.assert_array_equal(example["label"], grid([255, 0, 90, 168, 181]))


def test_mistakes_are_named(photographs, grid):
    with pytest.raises(UserError, match="comes as 'cocostuff/164k' or as 'cocostuff/10k'"):
        photographs.prepare("cocostuff")
    path = photographs.mask("annotations/train2017/000000000009.png", grid([182]))
    with pytest.raises(UserError, match="000000000009.png: 600 pixels of the mask have the value 182; expected"):
        photographs.prepare("cocostuff/164k")
    path.unlink()
    with pytest.raises(UserError, match="000000000009.jpg: its mask is missing; expected train2017/000000000009.png"):
        photographs.prepare("cocostuff/164k")
    with pytest.raises(UserError, match=r"has no images/\*.jpg and annotations/\*.mat"):
        photographs.prepare("cocostuff/10k")
    with pytest.raises(UserError, match=r"has no train2017/\*.jpg and train2017/\*.png"):
        data.prepare("cocostuff/164k", photographs.data_dir, photographs.folder / "images")
    assert photographs.left_behind() == []


def test_mistakes_in_the_10k_are_named(ten_thousand, grid):
    ten_thousand.text("imageLists/test.txt", "COCO_train2014_000000000001")
    with pytest.raises(UserError, match="COCO_train2014_000000000001.jpg: this image of .*test.txt is missing"):
        ten_thousand.prepare("cocostuff/10k")
    for labels in (grid([183]), np.float64([[-1]]), np.zeros((2, 3, 4))):
        scipy.io.savemat(ten_thousand.path("annotations/COCO_train2014_000000000077.mat"), {"S": labels})
        with pytest.raises(UserError, match="000000000077.mat: expected numbers from 0 to 182 in two dimensions"):
            ten_thousand.text("imageLists/test.txt", "COCO_train2014_000000000081")
            ten_thousand.prepare("cocostuff/10k")
    assert ten_thousand.left_behind() == []
