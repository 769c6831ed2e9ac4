"""The input pipelines: what they yield, that they repeat, resume and shard exactly."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance

from deeplab_tf import data
from deeplab_tf.data import augmentation
from deeplab_tf.data.decoding import decode_image
from deeplab_tf.data.pipeline import label_pipeline
from deeplab_tf.errors import UserError
from deeplab_tf.training.distribution import distributed
from tests.helpers import photograph


def png(array):
    return tf.io.encode_png(array if array.ndim == 3 else array[..., None]).numpy()


def write_records(path, pairs):
    """Writes (image bytes, mask array, filename) as the classic DeepLab scripts do."""
    bytes_feature = lambda value: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))  # noqa: E731
    with tf.io.TFRecordWriter(str(path)) as writer:
        for image, mask, filename in pairs:
            features = {
                "image/encoded": bytes_feature(image),
                "image/filename": bytes_feature(filename.encode()),
                "image/format": bytes_feature(b"png"),
                "image/height": tf.train.Feature(int64_list=tf.train.Int64List(value=[mask.shape[0]])),
                "image/width": tf.train.Feature(int64_list=tf.train.Int64List(value=[mask.shape[1]])),
                "image/channels": tf.train.Feature(int64_list=tf.train.Int64List(value=[3])),
                "image/segmentation/class/encoded": bytes_feature(png(mask)),
                "image/segmentation/class/format": bytes_feature(b"png"),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Ten examples in two shards whose images and masks are filled with their number."""
    directory = tmp_path_factory.mktemp("numbered")
    pairs = [
        (png(np.full((12 + n, 20, 3), n, np.uint8)), np.full((12 + n, 20), n, np.uint8), f"{n}.png") for n in range(10)
    ]
    write_records(directory / "train-00000-of-00002.tfrecord", pairs[:6])
    write_records(directory / "train-00001-of-00002.tfrecord", pairs[6:])
    return directory


def stream(directory, steps, **options):
    options = {"batch_size": 4, "crop_size": 17, **options}
    return list(data.training_pipeline(directory, "train", **options).take(steps).as_numpy_iterator())


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])
        np.testing.assert_array_equal(one["label"], other["label"])


def test_batches_have_the_promised_shape_and_type(numbered):
    (batch,) = stream(numbered, 1)
    assert batch["image"].shape == (4, 17, 17, 3) and batch["image"].dtype == np.uint8
    assert batch["label"].shape == (4, 17, 17) and batch["label"].dtype == np.uint8


def test_every_epoch_is_a_new_permutation_of_all_examples(numbered):
    batches = stream(numbered, 10, scales=(1.0,))
    numbers = np.array([batch["label"].min(axis=(1, 2)) for batch in batches]).reshape(4, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in numbers.tolist())
    assert len({tuple(epoch) for epoch in numbers.tolist()}) == 4


def test_the_same_seed_repeats_and_another_does_not(shapes_dir):
    first = stream(shapes_dir, 3, crop_size=65)
    assert_same(first, stream(shapes_dir, 3, crop_size=65))
    other = stream(shapes_dir, 3, crop_size=65, seed=1)
    assert not any(np.array_equal(a["image"], b["image"]) for a, b in zip(first, other, strict=True))


def test_a_resumed_stream_is_the_tail_of_the_whole_one(shapes_dir):
    whole = stream(shapes_dir, 7, crop_size=65)
    assert_same(whole[4:], stream(shapes_dir, 3, crop_size=65, start_step=4))


def test_hosts_share_the_batches_that_one_host_would_see(shapes_dir):
    whole = stream(shapes_dir, 3, crop_size=65)
    hosts = [stream(shapes_dir, 3, crop_size=65, num_shards=2, shard_index=host) for host in range(2)]
    joined = [{key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*hosts, strict=True)]
    assert_same(whole, joined)


