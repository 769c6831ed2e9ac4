"""Encoded images in a graph: what a file says of its size and its orientation, before and after it is decoded.

The graph must go on whatever it is sent: what is not an image, or is larger than the limit, is refused by an error that
says so, from a look at the file and before any memory is taken for its pixels. `decode_upright` raises it,
`decode_or_explain` returns it.
"""

from collections.abc import Callable

import tensorflow as tf

from deeplab_tf.data.decoding import decode_image, of_encoded
from deeplab_tf.pictures import MOST_SCANS

# EXIF data come after few other segments of a file. More than so many are not searched: each takes some microseconds.
_MOST_SEGMENTS = 64
_MOST_GIF_BLOCKS = 1024
_GIF_EXTENSION, _GIF_FRAME = 0x21, 0x2C
_MOST_ENTRIES = 256  # of the first EXIF directory that are searched
_ORIENTATION = 0x0112  # the EXIF tag
_HEADER = 32  # bytes, enough for the size in a PNG, GIF, BMP or WebP
_EXPECTED_BYTES = "expected the bytes of a JPEG, PNG, GIF, BMP or WebP file; found other bytes, of which there are"


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
        tf.errors.InvalidArgumentError: when run: it is not such a file, is damaged, or too large.
    """
    with tf.control_dependencies([check_size(*_size(encoded), max_pixels), _check_scans(encoded)]):
        encoded = tf.identity(encoded)
    image = decode_image(encoded)
    return turned_upright(image, exif_orientation(encoded))


def upright_size(encoded: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Height and width of the image that `decode_upright` would return, int64 [2], without decoding it.

    Of a GIF whose first frame and header differ, the larger of each.

    Raises:
        tf.errors.InvalidArgumentError: when run: it is no such file, or too large.
    """
    height, width = _size(encoded)
    with tf.control_dependencies([check_size(height, width, max_pixels)]):
        return tf.where(exif_orientation(encoded) >= 5, tf.stack([width, height]), tf.stack([height, width]))


