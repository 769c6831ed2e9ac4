"""Data of the user's own: every kind of mask, every way to split, every mistake."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from deeplab_tf import data
from deeplab_tf.errors import UserError

NAME = "image_folder/mine"


@pytest.fixture
def folder(raw, grid):
    """Ten pairs of three classes, and their names; options to prepare them."""
    for n in range(10):
        raw.image(f"images/p{n}.jpg", seed=n)
        raw.mask(f"masks/p{n}.png", np.roll(grid([0, 1, 2, 255]), n, axis=1))
    raw.options = {"class_names": raw.text("classes.txt", "# my classes", "ground", "red fruit", "leaf", "")}
    return raw


def raw_record(directory, name):
    """The features of an example as they are stored."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(directory)
    for split in builder.info.splits:
        for example in builder.as_dataset(split).as_numpy_iterator():
            if example["image"]["filename"].decode() == name:
                return example["image"]
    raise AssertionError(name)


def test_pairs_are_split_by_fraction_and_keep_their_bytes(folder):
    directory = folder.prepare(NAME, val_fraction=0.3, **folder.options)
    info = data.info(NAME, folder.data_dir)
    assert (info.name, info.class_names, info.splits) == (NAME, ("ground", "red fruit", "leaf"), {"train": 7, "val": 3})
    examples = folder.examples(directory, "train+val")
    assert sorted(examples) == [f"p{n}.jpg" for n in range(10)]
    np.testing.assert_array_equal(examples["p3.jpg"]["label"], Image.open(folder.path("masks/p3.png")))
    record = raw_record(directory, "p3.jpg")
    assert record["encoded"] == folder.path("images/p3.jpg").read_bytes()
    assert record["segmentation"]["class"]["encoded"] == folder.path("masks/p3.png").read_bytes()
    assert (record["format"], record["height"], record["width"]) == (b"jpeg", 20, 30)


def test_more_images_leave_the_others_in_their_split(folder, grid):
    before = set(folder.examples(folder.prepare(NAME, val_fraction=0.5, **folder.options), "val"))
    for n in range(10, 12):
        folder.image(f"images/p{n}.jpg")
        folder.mask(f"masks/p{n}.png", grid([0, 1]))
    after = set(folder.examples(folder.prepare(NAME, val_fraction=0.5, overwrite=True, **folder.options), "val"))
    assert len(before - after) <= 1


def test_lists_split(folder):
    val = folder.text("val.txt", "p7", "p2.jpg")
    directory = folder.prepare(NAME, val_list=val, **folder.options)
    assert set(folder.examples(directory, "val")) == {"p2.jpg", "p7.jpg"}
    assert len(folder.examples(directory, "train")) == 8
    train = folder.text("train.txt", "p1", "p3")
    directory = folder.prepare(NAME, train_list=train, val_list=val, overwrite=True, **folder.options)
    assert set(folder.examples(directory, "train")) == {"p1.jpg", "p3.jpg"}


def test_folders_within_folders_pair_up(folder, grid):
    folder.image("images/day/p1.png")
    folder.mask("masks/day/p1.png", grid([2]))
    examples = folder.examples(folder.prepare(NAME, val_fraction=0, **folder.options), "train")
    assert (examples["day/p1.png"]["label"] == 2).all() and len(examples) == 11


def test_palette_masks_are_read_as_indices(folder, grid):
    folder.mask("masks/p0.png", grid([2, 0, 255, 1]), mode="P")
    examples = folder.examples(folder.prepare(NAME, val_fraction=0, **folder.options), "train")
    np.testing.assert_array_equal(examples["p0.jpg"]["label"], grid([2, 0, 255, 1]))


def test_real_voc_palette_masks_are_read_as_indices(raw, voc_masks_dir):
    expected = {}
    for path in sorted(voc_masks_dir.glob("*.png"))[:20]:
        raw.path(f"masks/{path.name}").write_bytes(path.read_bytes())
        expected[f"{path.stem}.jpg"] = np.asarray(Image.open(path))
        raw.image(f"images/{path.stem}.jpg", *expected[f"{path.stem}.jpg"].shape)
    names = raw.text("names.txt", *(f"class {n}" for n in range(21)))
    examples = raw.examples(raw.prepare(NAME, class_names=names, val_fraction=0), "train")
    assert sorted(examples) == sorted(expected)
    for name, mask in expected.items():
        np.testing.assert_array_equal(examples[name]["label"], mask)