def test_crops_stay_aligned_with_their_labels(tmp_path):
    """Red and green are ramps over columns and rows, and the label the cell of 16 x 16 pixels that they point to."""
    y, x = np.mgrid[:112, :128]
    image, mask = np.stack([2 * x, 2 * y, 0 * x], -1).astype(np.uint8), (y // 16 * 8 + x // 16).astype(np.uint8)
    write_records(tmp_path / "train-00000-of-00001.tfrecord", [(png(image), mask, "a.png")])
    for batch in stream(tmp_path, 8, crop_size=129):
        inside = batch["label"] != 255
        assert inside.mean() > 0.2
        cell_y, cell_x = np.divmod(batch["label"][inside].astype(int), 8)
        red, green, _ = batch["image"][inside].astype(int).T
        for ramp, cell in ((red, cell_x), (green, cell_y)):
            assert (ramp - 32 * cell).min() >= -2 and (ramp - 32 * cell).max() <= 32  # within a source pixel
        np.testing.assert_array_equal(batch["image"][~inside], np.broadcast_to([123, 117, 104], ((~inside).sum(), 3)))


@pytest.mark.slow
def test_scales_mirrors_and_places_are_spread():
    """The drawn windows: sides from c/1.5 to c/0.5, half mirrored, offsets over all that fits."""
    label = tf.zeros([400, 500], tf.uint8)
    draws = tf.random.stateless_uniform([2000, 4], [1, 2])
    names = {"label": tf.uint8, "offset": tf.int32, "size": tf.int32, "target": tf.int32, "mirrored": tf.bool}
    windows = tf.map_fn(
        lambda draw: augmentation.draw_window({"label": label}, draw, 321, (0.5, 1.5), True),
        draws,
        fn_output_signature=names,
    )
    scale = (windows["target"] / windows["size"]).numpy()
    assert scale.min() == pytest.approx(0.5, abs=0.01) and scale.max() == pytest.approx(1.5, abs=0.01)
    assert np.abs(scale[:, 0] - scale[:, 1]).max() < 0.005
    assert np.histogram(scale[:, 0], 5)[0].min() > 300
    assert np.mean(windows["mirrored"]) == pytest.approx(0.5, abs=0.05)
    last = (windows["offset"] + windows["size"]).numpy()
    assert (windows["offset"].numpy() >= 0).all() and (last <= [400, 500]).all()
    assert (last == [400, 500]).any(0).all() and (windows["offset"].numpy() == 0).any(0).all()


def test_one_of_the_given_scales_is_drawn():
    label = tf.zeros([2000, 2000], tf.uint8)
    scales = (0.5, 0.75, 1.0, 1.25, 1.5)
    sides = set()
    for draw in np.linspace(0, 0.999, 50, dtype=np.float32):
        example = augmentation.draw_window({"label": label}, tf.constant([draw, 0, 0, 0]), 321, scales, False)
        sides.add(int(example["size"][0]))
        assert not example["mirrored"]
    assert sides == {round(321 / scale) for scale in scales}


@pytest.mark.parametrize("encode", [tf.io.encode_png, tf.io.encode_jpeg])
@pytest.mark.parametrize(
    ("size", "offset", "target", "mirrored"),
    [
        ([60, 60], [20, 40], [90, 90], False),
        ([60, 60], [90, 120], [90, 90], True),
        ([150, 180], [0, 0], [75, 90], True),
        ([150, 120], [0, 31], [90, 72], False),
        ([90, 90], [7, 5], [90, 90], True),
        ([150, 180], [0, 0], [2, 2], False),
    ],
)
def test_a_crop_is_its_window_scaled_padded_mirrored(encode, size, offset, target, mirrored):
    """Compared with tf.image, on the whole decoded image."""
    label = tf.cast(tf.random.stateless_uniform([150, 180], [5, 6], 0, 21, tf.int32), tf.uint8)
    noise = tf.image.resize(tf.random.stateless_uniform([19, 23, 3], [3, 4], 0, 255), [150, 180], "bicubic")
    example = {
        "encoded": encode(tf.cast(noise % 256, tf.uint8)),
        "label": label,
        "size": tf.constant(size),
        "offset": tf.constant(offset),
        "target": tf.constant(target),
        "mirrored": tf.constant(mirrored),
    }
    found = augmentation.crop_image(example, 90, (122.675, 116.669, 104.008)), augmentation.crop_label(example, 90)

    (y, x), (height, width) = offset, size
    for result, whole, fill, method in (
        (found[0], decode_image(example["encoded"]), [123, 117, 104], "bilinear"),
        (found[1], label[..., None], [255], "nearest"),
    ):
        scaled = tf.image.resize(whole[y : y + height, x : x + width], target, method).numpy()
        expected = np.full((90, 90, len(fill)), fill, np.float32)
        expected[: target[0], : target[1]] = scaled
        expected = expected[:, ::-1] if mirrored else expected
        difference = np.abs(result.numpy().reshape(expected.shape) - expected)
        assert difference.max() <= (0.5 if method == "bilinear" else 0)


def test_a_crop_is_the_scaled_image_cropped():
    """Away from the window's border the result equals scaling the whole image first."""
    image = tf.cast(tf.random.stateless_uniform([90, 120, 3], [3, 4], 0, 256, tf.int32), tf.uint8)
    example = {
        "encoded": tf.io.encode_png(image),
        "label": image[..., 0],
        "offset": tf.constant([10, 20]),
        "size": tf.constant([40, 40]),
        "target": tf.constant([60, 60]),
        "mirrored": tf.constant(False),
    }
    crop, label = augmentation.crop_image(example, 60, (0, 0, 0)), augmentation.crop_label(example, 60)
    whole = tf.image.resize(image, [135, 180], "bilinear").numpy()[15:75, 30:90]
    assert np.abs(crop.numpy().astype(float) - whole)[1:-1, 1:-1].max() < 0.501  # rounding
    labels = tf.image.resize(image[..., :1], [135, 180], "nearest")[15:75, 30:90, 0]
    np.testing.assert_array_equal(label, labels)


@pytest.mark.parametrize("name", ["Brightness", "Contrast", "Color"])
def test_colours_change_as_pillow_changes_them(name):
    """One factor at a time; Pillow rounds in between."""
    image = photograph(33, 41)
    draws = np.full(3, 0.5, np.float32)
    draws[["Brightness", "Contrast", "Color"].index(name)] = 0.9  # a factor of 1.4 at strength 0.5
    found = augmentation.jitter_colors({"image": tf.constant(image)}, tf.constant(draws), 0.5)["image"].numpy()
    expected = np.asarray(getattr(ImageEnhance, name)(Image.fromarray(image)).enhance(1.4))
    assert np.abs(found.astype(int) - expected).max() <= 2 and np.abs(found.astype(int) - image).max() > 10


@pytest.mark.parametrize(("angle", "flip"), [(0.1, 0.9), (0.3, 0.9), (0.6, 0.2), (0.9, 0.2)])
def test_a_turned_crop_is_turned_with_its_label(angle, flip):
    image = photograph(9, 9)
    example = {"image": tf.constant(image), "label": tf.constant(image[..., 0])}
    found = augmentation.turn_crop(example, tf.constant([angle, flip]), True, True)
    expected = np.rot90(image, int(4 * angle))
    expected = expected[::-1] if flip < 0.5 else expected
    np.testing.assert_array_equal(found["image"], expected)
    np.testing.assert_array_equal(found["label"], expected[..., 0])


FURTHER = {"rotate_90": True, "vertical_flip": True, "color_jitter": 0.3}


@pytest.mark.slow
def test_turns_and_colours_leave_the_other_draws_and_resume(shapes_dir):
    plain, turned = stream(shapes_dir, 4, crop_size=65), stream(shapes_dir, 4, crop_size=65, **FURTHER)
    assert_same(stream(shapes_dir, 2, crop_size=65, start_step=2, **FURTHER), turned[2:])
    found = set()
    for step, other in zip(plain, turned, strict=True):
        for label, turned_label in zip(step["label"], other["label"], strict=True):  # The same window.
            turns = {(k, up): np.rot90(label[::up], k) for k in range(4) for up in (1, -1)}
            found.add(next(turn for turn, labels in turns.items() if np.array_equal(labels, turned_label)))
    assert len(found) > 4
    for step, other in zip(plain, stream(shapes_dir, 4, crop_size=65, color_jitter=0.3), strict=True):
        np.testing.assert_array_equal(step["label"], other["label"])
        assert np.abs(step["image"].astype(int) - other["image"]).max() > 10


def test_evaluation_yields_every_example_once_as_it_is(numbered):
    examples = list(data.evaluation_pipeline(numbered, "train").as_numpy_iterator())
    assert [example["filename"] for example in examples] == [f"{n}.png".encode() for n in range(10)]
    for n, example in enumerate(examples):
        np.testing.assert_array_equal(example["image"], np.full((12 + n, 20, 3), n, np.uint8))
        np.testing.assert_array_equal(example["label"], np.full((12 + n, 20), n, np.uint8))
    assert len(list(data.evaluation_pipeline(numbered, "train", limit=3))) == 3


def test_several_splits_read_as_one(shapes_dir):
    count = sum(1 for _ in data.evaluation_pipeline(shapes_dir, "train+val"))
    assert count == 500


def test_tensorflow_datasets_reads_the_same_examples(shapes_dir):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(shapes_dir)
    assert builder.info.splits["val"].num_examples == 100
    first = next(iter(builder.as_dataset("val")))["image"]
    ours = next(iter(data.evaluation_pipeline(shapes_dir, "val")))
    assert first["filename"] == ours["filename"]
    np.testing.assert_array_equal(tf.io.decode_png(first["segmentation"]["class"]["encoded"])[..., 0], ours["label"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: data.training_pipeline(d, "test", batch_size=1), "no split 'test'; it has train"),
        (lambda d: data.training_pipeline(d / "none", "train", batch_size=1), "no TFRecord files"),
        (lambda d: data.training_pipeline(d, "train", batch_size=3, num_shards=2), "batch_size 3 must be a multiple"),
        (lambda d: data.training_pipeline(d, "train", batch_size=1, scales=()), "scales must be positive"),
    ],
)
def test_mistakes_are_named(numbered, call, message):
    with pytest.raises(UserError, match=message):
        call(numbered)


