"""VOCdevkit as unpacked, with SBD's annotations as .mat files or as SegmentationClassAug."""

import numpy as np
import pytest
import scipy.io
from PIL import Image

from deeplab_tf import data
from deeplab_tf.errors import UserError

LISTS = {"train": ["2007_000032", "2007_000876"], "val": ["2007_001960"], "test": ["2008_000001"]}
EXTRA = ["2007_000032", "2007_001960", "2008_000100", "2008_000200"]  # the first two: of train and of val


@pytest.fixture
def voc(raw, voc_masks_dir):
    """VOC2012 with real masks."""
    root = "VOCdevkit/VOC2012"
    for split, names in LISTS.items():
        raw.text(f"{root}/ImageSets/Segmentation/{split}.txt", *names)
        for name in names:
            shape = (30, 40)
            if split != "test":
                mask = voc_masks_dir / f"{name}.png"
                raw.path(f"{root}/SegmentationClass/{name}.png").write_bytes(mask.read_bytes())
                shape = Image.open(mask).size[::-1]
            raw.image(f"{root}/JPEGImages/{name}.jpg", *shape)
    raw.masks = voc_masks_dir
    return raw


@pytest.fixture(params=["sbd", "SegmentationClassAug"])
def augmented(request, voc, grid):
    for n, name in enumerate(EXTRA):
        voc.image(f"VOCdevkit/VOC2012/JPEGImages/{name}.jpg", 20, 30) if n > 1 else None
        mask = grid([0, 5 + n, 20])
        if request.param == "sbd":
            path = voc.path(f"benchmark_RELEASE/dataset/cls/{name}.mat")
            content = {
                "Segmentation": mask,
                "Boundaries": np.array([[mask]] * 20, object),
                "CategoriesPresent": [5 + n, 20],
            }
            scipy.io.savemat(path, {"GTcls": content})
        else:
            voc.mask(f"VOCdevkit/VOC2012/SegmentationClassAug/{name}.png", mask)
    return voc


def test_palette_masks_are_read_as_indices(voc):
    directory = voc.prepare("voc2012")
    assert data.info("voc2012", voc.data_dir).splits == {"train": 2, "val": 1, "test": 1, "trainval": 3}
    for split in ("train", "val", "trainval"):
        for name, example in voc.examples(directory, split).items():
            np.testing.assert_array_equal(example["label"], Image.open(voc.masks / name.replace("jpg", "png")))
    assert sorted(voc.examples(directory, "trainval")) == [f"{name}.jpg" for name in LISTS["train"] + LISTS["val"]]
    assert (voc.examples(directory, "test")["2008_000001.jpg"]["label"] == 255).all()


def test_extra_annotations_never_touch_val_nor_replace_train(augmented, grid):
    directory = augmented.prepare("voc2012")
    assert data.info("voc2012", augmented.data_dir).splits == {
        "train": 2, "val": 1, "aug": 2, "test": 1, "trainval": 3, "trainaug": 4, "trainvalaug": 5
    }  # fmt: skip
    trainaug = augmented.examples(directory, "trainaug")
    assert sorted(trainaug) == [f"{name}.jpg" for name in sorted([*LISTS["train"], *EXTRA[2:]])]
    np.testing.assert_array_equal(trainaug["2008_000100.jpg"]["label"], grid([0, 7, 20]))
    np.testing.assert_array_equal(trainaug["2007_000032.jpg"]["label"], Image.open(augmented.masks / "2007_000032.png"))
    assert len(augmented.examples(directory, "trainvalaug")) == 5


def test_the_catalogue_has_the_published_sizes():
    splits = data.info("voc2012").splits
    assert (splits["train"], splits["val"], splits["test"]) == (1464, 1449, 1456)
    assert splits["train"] + splits["aug"] == 10582


@pytest.mark.parametrize("raw_dir", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_the_raw_folder_may_be_any_of_three(voc, raw_dir):
    voc.folder = voc.folder / raw_dir
    voc.prepare("voc2012")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda voc: voc.path("VOCdevkit/VOC2012/JPEGImages/2007_000876.jpg").unlink(),
            "JPEGImages/2007_000876.jpg: does not exist, but .*train.txt names it",
        ),
        (
            lambda voc: voc.path("VOCdevkit/VOC2012/SegmentationClass/2007_000876.png").unlink(),
            "SegmentationClass/2007_000876.png: does not exist, but .*train.txt names it",
        ),
        (
            lambda voc: voc.path("benchmark_RELEASE/dataset/cls/2008_000100.mat").write_bytes(b"no matlab file"),
            "2008_000100.mat: cannot be read as a MATLAB file",
        ),
        (
            lambda voc: scipy.io.savemat(voc.path("benchmark_RELEASE/dataset/cls/2008_000100.mat"), {"x": 1}),
            "2008_000100.mat: a MATLAB file without GTcls.Segmentation",
        ),
    ],
)
@pytest.mark.parametrize("augmented", ["sbd"], indirect=True)
def test_bad_files_stop_it_or_are_left_out(augmented, spoil, message):
    spoil(augmented)
    with pytest.raises(UserError, match=message):
        augmented.prepare("voc2012")
    assert augmented.left_behind() == []
    directory = augmented.prepare("voc2012", on_error="skip")
    assert len(augmented.examples(directory, "train+aug")) == 3


def test_a_folder_without_voc_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no VOC2012; dataset 'voc2012' expects VOC2012"):
        data.prepare("voc2012", tmp_path / "data", tmp_path)
