"""Encoded photographs in a graph: the same pixels as `pictures.read_photograph` reads, but for the EXIF orientation.

Prepared data are upright already; `serving` turns what it is sent.
"""

import tensorflow as tf

# TensorFlow's default is a faster cosine transform that is off by up to 19 of 255; this one gives Pillow's pixels.
DCT_METHOD = "INTEGER_ACCURATE"

# Decorates functions of an encoded image: they are traced once in a process, not in every pipeline and every export.
of_encoded = tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


@of_encoded
def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG, PNG or BMP, or the first frame of a GIF or WebP.

    Grey, palette and CMYK images become RGB, 16 bits a channel their higher 8; transparency is left out.

    Args:
        encoded: scalar string, the content of the file.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        tf.errors.InvalidArgumentError: when run: it is not such a file, or damaged.
    """
    start = tf.strings.substr(encoded, 0, 12) + b"\0" * 12
    is_bmp = tf.strings.substr(start, 0, 2) == b"BM"
    is_webp = tf.strings.substr(start, 8, 4) == b"WEBP"
    image = tf.case(
        [
            (tf.io.is_jpeg(encoded), lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method=DCT_METHOD)),
            (is_bmp, lambda: _decode_bmp(encoded)),
            (is_webp, lambda: _decode_webp(encoded)),
        ],
        default=lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def _decode_webp(encoded: tf.Tensor) -> tf.Tensor:
    """TensorFlow refuses 3 channels of one with transparency, and left to choose, crashes at an animation without it.

    (It writes four channels to the memory of three.) So an animation is said to be transparent, and asked for four.
    """
    header = tf.strings.substr(encoded, 0, 21) + b"\0" * 21
    flags = tf.cast(tf.io.decode_raw(tf.strings.substr(header, 20, 1), tf.uint8)[0], tf.int32)
    is_animation = (tf.strings.substr(header, 12, 4) == b"VP8X") & (flags & 2 > 0)

    def decode_animation():
        with_transparency = tf.constant([bytes([value | 16]) for value in range(256)])[flags]
        rest = tf.strings.substr(encoded, 21, tf.strings.length(encoded))
        again = tf.strings.join([tf.strings.substr(encoded, 0, 20), with_transparency, rest])
        return tf.io.decode_image(again, channels=4, expand_animations=False)

    return tf.cond(
        is_animation,
        decode_animation,
        lambda: tf.io.decode_image(encoded, channels=0, expand_animations=False),
    )[..., :3]


def _decode_bmp(encoded: tf.Tensor) -> tf.Tensor:
    """TensorFlow takes the indices of a palette for greys, and compressed pixels for plain ones."""
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(encoded, 0, 54) + b"\0" * 54, tf.uint8)[:54], tf.int32)
    bits, compression = header[28] + 256 * header[29], header[30]
    plain = (compression == 0) | (compression == 3)  # 3: masks say where the channels are; written for 32 bits
    message = "expected a BMP of 8, 24 or 32 bits a pixel, not compressed; found bits and kind of compression"
    with tf.control_dependencies([tf.debugging.Assert(plain & (bits >= 8), [message, bits, compression])]):
        encoded = tf.identity(encoded)

    def decode_palette():
        pixels_at = header[10] + 256 * header[11] + 65536 * header[12]
        palette_at = 14 + header[14] + 256 * header[15]
        # Within the file: TensorFlow's error for a place beyond it has bytes of the file in it, which are not text.
        palette_at = tf.minimum(palette_at, tf.strings.length(encoded))
        palette_bytes = tf.maximum(pixels_at - palette_at, 0)
        colors = tf.io.decode_raw(tf.strings.substr(encoded, palette_at, palette_bytes), tf.uint8)
        colors = tf.reshape(colors[: tf.size(colors) // 4 * 4], [-1, 4])
        colors = tf.gather(colors, [2, 1, 0], axis=1)  # stored as blue, green, red, 0
        return tf.gather(colors, tf.cast(tf.io.decode_bmp(encoded, channels=0)[..., 0], tf.int32))

    return tf.cond(
        bits == 8,
        decode_palette,
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