def test_a_changed_byte_is_noticed(numbered, tmp_path):
    content = bytearray((numbered / "train-00001-of-00002.tfrecord").read_bytes())
    content[100] ^= 1
    (tmp_path / "train-00000-of-00001.tfrecord").write_bytes(content)
    with pytest.raises(tf.errors.DataLossError, match="corrupted record"):
        list(data.evaluation_pipeline(tmp_path, "train"))


@pytest.mark.slow
def test_a_process_with_a_stream_ends(shapes_dir):
    """Endless streams that are still being prefetched must not keep the interpreter from exiting."""
    code = "import sys; from deeplab_tf import data; " + "; ".join(
        f"i{n} = iter(data.training_pipeline(sys.argv[1], 'train', batch_size=8)); next(i{n})" for n in range(3)
    )
    subprocess.run([sys.executable, "-c", code, shapes_dir], check=True, timeout=120)


def test_nobody_waits_for_a_stream_that_is_dropped(numbered):
    """The thread that would tune it sleeps for up to a minute, and is waited for."""

    def batches(host=0, hosts=1):
        return data.training_pipeline(numbered, "train", batch_size=4, crop_size=17, num_shards=hosts, shard_index=host)

    on_a_cpu = distributed(batches, 4, tf.distribute.OneDeviceStrategy("/cpu:0"))
    assert isinstance(iter(on_a_cpu), tf.data.Iterator)
    for stream_of in (
        on_a_cpu,
        batches(),
        data.evaluation_pipeline(numbered, "train"),
        label_pipeline(numbered, "train"),
    ):
        assert stream_of.options().autotune.enabled is False


