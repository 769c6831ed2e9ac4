"""The Model Garden reads our TFRecords. (The other way round: tests/data/test_pipeline.py.)"""

import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf import data
from deeplab_tf.data.decoding import decode_image
from deeplab_tf.data.records import record_files


@pytest.fixture(scope="module")
def segmentation_input():
    return pytest.importorskip("official.vision.dataloaders.segmentation_input")


def serialized(directory, split):
    return tf.data.TFRecordDataset(record_files(directory)[split])


@pytest.mark.slow
def test_the_decoder_of_the_model_garden_reads_our_records(segmentation_input, shapes_dir):
    decode = segmentation_input.Decoder().decode
    ours = data.evaluation_pipeline(shapes_dir, "val", limit=5).as_numpy_iterator()
    for record, example in zip(serialized(shapes_dir, "val"), ours, strict=False):
        decoded = decode(record)
        np.testing.assert_array_equal(decode_image(decoded["image/encoded"]), example["image"])
        mask = tf.io.decode_image(decoded["image/segmentation/class/encoded"], 1)[..., 0]
        np.testing.assert_array_equal(mask, example["label"])
        assert (decoded["image/height"], decoded["image/width"]) == example["label"].shape


@pytest.mark.parametrize("training", [True, False])
def test_the_parser_of_the_model_garden_reads_our_records(segmentation_input, shapes_dir, training):
    parser = segmentation_input.Parser([160, 160], aug_rand_hflip=False)
    parse = parser.parse_fn(training)
    decode = segmentation_input.Decoder().decode
    for record in serialized(shapes_dir, "train").take(3):
        image, labels = parse(decode(record))
        assert image.shape == (160, 160, 3)
        masks = np.unique(labels["masks"])
        assert set(masks.astype(int)) <= {*range(8), 255} and len(masks) > 1
