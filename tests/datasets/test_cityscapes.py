"""Cityscapes' folders and zip files."""

import pathlib
import shutil
import zipfile

import numpy as np
import pytest

from deeplab_tf import classes, data
from deeplab_tf.errors import UserError

IDS = [0, 7, 11, 26, 33, 9]
SCENES = [
    ("train", "aachen/aachen_000000_000019"),
    ("train", "bochum/bochum_000000_000600"),
    ("val", "munster/munster_000000_000019"),
    ("test", "berlin/berlin_000000_000019"),
]
TRAIN_IDS = [255, 0, 2, 13, 18, 255]


@pytest.fixture
def cityscapes(raw, grid):
    for split, scene in SCENES:
        raw.image(f"leftImg8bit/{split}/{scene}_leftImg8bit.png")
        raw.mask(f"gtFine/{split}/{scene}_gtFine_labelIds.png", grid(IDS))
        raw.mask(f"gtFine/{split}/{scene}_gtFine_color.png", np.zeros((20, 30, 4)))
        if split != "test":
            raw.mask(f"gtCoarse/{split}/{scene}_gtCoarse_labelIds.png", grid([0, 23]))
    raw.mask("gtCoarse/train_extra/nuernberg/nuernberg_000000_000001_gtCoarse_labelIds.png", grid([8]))
    return raw


def zipped(raw):
    """Moves leftImg8bit and gtFine into zip files."""
    for name, folder in (("leftImg8bit_trainvaltest.zip", "leftImg8bit"), ("gtFine_trainvaltest.zip", "gtFine")):
        with zipfile.ZipFile(raw.path(name), "w") as archive:
            for path in sorted((raw.folder / folder).rglob("*.png")):
                archive.write(path, path.relative_to(raw.folder))
                path.unlink()


def moved_down(raw):
    """Moves them one folder down."""
    for folder in ("leftImg8bit", "gtFine"):
        raw.path(f"{folder}_trainvaltest/x")
        (raw.folder / folder).rename(raw.folder / f"{folder}_trainvaltest" / folder)


@pytest.mark.parametrize("arrange", [lambda raw: None, zipped, moved_down])
def test_label_ids_become_train_ids(cityscapes, grid, arrange):
    arrange(cityscapes)
    directory = cityscapes.prepare("cityscapes")
    assert data.info("cityscapes", cityscapes.data_dir).splits == {"train": 2, "val": 1, "test": 1}
    train = cityscapes.examples(directory, "train")
    assert sorted(train) == [f"{scene}_leftImg8bit.png" for scene in ("aachen_000000_000019", "bochum_000000_000600")]
    np.testing.assert_array_equal(train["aachen_000000_000019_leftImg8bit.png"]["label"], grid(TRAIN_IDS))
    (test,) = cityscapes.examples(directory, "test").values()
    assert (test["label"] == 255).all()


def test_coarse_annotations_are_a_configuration(cityscapes, grid):
    directory = cityscapes.prepare("cityscapes/coarse")
    assert data.info("cityscapes/coarse", cityscapes.data_dir).splits == {"train": 2, "val": 1}
    (val,) = cityscapes.examples(directory, "val").values()
    np.testing.assert_array_equal(val["label"], grid([255, 10]))
    cityscapes.image("leftImg8bit/train_extra/nuernberg/nuernberg_000000_000001_leftImg8bit.png")
    directory = cityscapes.prepare("cityscapes/coarse", overwrite=True)
    assert len(cityscapes.examples(directory, "train+train_extra")) == 3


@pytest.mark.slow
def test_fine_and_coarse_annotations_train_together(cityscapes, shapes_dir):
    cityscapes.image("leftImg8bit/train_extra/nuernberg/nuernberg_000000_000001_leftImg8bit.png")
    directory = cityscapes.prepare("cityscapes")
    with pytest.raises(UserError, match="'cityscapes/coarse' is not prepared"):
        cityscapes.examples(directory, "train+cityscapes/coarse:train_extra")
    coarse = cityscapes.prepare("cityscapes/coarse")
    joined = cityscapes.examples(directory, "train+cityscapes/coarse:train_extra")
    parts = cityscapes.examples(directory, "train") | cityscapes.examples(coarse, "train_extra")
    assert joined.keys() == parts.keys() and len(joined) == 3
    for name, example in parts.items():
        np.testing.assert_array_equal(joined[name]["label"], example["label"])
    shutil.copytree(pathlib.Path(shapes_dir).parent, cityscapes.data_dir / "shapes")
    with pytest.raises(UserError, match="the classes of 'shapes' are not those of 'cityscapes'"):
        cityscapes.examples(directory, "train+shapes:train")


def test_the_table_is_that_of_cityscapesscripts():
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    for label in labels:
        if label.id >= 0:
            assert classes.CITYSCAPES_TRAIN_IDS[label.id] == label.trainId, label.name
    assert set(classes.CITYSCAPES_TRAIN_IDS) == {label.id for label in labels if label.id >= 0}
    evaluated = sorted((label for label in labels if 0 <= label.trainId < 255), key=lambda label: label.trainId)
    assert tuple(label.name for label in evaluated) == classes.CITYSCAPES
    assert tuple(label.color for label in evaluated) == classes.CITYSCAPES_PALETTE


def test_mistakes_are_named(cityscapes, grid):
    path = cityscapes.mask("gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png", grid([7, 34]))
    with pytest.raises(UserError, match="aachen_000000_000019_gtFine_labelIds.png: 300 pixels .* the value 34"):
        cityscapes.prepare("cityscapes")
    path.unlink()
    with pytest.raises(UserError, match="aachen_000000_000019_leftImg8bit.png: its mask is missing; expected"):
        cityscapes.prepare("cityscapes")
    assert len(cityscapes.examples(cityscapes.prepare("cityscapes", on_error="skip"), "train")) == 1
    with pytest.raises(
        UserError, match=r"has no leftImg8bit/train/\*_leftImg8bit.png and gtFine/train/\*_gtFine_labelIds.png"
    ):
        data.prepare("cityscapes", cityscapes.folder / "other", cityscapes.folder / "gtFine")
    cityscapes.path("broken.zip").write_bytes(b"no zip")
    with pytest.raises(UserError, match="broken.zip: cannot be read as a zip file"):
        cityscapes.prepare("cityscapes", overwrite=True)
    with pytest.raises(UserError, match="'cityscapes' cannot be downloaded with --download; datasets/cityscapes"):
        data.prepare("cityscapes", cityscapes.folder / "other", download=True)


def test_a_damaged_zip_member_is_named(cityscapes):
    zipped(cityscapes)
    archive = cityscapes.folder / "gtFine_trainvaltest.zip"
    with zipfile.ZipFile(archive) as opened:
        (member,) = (name for name in opened.infolist() if name.filename.endswith("000019_gtFine_labelIds.png")
                     and "train" in name.filename)  # fmt: skip
    content = bytearray(archive.read_bytes())
    start = member.header_offset + 30 + len(member.filename)
    content[start + 10 : start + member.compress_size - 10] = bytes(member.compress_size - 20)
    archive.write_bytes(content)
    with pytest.raises(UserError, match="gtFine_trainvaltest.zip/gtFine/train/aachen/.*_labelIds.png: cannot be read"):
        cityscapes.prepare("cityscapes")
    assert cityscapes.left_behind() == []