def test_a_cut_short_or_missing_file_is_named(numbered, tmp_path):
    whole = (numbered / "train-00000-of-00002.tfrecord").read_bytes()
    (tmp_path / "train-00000-of-00002.tfrecord").write_bytes(whole[:-7])
    with pytest.raises(UserError, match="number 1 is missing"):
        data.evaluation_pipeline(tmp_path, "train")
    (tmp_path / "train-00001-of-00002.tfrecord").write_bytes(whole)
    with pytest.raises(UserError, match="train-00000-of-00002.tfrecord: not a whole"):
        data.evaluation_pipeline(tmp_path, "train")


def test_an_empty_split_is_one_line(tmp_path):
    (tmp_path / "train-00000-of-00001.tfrecord").write_bytes(b"")
    with pytest.raises(UserError, match="split 'train' has no examples"):
        data.training_pipeline(tmp_path, "train", batch_size=2)
    assert list(data.evaluation_pipeline(tmp_path, "train")) == []


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train[3:]", [3, 4, 5, 6, 7, 8, 9]),
        ("train[:3]", [0, 1, 2]),
        ("train[-4:8]", [6, 7]),
        ("train[8:]+train[:9]", [8, 9, 0, 1, 2, 3, 4, 5, 6, 7]),
        ("train[20:]", []),
    ],
)
def test_slices_of_a_split(numbered, split, expected):
    names = [example["filename"].decode() for example in data.evaluation_pipeline(numbered, split).as_numpy_iterator()]
    assert names == [f"{number}.png" for number in expected]
    assert data.split_size(numbered, split) == len(expected)


@pytest.mark.parametrize("split", ["train[3]", "train[a:]", "train[1:2", "[1:]", ""])
def test_what_is_not_a_slice_is_refused(numbered, split):
    with pytest.raises(UserError, match="expected a name such as train, train"):
        data.split_size(numbered, split)


def test_training_sees_its_slice_alone(numbered):
    directory = numbered
    options = {"batch_size": 4, "crop_size": 17, "scales": (1,), "mirror": False}
    batches = data.training_pipeline(directory, "train[2:5]", **options).take(6).as_numpy_iterator()
    assert {int(label) for batch in batches for label in np.unique(batch["label"])} == {2, 3, 4, 255}
