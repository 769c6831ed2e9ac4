"""The input pipelines: prepared TFRecords in, tensors for training and evaluation out.

Everything random is a function of the seed and of the position in the stream of training examples (step * batch_size +
place in the batch): the order of each epoch, and what each crop is made by. So a run repeats exactly, a
run that resumes at a step sees what it would have seen, and many hosts see together what one would have seen.
"""

import os
import pathlib
import re

import numpy as np
import tensorflow as tf

from deeplab_tf.classes import IGNORE_LABEL
from deeplab_tf.data import augmentation, catalogue
from deeplab_tf.data.decoding import decode_image
from deeplab_tf.data.records import Records, record_files
from deeplab_tf.errors import UserError

MEAN_COLOR = (122.675, 116.669, 104.008)  # RGB, of the Caffe models

# A part of a split: "train", "train[60:]" or "<data set>:train".
_PART = re.compile(r"(?:(?P<dataset>[^:\[\]]+):)?(?P<name>[^:\[\]]+)(?:\[(?P<first>-?\d*):(?P<end>-?\d*)\])?")
# Added to the seed for what is drawn on request, so that the other draws stay those of the seed; beyond all seeds.
_FURTHER_DRAWS = 2**32
_ENCODED, _FILENAME, _MASK = "image/encoded", "image/filename", "image/segmentation/class/encoded"
_FEATURES = {key: tf.io.FixedLenFeature([], tf.string, default_value="") for key in (_ENCODED, _FILENAME, _MASK)}
_FEATURES |= {f"image/{key}": tf.io.FixedLenFeature([], tf.int64, default_value=0) for key in ("height", "width")}


