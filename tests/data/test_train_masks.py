"""Masks of a folder in place of a split's own: the same as a data set that had them from the beginning."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab_tf import data
from deeplab_tf.data.pipeline import label_pipeline
from deeplab_tf.errors import UserError
from tests.training import toy


def rewritten(directory, folder, masks):
    """The data set with other masks in the records of its train split; without the examples that have none."""
    folder.mkdir(parents=True)
    for name in ("dataset_info.json", "metadata.json"):
        (folder / name).write_text((directory / name).read_text())
    with tf.io.TFRecordWriter(str(folder / "toy-train.tfrecord-00000-of-00001")) as writer:
        for record in tf.data.TFRecordDataset(str(directory / "toy-train.tfrecord-00000-of-00001")).as_numpy_iterator():
            example = tf.train.Example.FromString(record)
            name = example.features.feature["image/filename"].bytes_list.value[0].decode()
            if name in masks:
                encoded = example.features.feature["image/segmentation/class/encoded"].bytes_list
                encoded.value[0] = tf.io.encode_png(masks[name][..., None]).numpy()
                writer.write(example.SerializeToString())
    return folder


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return toy.prepared(tmp_path_factory.mktemp("data"))


@pytest.fixture
def masks(tmp_path):
    """A folder of masks for all images: with VOC's palette, without one, of one bit; by the names of the images."""
    rng, found = np.random.default_rng(7), {}
    (tmp_path / "masks").mkdir()
    for number in range(toy.IMAGES):
        values = [0, 1] if number % 3 == 2 else [0, 1, 2, 255]
        mask = rng.choice(values, (toy.SIDE, toy.SIDE)).astype(np.uint8)
        image = Image.fromarray(mask)
        if number % 3 == 0:
            image.putpalette(rng.integers(0, 256, 768).astype(np.uint8).tobytes())
        image.save(tmp_path / f"masks/{number}.png", bits=1 if number % 3 == 2 else 8)
        found[f"{number}.png"] = mask
    (tmp_path / "masks/of_no_image.png").write_bytes(b"is not read")
    return tmp_path / "masks", found


def batches(directory, masks=None):
    stream = data.training_pipeline(directory, "train", batch_size=4, crop_size=33, seed=5, masks=masks)
    return list(stream.take(6).as_numpy_iterator())


@pytest.mark.parametrize("missing", [(), ("3.png", "11.png")])
def test_training_sees_what_a_data_set_with_these_masks_holds(directory, masks, missing, tmp_path):
    folder, arrays = masks
    for name in missing:
        (folder / name).unlink()
        del arrays[name]
    expected = rewritten(directory, tmp_path / "toy/1.0.1", arrays)
    replaced = data.prepare_train_masks(directory, "train", folder, missing="skip")
    for found, wanted in zip(batches(directory, replaced), batches(expected), strict=True):
        np.testing.assert_array_equal(found["image"], wanted["image"])
        np.testing.assert_array_equal(found["label"], wanted["label"])
    labels = label_pipeline(directory, "train", replaced).as_numpy_iterator()
    for found, wanted in zip(labels, label_pipeline(expected, "train").as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert replaced.left_out == missing and replaced.description["images"] == toy.IMAGES - len(missing)
    every = np.stack(list(arrays.values()))
    assert (
        replaced.description["labelled"] == pytest.approx((every < 255).mean()) and replaced.description["classes"] == 3
    )
    assert json.loads(json.dumps(replaced.description)) == replaced.description
    assert ("left out     2 images without a mask: 3.png, 11.png" in str(replaced)) == bool(missing)


def test_slices_of_splits_have_their_masks(directory, masks):
    folder, arrays = masks
    replaced = data.prepare_train_masks(directory, "train[5:7]", folder)
    labels = label_pipeline(directory, "train[5:7]", replaced).as_numpy_iterator()
    for found, number in zip(labels, (5, 6), strict=True):
        np.testing.assert_array_equal(found, arrays[f"{number}.png"])


def test_masks_are_prepared_once_and_known_by_their_content(directory, masks):
    folder, arrays = masks
    first = data.prepare_train_masks(directory, "train", folder)
    written = tf.io.gfile.stat(first.records).mtime_nsec
    again = data.prepare_train_masks(directory, "train", folder)
    assert again == first and tf.io.gfile.stat(again.records).mtime_nsec == written
    Image.fromarray(arrays["3.png"][::-1]).save(folder / "3.png")
    other = data.prepare_train_masks(directory, "train", folder)
    assert other.description["fingerprint"] != first.description["fingerprint"]


def save(array, mode=None):
    return lambda path: Image.fromarray(np.asarray(array, np.uint8), mode).save(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "1 of 16 images have no mask there: 4.png; expected names such as .*0.png"),
        (lambda path: path.write_bytes(b"x"), "4.png: cannot be read as an image"),
        (save(np.zeros((65, 60))), "4.png: the mask is 60x65 pixels, its image 4.png 65x65; they must be equal"),
        (save(np.full((65, 65), 3)), "4.png: 4225 pixels of the mask have the value 3; expected classes 0 to 2"),
        (save(np.eye(65)[..., None] * [9, 8, 7]), "4.png: a colour mask"),
    ],
)
def test_a_bad_mask_is_named(directory, masks, change, message):
    change(masks[0] / "4.png")
    with pytest.raises(UserError, match=message) as raised:
        data.prepare_train_masks(directory, "train", masks[0])
    assert "\n" not in str(raised.value)
    assert not list((directory / "train_masks").rglob("*.part*"))


def test_a_folder_without_what_is_needed_is_refused(directory, masks, tmp_path):
    with pytest.raises(UserError, match="--train_masks=.*nowhere: no such folder"):
        data.prepare_train_masks(directory, "train", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has none of the 16 masks; expected names such as .*empty/0.png"):
        data.prepare_train_masks(directory, "train", tmp_path / "empty", missing="skip")
    for number in range(toy.IMAGES):
        save(255 * np.eye(65))(masks[0] / f"{number}.png")
    with pytest.raises(UserError, match="the masks hold the class 'red' alone; expected two classes or more"):
        data.prepare_train_masks(directory, "train", masks[0])
