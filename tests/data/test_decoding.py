"""Image files of all kinds in the graph of training and serving: the pixels that the host reads, exactly."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab_tf.data.decoding import decode_image
from deeplab_tf.pictures import read_photograph
from tests.pictures import DECODABLE, encoded, photograph

decode = tf.function(decode_image, input_signature=[tf.TensorSpec([], tf.string)])


@pytest.mark.parametrize("kind", DECODABLE)
def test_every_kind_is_decoded_as_on_the_host(kind):
    np.testing.assert_array_equal(decode(DECODABLE[kind]), read_photograph(DECODABLE[kind]))


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpegs_of_noise_are_decoded_as_on_the_host(quality, subsampling):
    noise = np.random.default_rng(quality).integers(0, 256, (131, 97, 3)).astype(np.uint8)
    file = encoded(Image.fromarray(noise), "JPEG", quality=quality, subsampling=subsampling)
    np.testing.assert_array_equal(decode(file), read_photograph(file))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (encoded(photograph().convert("1"), "BMP"), "expected a BMP of 8, 24 or 32 bits"),
        (b"BM", "expected a BMP of 8, 24 or 32 bits"),
        (DECODABLE["bmp palette"][:200], "Input size should match"),
        (DECODABLE["jpeg"][:300], "JPEG"),
        (b"RIFF....WEBP", "WEBP|WebP|webp|image"),
        (b"", "Input is empty"),
    ],
)
def test_what_cannot_be_decoded_is_an_error(file, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decode(file)