@pytest.mark.parametrize("mode", ["1", "I;16", "bmp"])
def test_other_kinds_of_mask_files(folder, grid, mode):
    mask = grid([0, 1])
    folder.path("masks/p0.png").unlink()
    name = "masks/p0.bmp" if mode == "bmp" else "masks/p0.png"
    image = {
        "1": lambda: Image.fromarray(mask * 255).convert("1"),
        "I;16": lambda: Image.fromarray(mask.astype(np.uint16)),
        "bmp": lambda: Image.fromarray(mask),
    }[mode]()
    image.save(folder.path(name))
    examples = folder.examples(folder.prepare(NAME, val_fraction=0, **folder.options), "train")
    np.testing.assert_array_equal(examples["p0.jpg"]["label"], mask)


@pytest.mark.parametrize("suffix", [".bmp", ".gif", ".tif", ".webp", ".png"])
def test_other_kinds_of_image_files(folder, suffix, decoded):
    folder.path("images/p0.jpg").unlink()
    path = folder.image(f"images/p0{suffix}")
    examples = folder.examples(folder.prepare(NAME, val_fraction=0, **folder.options), "train")
    np.testing.assert_array_equal(examples[f"p0{suffix}"]["image"], decoded(path))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_images_in_other_modes_decode_to_rgb(folder, mode):
    suffix = ".jpg" if mode in ("L", "CMYK") else ".png"
    folder.path("images/p0.jpg").unlink()
    image = Image.fromarray(np.full((20, 30, 3), (200, 30, 90), np.uint8)).convert(mode)
    image.save(folder.path(f"images/p0{suffix}"))
    examples = folder.examples(folder.prepare(NAME, val_fraction=0, **folder.options), "train")
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(examples[f"p0{suffix}"]["image"] - expected).max() <= 3


@pytest.mark.parametrize(
    "lines",
    [
        ("0 0 0 ground", "255 0 0 red fruit", "0 128 0 leaf", "9 9 9 leaf", "255 255 255 void"),
        ("ground, 0, 0, 0", "red fruit,255,0,0", "leaf;0;128;0", "leaf\t9\t9\t9", "void 255 255 255"),
    ],
)
def test_colour_masks_are_read_by_a_table(folder, grid, lines):
    table = folder.text("colors.txt", *lines)
    colors = np.array([[0, 0, 0], [255, 0, 0], [0, 128, 0], [9, 9, 9], [255, 255, 255]], np.uint8)
    for n in range(10):
        folder.mask(f"masks/p{n}.png", colors[grid([0, 1, 2, 3, 4])])
    directory = folder.prepare(NAME, val_fraction=0, color_table=table)
    np.testing.assert_array_equal(folder.examples(directory, "train")["p0.jpg"]["label"], grid([0, 1, 2, 2, 255]))
    info = data.info(NAME, folder.data_dir)
    assert info.class_names == ("ground", "red fruit", "leaf")
    np.testing.assert_array_equal(info.palette, colors[:3])


def unreadable(raw):
    raw.path("images/p4.jpg").write_bytes(raw.path("images/p4.jpg").read_bytes()[:-200])


def not_an_image(raw):
    raw.path("masks/p4.png").write_bytes(b"no image")


