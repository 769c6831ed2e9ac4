"""Photographs of every mode and orientation, prepared and read by the pipelines: as every other command sees them."""

import io
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab_tf import data
from deeplab_tf.data.builder import prepared_photograph
from deeplab_tf.errors import UserError
from deeplab_tf.pictures import read_photograph
from tests.pictures import DECODABLE, OTHERS, encoded, photograph

KINDS = DECODABLE | OTHERS
TURNED = {
    f"{kind} {orientation}": encoded(photograph(), kind, orientation, **options)
    for kind, options in [("JPEG", {"quality": 95, "subsampling": 0}), ("PNG", {}), ("TIFF", {})]
    for orientation in range(1, 9)
}
SUFFIX = ".jpg"  # of all: the content counts


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """All of them as one data set; each mask has its own photograph's upright size and a corner of class 1."""
    folder = tmp_path_factory.mktemp("photographs")
    for sub in ("images", "masks"):
        (folder / sub).mkdir()
    for name, file in (KINDS | TURNED).items():
        (folder / "images" / f"{name}{SUFFIX}").write_bytes(file)
        mask = np.zeros(read_photograph(file).shape[:2], np.uint8)
        mask[:10, :20] = 1
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    (folder / "classes.txt").write_text("rest\ncorner\n")
    options = {"class_names": str(folder / "classes.txt"), "val_fraction": 0}
    return data.prepare("image_folder/kinds", folder / "data", folder, **options)


def test_every_kind_is_prepared_as_prediction_reads_it(prepared):
    examples = data.evaluation_pipeline(prepared, "train").as_numpy_iterator()
    found = {example["filename"].decode().removesuffix(SUFFIX): example for example in examples}
    assert sorted(found) == sorted(KINDS | TURNED)
    for name, file in (KINDS | TURNED).items():
        expected, image = read_photograph(file), found[name]["image"]
        assert image.shape == expected.shape and found[name]["label"][:10, :20].all(), name
        difference = np.abs(image.astype(int) - expected).max()
        # A JPEG that was turned is encoded a second time.
        assert difference <= (3 if name in TURNED and name.startswith("JPEG") and name != "JPEG 1" else 0), name


def test_records_hold_jpeg_and_png_alone(prepared):
    from deeplab_tf.data.records import Records, record_files

    records = Records(record_files(prepared)["train"])
    for record in records.read(tf.data.Dataset.range(len(records))).as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        value = {key: features[f"image/{key}"].bytes_list.value[0] for key in ("encoded", "format", "filename")}
        assert value["format"] == (b"png" if value["encoded"].startswith(b"\x89PNG") else b"jpeg")
        file = (KINDS | TURNED)[value["filename"].decode().removesuffix(SUFFIX)]
        upright = Image.open(io.BytesIO(file)).getexif().get(0x0112, 1) == 1
        kept = upright and file.startswith((b"\x89PNG", b"\xff\xd8"))
        assert (value["encoded"] == file) == kept


def test_training_sees_the_same_pixels(prepared):
    """Crops of scale 1 that are larger than every image: the whole image, and padding at the right and bottom."""
    size = 64
    pixels = {}
    for example in data.evaluation_pipeline(prepared, "train").as_numpy_iterator():
        padded = np.empty((size, size, 3), np.uint8)
        padded[:] = np.rint(data.pipeline.MEAN_COLOR)
        height, width = example["label"].shape
        padded[:height, :width] = example["image"]
        pixels[padded.tobytes()] = example["filename"]
    count = len(KINDS | TURNED)
    batches = data.training_pipeline(prepared, "train", batch_size=count, crop_size=size, scales=(1.0,), mirror=False)
    (batch,) = batches.take(1).as_numpy_iterator()
    assert {image.tobytes() for image in batch["image"]} == set(pixels)


def test_old_data_are_not_taken_silently(prepared, caplog):
    """Data of version 1.0.0 load, with a line that says what to do."""
    new = pathlib.Path(prepared)
    old = new.rename(new.with_name("1.0.0"))
    try:
        for find in (data.prepared_directory, data.prepare):
            caplog.clear()
            assert find("image_folder/kinds", new.parents[2]) == str(old)
            assert "1.0.0: prepared by an earlier version" in caplog.text and "--overwrite" in caplog.text
        assert data.info("image_folder/kinds", new.parents[2]).class_names == ("rest", "corner")
    finally:
        old.rename(new)
    caplog.clear()
    data.prepared_directory("image_folder/kinds", new.parents[2])
    assert not caplog.text


@pytest.mark.parametrize("kind", ["TIFF", "WEBP"])
def test_sides_that_no_decoder_takes_are_refused_before_decoding(kind, monkeypatch):
    """TensorFlow decodes no PNG of a million rows, and a small file may claim gigabytes."""
    file = encoded(photograph(), "WEBP", save_all=True, append_images=[photograph().rotate(90)])
    width = file.index(b"VP8X") + 12  # three bytes: the width less 1
    file = file[:width] + (70_000 - 1).to_bytes(3, "little") + file[width + 3 :]
    if kind == "TIFF":
        file = encoded(Image.fromarray(np.zeros((2, 70_000, 3), np.uint8)), "TIFF")
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))
    with pytest.raises(UserError, match="x: found 70000 x [0-9]+ pixels, expected sides of at most 65500"):
        prepared_photograph(file, "x")