def decode_or_explain(encoded: tf.Tensor, max_pixels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes as `decode_upright`, but never fails: a bad image does not take the others of its batch with it.

    Args:
        encoded: scalar string, whatever was sent.
        max_pixels: larger images are refused.

    Returns:
        the image, uint8 [H, W, 3], and "", a scalar string; or an empty image, and one line that says what is wrong.
    """
    size = _attempt(lambda file: tf.stack(_size(file)), encoded, tf.fill([2], tf.constant(-1, tf.int64)))
    image = _attempt(lambda file: decode_upright(file, max_pixels), encoded, tf.zeros([0, 0, 3], tf.uint8))
    image = tf.ensure_shape(image, [None, None, 3])
    number = tf.strings.as_string
    length = number(tf.strings.length(encoded))
    size_found = tf.strings.join([number(size[0]), number(size[1])], " x ")
    fits = (tf.reduce_prod(size) > 0) & (tf.reduce_prod(size) <= max_pixels)
    damaged = tf.strings.join(["the image is damaged, or of a kind that is not read; it has ", length, " bytes"])
    error = tf.where(fits, damaged, tf.strings.join([_expected_pixels(max_pixels), " ", size_found]))
    error = tf.where(size[0] < 0, tf.strings.join([_EXPECTED_BYTES, " ", length]), error)
    return image, tf.where(tf.size(image) > 0, "", error)


def _attempt(function: Callable[[tf.Tensor], tf.Tensor], encoded: tf.Tensor, otherwise: tf.Tensor) -> tf.Tensor:
    """The function of a file; `otherwise` where it fails.

    TensorFlow's one way to go on after an error in a graph: a data set leaves out the elements that fail.
    """
    made = tf.data.Dataset.from_tensors(encoded).map(function).ignore_errors()
    return made.concatenate(tf.data.Dataset.from_tensors(otherwise)).take(1).get_single_element()


def check_size(height: tf.Tensor, width: tf.Tensor, max_pixels: int) -> tf.Operation:
    """The operation that refuses images of no pixels, or more than `max_pixels`."""
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    found = [_expected_pixels(max_pixels), height, "x", width]
    return tf.debugging.Assert((pixels > 0) & (pixels <= max_pixels), found)


def _expected_pixels(max_pixels: int) -> str:
    return f"expected an image of at least one and at most {max_pixels} pixels (--max_pixels of the export); found"


def _check_scans(encoded: tf.Tensor) -> tf.Operation:
    """The operation that refuses a JPEG of more than `MOST_SCANS` scans; see `pictures.open_image`."""

    def number_of_scans() -> tf.Tensor:
        values = tf.io.decode_raw(encoded + b"\0\0\0\0", tf.uint8)
        mark, kind, high, low, channels = (values[i : tf.size(values) - 4 + i] for i in range(5))
        is_scan = (mark == 0xFF) & (kind == 0xDA) & (high == 0)
        is_scan &= (channels >= 1) & (channels <= 4) & (low == 6 + 2 * channels)
        return tf.math.count_nonzero(is_scan, dtype=tf.int32)

    scans = tf.cond(tf.strings.substr(encoded, 0, 3) == b"\xff\xd8\xff", number_of_scans, lambda: 0)
    return tf.debugging.Assert(scans <= MOST_SCANS, [f"expected a JPEG of at most {MOST_SCANS} scans; found", scans])


@of_encoded
def _size(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width of an encoded image, int64, as its first bytes give them; fails where it is none."""
    is_jpeg = tf.strings.substr(encoded, 0, 3) == b"\xff\xd8\xff"
    return tf.cond(is_jpeg, lambda: _jpeg_size(encoded), lambda: _size_in_header(encoded))


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
    with tf.control_dependencies([tf.debugging.Assert(is_image, [_EXPECTED_BYTES, tf.strings.length(encoded)])]):
        none = tf.constant(0, tf.int64)
        height = tf.add_n([tf.where(is_kind, height, none) for is_kind, height, _ in kinds])
        width = tf.add_n([tf.where(is_kind, width, none) for is_kind, _, width in kinds])
    frame_height, frame_width = tf.cond(starts(b"GIF8"), lambda: _gif_frame(encoded), lambda: (none, none))
    return tf.maximum(height, frame_height), tf.maximum(width, frame_width)


def _gif_frame(gif: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width, int64, of a GIF's first frame, which may be larger than the size in its header.

    65535 both where it does not come after so few blocks of other data that they can be searched.
    """
    flags = _bytes(gif, 10, 1)[0]
    colors = tf.where(flags >= 128, tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % 8), 0)

    def is_another(block: tf.Tensor, inside: tf.Tensor) -> tf.Tensor:
        return inside | (_bytes(gif, block, 1)[0] == _GIF_EXTENSION)

    def next_block(block: tf.Tensor, inside: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Of an extension two bytes are passed over, then its parts: a size, and so many bytes; the last has size 0."""
        size = _bytes(gif, block, 1)[0]
        return tf.where(inside, block + 1 + size, block + 2), (inside & (size > 0)) | tf.logical_not(inside)

    start = (13 + 3 * colors, tf.constant(False))
    block, inside = tf.while_loop(is_another, next_block, start, maximum_iterations=_MOST_GIF_BLOCKS)
    values = _bytes(gif, block, 9)
    is_frame = tf.logical_not(inside) & (values[0] == _GIF_FRAME)
    return tuple(tf.where(is_frame, values[at] + 256 * values[at + 1], 65535) for at in (7, 5))


@of_encoded
def exif_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG, PNG or WebP file: int64, 1 to 8; 1, upright, where it has none or a damaged one.

    Only the first segments of the file are searched for EXIF data, in a PNG those before its pixels.
    """
    start, end = tf.case(
        [
            (_starts(encoded, 0, b"\xff\xd8\xff"), lambda: _exif_of_jpeg(encoded)),
            (_starts(encoded, 0, b"\x89PNG"), lambda: _exif_of_chunks(encoded, 8, b"eXIf", b"IDAT", size_first=True)),
            (_starts(encoded, 8, b"WEBP"), lambda: _exif_of_chunks(encoded, 12, b"EXIF", b"EXIF", size_first=False)),
        ],
        default=lambda: (tf.constant(0, tf.int64), tf.constant(0, tf.int64)),
    )
    # Of the TIFF header: offsets count from it.
    start = tf.where(_starts(encoded, start, b"Exif\0\0"), start + 6, start)
    little = _bytes(encoded, start, 1)[0] == ord("I")

    def number(values: tf.Tensor) -> tf.Tensor:  # along the last axis
        places = [1 << 8 * i for i in range(values.shape[-1])]
        return tf.reduce_sum(values * tf.where(little, tf.constant(places, tf.int64), places[::-1]), -1)

    directory = start + number(_bytes(encoded, start + 4, 4))
    entries = tf.reshape(_bytes(encoded, directory + 2, 12 * _MOST_ENTRIES), [_MOST_ENTRIES, 12])
    is_entry = tf.range(_MOST_ENTRIES, dtype=tf.int64) < number(_bytes(encoded, directory, 2))
    is_orientation = is_entry & (number(entries[:, :2]) == _ORIENTATION)
    found = tf.reduce_max(tf.where(is_orientation, number(entries[:, 8:10]), 0))
    return tf.where((start < end) & (found >= 1) & (found <= 8), found, 1)


def _exif_of_jpeg(jpeg: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """First and last byte of the EXIF data of a JPEG; an empty range if it has none."""

    def length(segment: tf.Tensor) -> tf.Tensor:  # of what follows the marker's two bytes
        high, low = tf.unstack(_bytes(jpeg, segment + 2, 2))
        return tf.maximum(256 * high + low, 2)

    def is_exif(segment: tf.Tensor) -> tf.Tensor:
        return _starts(jpeg, segment, b"\xff\xe1") & _starts(jpeg, segment + 4, b"Exif\0\0")

    def is_another(segment: tf.Tensor) -> tf.Tensor:
        mark, kind = tf.unstack(_bytes(jpeg, segment, 2))
        return (mark == 0xFF) & (kind != 0xDA) & tf.logical_not(is_exif(segment))  # DA: the pixels begin

    (segment,) = tf.while_loop(
        is_another,
        lambda segment: (segment + 2 + length(segment),),
        (tf.constant(2, tf.int64),),
        maximum_iterations=_MOST_SEGMENTS,
    )
    return segment + 4, tf.where(is_exif(segment), segment + 2 + length(segment), 0)


def _exif_of_chunks(
    encoded: tf.Tensor, first: int, wanted: bytes, last: bytes, size_first: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """First and last byte of the EXIF data of a PNG or WebP; an empty range if it has none.

    Args:
        encoded: the file.
        first: where its first chunk begins.
        wanted: name of the chunk with EXIF data.
        last: name of the chunk that ends the search.
        size_first: PNG: size (big-endian), name, data, checksum. Else WebP: name, size (little-endian), data, padded.
    """
    name_at = 4 if size_first else 0

    def size(chunk: tf.Tensor) -> tf.Tensor:
        values = _bytes(encoded, chunk + 4 - name_at, 4)
        places = [1 << 8 * i for i in range(4)]
        return tf.reduce_sum(values * (places[::-1] if size_first else places))

    def is_another(chunk: tf.Tensor) -> tf.Tensor:
        is_last = _starts(encoded, chunk + name_at, wanted) | _starts(encoded, chunk + name_at, last)
        return _is_inside(encoded, chunk) & tf.logical_not(is_last)

    def next_chunk(chunk: tf.Tensor) -> tuple[tf.Tensor]:
        return (chunk + 8 + (size(chunk) + 4 if size_first else (size(chunk) + 1) // 2 * 2),)

    start = (tf.constant(first, tf.int64),)
    (chunk,) = tf.while_loop(is_another, next_chunk, start, maximum_iterations=_MOST_SEGMENTS)
    is_exif = _is_inside(encoded, chunk) & _starts(encoded, chunk + name_at, wanted)
    return chunk + 8, tf.where(is_exif, chunk + 8 + size(chunk), 0)


def _is_inside(encoded: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    return at < tf.cast(tf.strings.length(encoded), tf.int64)


def _starts(encoded: tf.Tensor, at: tf.Tensor | int, expected: bytes) -> tf.Tensor:
    """Whether these bytes are at that place."""
    return tf.reduce_all(_bytes(encoded, at, len(expected)) == list(expected))


def _bytes(encoded: tf.Tensor, at: tf.Tensor | int, count: int) -> tf.Tensor:
    """Some bytes of a file: int64 [count]; 0 beyond its end."""
    at = tf.minimum(tf.cast(at, tf.int64), tf.cast(tf.strings.length(encoded), tf.int64))
    found = tf.strings.substr(encoded, at, tf.constant(count, tf.int64)) + b"\0" * count
    return tf.ensure_shape(tf.cast(tf.io.decode_raw(found, tf.uint8)[:count], tf.int64), [count])


def turned_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors an image [H, W, 3] as its EXIF orientation says."""

    def is_one_of(*orientations: int) -> tf.Tensor:
        return tf.reduce_any(orientation == tf.constant(orientations, tf.int64))

    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    image = tf.cond(is_one_of(3, 4, 7, 8), lambda: image[::-1], lambda: image)
    image = tf.cond(is_one_of(2, 3, 6, 7), lambda: image[:, ::-1], lambda: image)
    return tf.ensure_shape(image, [None, None, 3])