def lying(raw):
    """A mask that was drawn on the photograph as it is stored, lying."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(raw.path("images/p4.jpg"), exif=exif)


BAD_FILES = {
    "missing mask": (lambda raw, grid: raw.path("masks/p4.png").unlink(), r"images/p4.jpg: its mask is missing"),
    "missing image": (lambda raw, grid: raw.path("images/p4.jpg").unlink(), r"masks/p4.png: its image is missing"),
    "wrong size": (
        lambda raw, grid: raw.mask("masks/p4.png", grid([0, 1], 20, 31)),
        r"masks/p4.png: the mask is 31x20 pixels, its image .*images/p4.jpg 30x20",
    ),
    "unknown value": (
        lambda raw, grid: raw.mask("masks/p4.png", grid([0, 3])),
        r"masks/p4.png: 300 pixels of the mask have the value 3; expected classes 0 to 2, or 255 for no label; "
        "if 3 means no label, give --ignore_label=3",
    ),
    "truncated image": (
        lambda raw, grid: unreadable(raw),
        r"images/p4.jpg: cannot be read as an image \(image file is truncated",
    ),
    "unreadable mask": (lambda raw, grid: not_an_image(raw), r"masks/p4.png: cannot be read as an image"),
    "colour mask": (
        lambda raw, grid: raw.image("masks/p4.png"),
        r"masks/p4.png: a colour mask \(RGB\); .*--color_table",
    ),
    "two images": (lambda raw, grid: raw.image("images/p4.png"), r"images/p4.png: p4.jpg has the same name"),
    "turned by EXIF": (
        lambda raw, grid: lying(raw),
        r"masks/p4.png: .*30x20 pixels, .*20x30;.*EXIF orientation 6, the mask fits it unturned",
    ),
    "lossy mask": (
        lambda raw, grid: Image.fromarray(grid([0, 1])).save(raw.path("masks/p4.png"), "JPEG"),
        r"masks/p4.png: the mask is compressed as JPEG, which changes labels",
    ),
    "float image": (
        lambda raw, grid: Image.fromarray(np.full((20, 30), 7, np.float32)).save(raw.path("images/p4.jpg"), "TIFF"),
        r"images/p4.jpg: found floats from 7 to 7, expected 0 to 1",
    ),
    "large value": (
        lambda raw, grid: Image.fromarray(grid([0]).astype(np.uint16) + 300).save(raw.path("masks/p4.png")),
        r"masks/p4.png: the mask holds the value 300",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_named_and_nothing_is_left_behind(folder, grid, case):
    spoil, message = BAD_FILES[case]
    spoil(folder, grid)
    with pytest.raises(UserError, match=message) as raised:
        folder.prepare(NAME, **folder.options)
    assert "\n" not in str(raised.value)
    assert folder.left_behind() == []


@pytest.mark.parametrize(
    "case",
    [
        "missing mask",
        "missing image",
        "wrong size",
        "unknown value",
        "truncated image",
        "unreadable mask",
        "colour mask",
        "turned by EXIF",
    ],
)
def test_bad_files_can_be_left_out(folder, grid, case):
    spoil, message = BAD_FILES[case]
    spoil(folder, grid)
    directory = folder.prepare(NAME, val_fraction=0, on_error="skip", **folder.options)
    assert sorted(folder.examples(directory, "train")) == [f"p{n}.jpg" for n in range(10) if n != 4]
    with open(f"{directory}/skipped.txt") as file:
        (line,) = file
    with pytest.raises(UserError, match=message):
        raise UserError(line)


def test_masks_of_0_and_255_alone_are_refused(folder, grid):
    for n in range(10):
        folder.mask(f"masks/p{n}.png", grid([0, 255]))
    with pytest.raises(UserError, match="all masks hold only 0 and 255"):
        folder.prepare(NAME, **folder.options)
    assert folder.left_behind() == []
    table = folder.text("colors.txt", "0 0 0 background", "255 255 255 fruit")
    examples = folder.examples(folder.prepare(NAME, color_table=table), "train+val")
    np.testing.assert_array_equal(examples["p0.jpg"]["label"], grid([0, 1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_names": None}, "needs --class_names"),
        ({"class_names": "nowhere.txt"}, "nowhere.txt: cannot be read"),
        ({"val_fraction": 1.5}, "--val_fraction=1.5"),
        ({"on_error": "guess"}, "--on_error must be"),
        ({"shots": 3}, "--shots does not apply"),
    ],
)
def test_bad_options_are_named(folder, options, message):
    with pytest.raises(UserError, match=message):
        folder.prepare(NAME, **{**folder.options, **options})
    assert not folder.data_dir.exists() or folder.left_behind() == []


def test_bad_lists_and_tables_are_named(folder):
    for name, lines, message in [
        ("val_list", ["p1", "q9"], "val_list.txt: names 'q9', which is not in"),
        ("color_table", ["0 0 ground"], "color_table.txt:1: expected 'R G B name'"),
        ("color_table", ["0 0 300 ground"], "color_table.txt:1: expected 'R G B name'"),
        ("color_table", ["0 0 0 ground", "0 0 0 leaf"], r"color_table.txt:2: the colour \(0, 0, 0\) occurs twice"),
        ("color_table", ["# nothing"], "color_table.txt: no classes"),
        ("class_names", [""], "class_names.txt: no names"),
        ("class_names", [f"c{n}" for n in range(256)], "class_names.txt: 256 classes; .* 255 at most"),
        ("color_table", [f"0 {n // 256} {n % 256} c{n}" for n in range(257)], "color_table.txt: 257 classes"),
        ("class_names", ["a", "b", "a"], "class_names.txt: the class 'a' occurs twice"),
        ("class_names", ["a", "b\x07"], "class_names.txt: the class 'b.x07' has characters"),
        ("color_table", ["0 0 \u00b2 ground"], "color_table.txt:1: expected 'R G B name'"),
    ]:
        path = folder.text(f"{name}.txt", *lines)
        with pytest.raises(UserError, match=message):
            folder.prepare(NAME, **{**folder.options, name: path})
    both = folder.text("both.txt", "p1")
    with pytest.raises(UserError, match="'p1' is in .*both.txt as well"):
        folder.prepare(NAME, train_list=both, val_list=both, **folder.options)
    with pytest.raises(UserError, match=r"the colour \(\d+, \d+, \d+\) at \d+ pixels is not in the colour table"):
        folder.image("masks/p4.png")
        folder.prepare(NAME, color_table=folder.text("colors.txt", "0 0 0 ground"))


def test_what_is_prepared_already_is_not_taken_for_something_else(folder, tmp_path):
    directory = folder.prepare(NAME, **folder.options)
    assert folder.prepare(NAME, **folder.options) == directory
    assert data.prepare(NAME, folder.data_dir) == directory
    with pytest.raises(UserError, match="is prepared already in .*, from .* instead of"):
        data.prepare(NAME, folder.data_dir, tmp_path, **folder.options)
    folder.text("classes.txt", "ground", "fruit", "leaf")
    with pytest.raises(UserError, match="with another --class_names"):
        folder.prepare(NAME, **folder.options)
    folder.prepare(NAME, overwrite=True, **folder.options)
    assert data.info(NAME, folder.data_dir).class_names[1] == "fruit"


def test_a_failure_to_prepare_again_keeps_what_was_there(folder):
    directory = folder.prepare(NAME, **folder.options)
    before = folder.left_behind()
    not_an_image(folder)
    with pytest.raises(UserError):
        folder.prepare(NAME, overwrite=True, **folder.options)
    assert folder.left_behind() == before
    assert len(folder.examples(directory, "train+val")) == 10


def test_an_image_without_a_suffix_in_its_bytes(folder):
    """A JPEG that is called .png is a JPEG: the content counts."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(buffer, "JPEG")
    folder.path("images/p0.jpg").unlink()
    folder.path("images/p0.png").write_bytes(buffer.getvalue())
    directory = folder.prepare(NAME, val_fraction=0, **folder.options)
    assert raw_record(directory, "p0.png")["format"] == b"jpeg"


