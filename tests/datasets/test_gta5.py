"""GTA5's masks: Cityscapes' numbers with a palette, as published, and colours."""

import zipfile

import numpy as np
import pytest

from deeplab_tf import classes, data
from deeplab_tf.errors import UserError

IDS = [0, 7, 11, 26, 33, 34, 4]  # unlabelled, road, building, car, bicycle, licence plate, static
TRAIN_IDS = [255, 0, 2, 13, 18, 255, 255]


@pytest.fixture
def gta5(raw, grid):
    for name in ("00001", "00002"):
        raw.image(f"images/{name}.png")
        raw.mask(f"labels/{name}.png", grid(IDS), mode="P")
    return raw


def zipped(raw):
    """Images and masks in parts, as published."""
    for kind in ("images", "labels"):
        for number, path in enumerate(sorted((raw.folder / kind).iterdir()), 1):
            with zipfile.ZipFile(raw.path(f"{number:02d}_{kind}.zip"), "w") as archive:
                archive.write(path, path.relative_to(raw.folder))
            path.unlink()


@pytest.mark.parametrize("arrange", [lambda raw: None, zipped])
def test_numbers_become_train_ids(gta5, grid, arrange):
    arrange(gta5)
    directory = gta5.prepare("gta5")
    info = data.info("gta5", gta5.data_dir)
    assert info.splits == {"train": 2} and info.class_names == classes.CITYSCAPES
    examples = gta5.examples(directory, "train")
    assert sorted(examples) == ["00001.png", "00002.png"]
    np.testing.assert_array_equal(examples["00001.png"]["label"], grid(TRAIN_IDS))


def test_colours_become_train_ids(gta5, grid):
    colors = np.full((256, 3), 20, np.uint8)  # static
    colors[:19], colors[255] = classes.CITYSCAPES_PALETTE, (111, 74, 0)
    expected = grid([*range(19), 100, 255], width=42)
    for name in ("00001", "00002"):
        gta5.image(f"images/{name}.png", width=42)
        gta5.mask(f"labels/{name}.png", colors[expected])
    (example, _) = gta5.examples(gta5.prepare("gta5"), "train").values()
    np.testing.assert_array_equal(example["label"], np.where(expected == 100, 255, expected))


def test_every_colour_of_cityscapes_is_known():
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    known = {*classes.CITYSCAPES_PALETTE, *classes.CITYSCAPES_VOID_COLORS}
    assert {label.color for label in labels} <= known
    assert not set(classes.CITYSCAPES_PALETTE) & set(classes.CITYSCAPES_VOID_COLORS)


def test_a_run_on_it_is_validated_on_cityscapes(gta5, grid):
    for split in ("train", "val"):
        gta5.image(f"c/leftImg8bit/{split}/a/a_0_0_leftImg8bit.png")
        gta5.mask(f"c/gtFine/{split}/a/a_0_0_gtFine_labelIds.png", grid([7, 33]))
    directory = gta5.prepare("gta5")
    data.prepare("cityscapes", gta5.data_dir, gta5.folder / "c")
    (example,) = gta5.examples(directory, "cityscapes:val").values()
    np.testing.assert_array_equal(example["label"], grid([0, 18]))


def test_mistakes_are_named(gta5, grid):
    gta5.mask("labels/00001.png", grid([35]), mode="P")
    with pytest.raises(UserError, match="00001.png: 600 pixels of the mask have the value 35"):
        gta5.prepare("gta5")
    gta5.mask("labels/00001.png", np.full((20, 30, 3), (1, 2, 3)))
    with pytest.raises(UserError, match=r"00001.png: the colour \(1, 2, 3\) at 600 pixels is not in the colour table"):
        gta5.prepare("gta5")
    gta5.mask("labels/00001.png", grid([7], width=31), mode="P")
    with pytest.raises(UserError, match="00001.png: the mask is 31x20 pixels, its image .*00001.png 30x20"):
        gta5.prepare("gta5")
    assert len(gta5.examples(gta5.prepare("gta5", on_error="skip"), "train")) == 1
    with pytest.raises(UserError, match=r"has no images/\*.png and labels/\*.png"):
        data.prepare("gta5", gta5.folder / "other", gta5.folder / "labels")
