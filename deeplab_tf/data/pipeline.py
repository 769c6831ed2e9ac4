"""The input pipelines: prepared TFRecords in, tensors for training and evaluation out.

Everything random is a function of the seed and of the position in the stream of training examples (step * batch_size +
place in the batch): the order of each epoch, and what each crop is made by. So a run repeats exactly, a
run that resumes at a step sees what it would have seen, and many hosts see together what one would have seen.
"""

import os
from collections.abc import Callable

import tensorflow as tf

from deeplab_tf.classes import IGNORE_LABEL
from deeplab_tf.data import augmentation
from deeplab_tf.data.decoding import decode_image
from deeplab_tf.data.records import Records
from deeplab_tf.data.splits import open_split, parse_record
from deeplab_tf.data.train_masks import TrainMasks
from deeplab_tf.errors import UserError
from deeplab_tf.parallel import available_cores

MEAN_COLOR = (122.675, 116.669, 104.008)  # RGB, of the Caffe models

# Added to the seed for what is drawn on request, so that the other draws stay those of the seed; beyond all seeds.
_FURTHER_DRAWS = 2**32


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
    masks: TrainMasks | None = None,
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
        masks: replace the split's own (`prepare_train_masks`).

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
    records, replaced = _with_masks(open_split(directory, split), masks)
    if not len(records):
        raise UserError(f"{directory}: split {split!r} has no examples; expected some to train on")
    share = batch_size // num_shards

    def is_ours(position, number):
        return position % batch_size // share == shard_index

    def example_at(position, record, *mask):
        example = parse_record(record, *mask)
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
    numbers = order.map(lambda _, number: number)
    contents = [source.read(numbers) for source in (records, *replaced)]
    elements = tf.data.Dataset.zip(order.map(lambda position, _: position), *contents)
    return _stream(elements, example_at, batch_size=share)


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
    records = open_split(directory, split)
    count = len(records) if limit is None else min(limit, len(records))

    def example_at(record):
        read = parse_record(record)
        image = decode_image(read["encoded"])
        label = tf.cond(
            read["mask"] == "",
            lambda: tf.fill(tf.shape(image)[:2], tf.constant(IGNORE_LABEL, tf.uint8)),
            lambda: tf.io.decode_png(read["mask"], channels=1)[..., 0],
        )
        return {"image": image, "label": label, "filename": read["filename"]}

    return _stream(records.read(tf.data.Dataset.range(shard_index, count, num_shards)), example_at)


def label_pipeline(directory: str | os.PathLike, split: str, masks: TrainMasks | None = None) -> tf.data.Dataset:
    """One pass over the labels of a split, without decoding the images: uint8 [H, W] each, in the records' order.

    Args:
        directory: a prepared data set (`prepared_directory`).
        split: a split of it, a slice of one, or several joined by "+".
        masks: replace the split's own (`prepare_train_masks`).

    Raises:
        UserError: the directory or the split is missing or damaged.
    """
    records, replaced = _with_masks(open_split(directory, split), masks)

    def label_at(record, *mask):
        read = parse_record(record, *mask)
        return tf.cond(
            read["mask"] == "",
            lambda: tf.fill(tf.stack([read["height"], read["width"]]), tf.constant(IGNORE_LABEL, tf.uint8)),
            lambda: tf.io.decode_png(read["mask"], channels=1)[..., 0],
        )

    numbers = tf.data.Dataset.range(len(records))
    return _stream(tf.data.Dataset.zip(*(source.read(numbers) for source in (records, *replaced))), label_at)


def _with_masks(records: Records, masks: TrainMasks | None) -> tuple[Records, list[Records]]:
    """The examples to read, and the records of the masks that replace theirs, if there are any."""
    return (records, []) if masks is None else (records.chosen(masks.numbers), [Records([masks.records])])


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


def _stream(elements: tf.data.Dataset, function: Callable, batch_size: int | None = None) -> tf.data.Dataset:
    """`function` of each element, on all cores, in the order of the elements; if asked, in whole batches of them."""
    dataset = elements.map(tf.autograph.experimental.do_not_convert(function), num_parallel_calls=available_cores())
    if batch_size is not None:
        dataset = dataset.batch(batch_size, drop_remainder=True)
    options = tf.data.Options()
    # Hosts already read their own examples; and the stream is the same whatever the number of threads.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    options.deterministic = True
    # Its thread sleeps for up to a minute, and dropping the iterator waits for it with Python's lock held.
    options.autotune.enabled = False
    return dataset.with_options(options).prefetch(2)