@pytest.mark.parametrize("name", ["image_folder/../../evil", "../evil", "image_folder/", "/tmp/x", "image_folder/.x"])
def test_names_cannot_leave_the_data_dir(folder, name):
    with pytest.raises(UserError, match="expected a name, or a name and a configuration"):
        folder.prepare(name, **folder.options)
    with pytest.raises(UserError, match="expected a name, or a name and a configuration"):
        data.prepared_directory(name, folder.data_dir)


def test_a_split_of_which_nothing_is_left_is_refused(folder):
    for n in range(10):
        not_an_image_at(folder, n)
    with pytest.raises(UserError, match="no examples are left for the split 'train'; the first of .* left out: .*p"):
        folder.prepare(NAME, on_error="skip", **folder.options)
    assert folder.left_behind() == []


def not_an_image_at(raw, n):
    raw.path(f"masks/p{n}.png").write_bytes(b"no image")


def test_the_first_of_two_hosts_that_prepare_at_once_wins(folder, monkeypatch):
    """The other one finds, when it is done, that the data set is there, and leaves it as it is."""
    from deeplab_tf.data import preparation

    build = preparation._build

    def slow_build(*arguments):
        monkeypatch.setattr(preparation, "_build", build)
        first = folder.prepare(NAME, **folder.options)
        times.update({path: path.stat().st_mtime_ns for path in pathlib.Path(first).iterdir()})
        return build(*arguments)

    times = {}
    monkeypatch.setattr(preparation, "_build", slow_build)
    directory = folder.prepare(NAME, **folder.options)
    assert {path: path.stat().st_mtime_ns for path in pathlib.Path(directory).iterdir()} == times
    assert not list(folder.data_dir.glob(".preparing*"))


def test_remains_of_killed_preparations_are_removed(folder):
    import subprocess
    import sys

    from deeplab_tf.files import process_name

    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    host = process_name().rpartition("-")[0]
    remains = folder.data_dir / f".preparing-{host}-{dead.stdout.strip()}-abc.part"
    (remains / "image_folder").mkdir(parents=True)
    of_another_host = folder.data_dir / f".preparing-other-{dead.stdout.strip()}-abc.part"
    of_another_host.mkdir()
    folder.prepare(NAME, **folder.options)
    assert not remains.exists() and of_another_host.exists()
