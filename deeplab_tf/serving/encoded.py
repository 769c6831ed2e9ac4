"""Encoded images in a graph: what a file says of its size and its orientation, before and after it is decoded.

The graph must go on whatever it is sent: what is no image, or is larger than the limit, is refused by an error that
says so, from the first bytes of the file and before any memory is taken for its pixels.
"""

import tensorflow as tf

from deeplab_tf.data.decoding import decode_image

# An EXIF segment comes before the pixels, and after few others: bytes of a JPEG that are searched for it.
_SEARCHED_FOR_EXIF = 1 << 18
_ORIENTATION = 0x0112  # the EXIF tag
_HEADER = 32  # bytes, enough for the size in a PNG, GIF, BMP or WebP


def decode_upright(encoded: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Decodes one image file as the input pipeline does, and turns it upright as its EXIF orientation says.

    Grey, palette, CMYK and 16-bit images become RGB of 8 bits; transparency is left out; of an animation, the first
    frame is taken.

    Args:
        encoded: scalar string, a JPEG, PNG, GIF, BMP or WebP file.
        max_pixels: larger images are refused.

    Returns:
        uint8 [H, W, 3].

    Raises:
        tf.errors.InvalidArgumentError: when run: it is no such file, damaged, or too large.
    """
    is_jpeg = tf.strings.substr(encoded, 0, 3) == b"\xff\xd8\xff"
    height, width = tf.cond(is_jpeg, lambda: _jpeg_size(encoded), lambda: _size_in_header(encoded))
    with tf.control_dependencies([check_size(height, width, max_pixels)]):
        encoded = tf.identity(encoded)
    image = decode_image(encoded)
    orientation = tf.cond(is_jpeg, lambda: exif_orientation(encoded), lambda: tf.constant(1, tf.int64))
    return turned_upright(image, orientation)


def check_size(height: tf.Tensor, width: tf.Tensor, max_pixels: int) -> tf.Operation:
    """The operation that refuses images of no pixels, or more than `max_pixels`."""
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    message = f"expected an image of at least one and at most {max_pixels} pixels (--max_pixels of the export); found"
    return tf.debugging.Assert((pixels > 0) & (pixels <= max_pixels), [message, height, "x", width])


def _jpeg_size(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    shape = tf.cast(tf.image.extract_jpeg_shape(encoded), tf.int64)
    return shape[0], shape[1]


def _size_in_header(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width, int64, as the first bytes of a PNG, GIF, BMP or WebP give them."""
    header = tf.strings.substr(encoded, 0, _HEADER) + b"\0" * _HEADER
    values = tf.cast(tf.io.decode_raw(tf.strings.substr(header, 0, _HEADER), tf.uint8), tf.int64)

    def starts(signature: bytes, at: int = 0) -> tf.Tensor:
        return tf.strings.substr(header, at, len(signature)) == signature

    def number(at: int, count: int) -> tf.Tensor:  # little-endian
        return tf.add_n([values[at + i] * (1 << 8 * i) for i in range(count)])

    def big_endian(at: int) -> tf.Tensor:
        return tf.add_n([values[at + i] * (1 << 8 * (3 - i)) for i in range(4)])

    def signed(value: tf.Tensor) -> tf.Tensor:
        return tf.where(value >= 1 << 31, value - (1 << 32), value)

    is_webp = starts(b"RIFF") & starts(b"WEBP", 8)
    kinds = [
        (starts(b"\x89PNG\r\n\x1a\n"), big_endian(20), big_endian(16)),
        (starts(b"GIF8"), number(8, 2), number(6, 2)),
        (starts(b"BM"), tf.abs(signed(number(22, 4))), number(18, 4)),  # a negative height: rows from the top
        (is_webp & starts(b"VP8 ", 12), number(28, 2) % (1 << 14), number(26, 2) % (1 << 14)),
        (is_webp & starts(b"VP8L", 12), number(21, 4) // (1 << 14) % (1 << 14) + 1, number(21, 4) % (1 << 14) + 1),
        (is_webp & starts(b"VP8X", 12), number(27, 3) + 1, number(24, 3) + 1),
    ]
    is_image = tf.reduce_any([is_kind for is_kind, _, _ in kinds])
    message = "expected the bytes of a JPEG, PNG, GIF, BMP or WebP file; found other bytes, of which there are"
    with tf.control_dependencies([tf.debugging.Assert(is_image, [message, tf.strings.length(encoded)])]):
        none = tf.constant(0, tf.int64)
        height = tf.add_n([tf.where(is_kind, height, none) for is_kind, height, _ in kinds])
        width = tf.add_n([tf.where(is_kind, width, none) for is_kind, _, width in kinds])
    return height, width


def exif_orientation(jpeg: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG file: int64, 1 to 8; 1, upright, where it has none or a damaged one."""
    values = tf.cast(tf.io.decode_raw(tf.strings.substr(jpeg, 0, _SEARCHED_FOR_EXIF), tf.uint8), tf.int64)
    size = tf.size(values, tf.int64)

    def byte(at: tf.Tensor) -> tf.Tensor:  # 0 beyond the end
        return tf.where(at < size, tf.gather(values, tf.clip_by_value(at, 0, size - 1)), 0)

    def is_exif(segment: tf.Tensor) -> tf.Tensor:
        return tf.reduce_all(byte(segment + tf.constant([1, *range(4, 10)], tf.int64)) == [0xE1, *b"Exif\0\0"])

    def is_another(segment: tf.Tensor) -> tf.Tensor:
        is_segment = (byte(segment) == 0xFF) & (byte(segment + 1) != 0xDA)  # DA: the pixels begin
        return is_segment & tf.logical_not(is_exif(segment))

    def next_segment(segment: tf.Tensor) -> tuple[tf.Tensor]:
        return (segment + 2 + tf.maximum(256 * byte(segment + 2) + byte(segment + 3), 2),)

    (segment,) = tf.while_loop(is_another, next_segment, (tf.constant(2, tf.int64),))
    start = segment + 10  # of the TIFF header; offsets count from here
    little = byte(start) == ord("I")

    def number(at: tf.Tensor, count: int) -> tf.Tensor:
        values = [byte(at + i) for i in range(count)]
        low_first = tf.add_n([value * (1 << 8 * i) for i, value in enumerate(values)])
        high_first = tf.add_n([value * (1 << 8 * i) for i, value in enumerate(reversed(values))])
        return tf.where(little, low_first, high_first)

    directory = start + number(start + 4, 4)
    entries = directory + 2 + 12 * tf.range(number(directory, 2))
    is_orientation = (number(entries, 2) == _ORIENTATION) & (entries < size)
    found = tf.reduce_max(tf.concat([tf.where(is_orientation, number(entries + 8, 2), 0), [0]], axis=0))
    return tf.where(is_exif(segment) & (found >= 1) & (found <= 8), found, 1)


def turned_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors an image [H, W, 3] as its EXIF orientation says."""

    def is_one_of(*orientations: int) -> tf.Tensor:
        return tf.reduce_any(orientation == tf.constant(orientations, tf.int64))

    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    image = tf.cond(is_one_of(3, 4, 7, 8), lambda: image[::-1], lambda: image)
    image = tf.cond(is_one_of(2, 3, 6, 7), lambda: image[:, ::-1], lambda: image)
    return tf.ensure_shape(image, [None, None, 3])