def training_pipeline(
    directory: str | os.PathLike,
    split: str,
    *,
    batch_size: int,
    crop_size: int = 321,
    scales: tuple[float, ...] = (0.5, 1.5),
    mirror: bool = True,
    rotate_90: bool = False,
    vertical_flip: bool = False,
    color_jitter: float = 0.0,
    seed: int = 0,
    start_step: int = 0,
    mean_color: tuple[float, float, float] = MEAN_COLOR,
    num_shards: int = 1,
    shard_index: int = 0,
) -> tf.data.Dataset:
    """Endless batches of randomly scaled, cropped and mirrored examples.

    Args:
        directory: a prepared data set (`prepared_directory`), or any directory of TFRecords with these features.
        split: a split of it, a slice of one, or several joined by "+": "train", "train[60:]", "train+val".
        batch_size: examples of one step, over all hosts.
        crop_size: side of the crops, pixels.
        scales: two numbers: the random scale is uniform between them; any other number of them: it is one of these.
        mirror: whether half of the crops are mirrored.
        rotate_90: whether crops are turned by 0, 90, 180 or 270 degrees.
        vertical_flip: whether half of the crops are flipped upside down.
        color_jitter: most by which brightness, contrast and saturation change, in [0, 1].
        seed: of everything random.
        start_step: the stream starts at this step, as if it had run up to it. Costs nothing.
        mean_color: RGB, rounded to whole numbers: fills crops that stand out of the image; their labels are 255 there.
        num_shards: number of hosts that share each batch; must divide `batch_size`.
        shard_index: which of them this is. Host h gets places [h*b, (h+1)*b) of each batch, b = batch_size/num_shards.

    Returns:
        an infinite dataset of {"image": uint8 [b, crop_size, crop_size, 3] RGB, "label": uint8 [b, crop_size,
        crop_size]}. Scaled colours are rounded to whole numbers.

    Raises:
        UserError: the directory or the split is missing or damaged, or an argument is out of range.
    """
    if batch_size % num_shards or not 0 <= shard_index < num_shards:
        raise UserError(
            f"batch_size {batch_size} must be a multiple of the number of hosts, {num_shards}, and the host's number "
            f"{shard_index} below it"
        )
    if not scales or min(scales) <= 0:
        raise UserError(f"scales must be positive numbers, got {scales}")
    records = _open(directory, split)
    if not len(records):
        raise UserError(f"{directory}: split {split!r} has no examples; expected some to train on")
    share = batch_size // num_shards

    def is_ours(position, number):
        return position % batch_size // share == shard_index

    def example_at(position, record):
        example = _parsed(record)
        example["label"] = tf.io.decode_png(example["mask"], channels=1)[..., 0]
        draws = tf.random.stateless_uniform([4], tf.stack([tf.constant(seed, tf.int64), position]))
        example = augmentation.draw_window(example, draws, crop_size, tuple(scales), mirror)
        crop = {
            "image": augmentation.crop_image(example, crop_size, mean_color),
            "label": augmentation.crop_label(example, crop_size),
        }
        if color_jitter or rotate_90 or vertical_flip:
            key = tf.stack([tf.constant(_FURTHER_DRAWS + seed, tf.int64), position])
            further = tf.random.stateless_uniform([5], key)
            crop = augmentation.jitter_colors(crop, further[:3], color_jitter) if color_jitter else crop
            crop = augmentation.turn_crop(crop, further[3:], rotate_90, vertical_flip)
        return crop

    order = _shuffled(len(records), seed, start_step * batch_size).filter(is_ours)
    dataset = tf.data.Dataset.zip(order.map(lambda position, _: position), records.read(order.map(lambda _, n: n)))
    dataset = dataset.map(example_at, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(share, drop_remainder=True).with_options(_options()).prefetch(2)


def evaluation_pipeline(
    directory: str | os.PathLike,
    split: str,
    limit: int | None = None,
    *,
    num_shards: int = 1,
    shard_index: int = 0,
) -> tf.data.Dataset:
    """One pass over a split, at the images' own sizes, in the order of the records.

    Args:
        directory: a prepared data set (`prepared_directory`), or any directory of TFRecords with these features.
        split: a split of it, a slice of one, or several joined by "+".
        limit: only the first so many examples.
        num_shards: number of hosts that share the examples; each reads its own alone.
        shard_index: which of them this is: it gets every `num_shards`-th example, from this one on.

    Returns:
        a dataset of {"image": uint8 [H, W, 3] RGB, "label": uint8 [H, W], "filename": string}. A split without masks
        has labels of 255 everywhere.

    Raises:
        UserError: the directory or the split is missing or damaged.
    """
    records = _open(directory, split)
    count = len(records) if limit is None else min(limit, len(records))

    def example_at(record):
        read = _parsed(record)
        image = decode_image(read["encoded"])
        label = tf.cond(
            read["mask"] == "",
            lambda: tf.fill(tf.shape(image)[:2], tf.constant(IGNORE_LABEL, tf.uint8)),
            lambda: tf.io.decode_png(read["mask"], channels=1)[..., 0],
        )
        return {"image": image, "label": label, "filename": read["filename"]}

    dataset = records.read(tf.data.Dataset.range(shard_index, count, num_shards))
    dataset = dataset.map(example_at, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.with_options(_options()).prefetch(2)


def label_pipeline(directory: str | os.PathLike, split: str) -> tf.data.Dataset:
    """One pass over the labels of a split, without decoding the images: uint8 [H, W] each, in the records' order.

    Args:
        directory: a prepared data set (`prepared_directory`).
        split: a split of it, a slice of one, or several joined by "+".

    Raises:
        UserError: the directory or the split is missing or damaged.
    """
    records = _open(directory, split)

    def label_at(record):
        read = _parsed(record)
        return tf.cond(
            read["mask"] == "",
            lambda: tf.fill(tf.stack([read["height"], read["width"]]), tf.constant(IGNORE_LABEL, tf.uint8)),
            lambda: tf.io.decode_png(read["mask"], channels=1)[..., 0],
        )

    dataset = records.read(tf.data.Dataset.range(len(records)))
    dataset = dataset.map(label_at, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.with_options(_options()).prefetch(2)


def split_size(directory: str | os.PathLike, split: str) -> int:
    """Number of examples of a split, as the pipelines read it.

    Raises:
        UserError: the directory or the split is missing or damaged.
    """
    return len(_open(directory, split))


def _open(directory: str | os.PathLike, split: str) -> Records:
    """The records of a split, or of several joined by "+", each record once.

    A part may be a slice, "train[60:]", as TFDS writes it: of the numbers of its records, whose order was drawn when
    the data set was prepared and is the same on every machine. "<data set>:<split>" is of another data set beside this
    one: "train+cityscapes/coarse:train_extra" has fine and coarse annotations in one training (Sec. 4.4).
    """
    parts = [_part(directory, part) for part in split.split("+")]
    records = Records(list(dict.fromkeys(path for paths, _ in parts for path in paths)))
    numbers = np.concatenate([records.numbers_of(paths)[window] for paths, window in parts])
    return records.chosen(list(dict.fromkeys(numbers.tolist())))


def _part(directory: str | os.PathLike, part: str) -> tuple[list[str], slice]:
    """The record files of one part of a split, and which of their records are meant."""
    match = _PART.fullmatch(part)
    if not match:
        raise UserError(f"split {part!r}: expected a name such as train, train[60:], train[:60] or <data set>:train")
    first, end = (int(match[name]) if match[name] else None for name in ("first", "end"))
    if match["dataset"]:
        directory = _beside(directory, match["dataset"])
    return _split_files(directory, match["name"]), slice(first, end)


def _split_files(directory: str | os.PathLike, split: str) -> list[str]:
    """The record files of a split, or of one that stands for several."""
    files = record_files(directory)
    metadata_file = os.path.join(directory, "metadata.json")
    unions = catalogue.read_metadata(directory)["unions"] if os.path.exists(metadata_file) else {}
    unions = {name: parts for name, parts in unions.items() if all(part in files for part in parts)}
    parts = unions.get(split, [split])
    missing = [part for part in parts if part not in files]
    if missing:
        raise UserError(f"{directory}: no split {missing[0]!r}; it has {', '.join([*files, *unions])}")
    return [path for part in parts for path in files[part]]


def _beside(directory: str | os.PathLike, dataset: str) -> str:
    """The directory of another data set that is prepared in the same data_dir, with the same classes."""
    own = catalogue.read_info(directory)
    data_dir = pathlib.Path(directory).parents[own.name.count("/") + 1]
    other = catalogue.prepared_directory(dataset, data_dir)
    if catalogue.read_info(other).class_names != own.class_names:
        raise UserError(
            f"split {dataset}:...: the classes of {dataset!r} are not those of {own.name!r}, so they cannot be joined"
        )
    return other


def _parsed(record: tf.Tensor) -> dict:
    """The contents of a record: "encoded" (the image), "mask", "filename", "height", "width"."""
    parsed = tf.io.parse_single_example(record, _FEATURES)
    return {
        "encoded": parsed[_ENCODED],
        "mask": parsed[_MASK],
        "filename": parsed[_FILENAME],
        "height": parsed["image/height"],
        "width": parsed["image/width"],
    }


def _shuffled(count: int, seed: int, start: int) -> tf.data.Dataset:
    """From position `start` of the endless stream on: the position and the number of its record, int64 both.

    Every epoch is a new permutation of all records.
    """

    def epoch_order(epoch):
        numbers = tf.range(count, dtype=tf.int64)
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        order = tf.random.experimental.stateless_shuffle(numbers, key, alg="philox")
        return tf.data.Dataset.from_tensor_slices((epoch * count + numbers, order))

    return tf.data.Dataset.counter(start // count).flat_map(epoch_order).skip(start % count)


def _options() -> tf.data.Options:
    options = tf.data.Options()
    # Hosts already read their own examples; and the stream is the same whatever the number of threads.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    options.deterministic = True
    return options
