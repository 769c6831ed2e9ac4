"""Random scale, crop and mirror, as the paper trains (Sec. 4.1.2: scales from 0.5 to 1.5); turns and colours.

Scaling an image by s and cropping c x c from it is the same as cropping a window of side c/s from it and scaling that
to c x c. The latter touches only the pixels that are used, and a JPEG need not be decoded outside the window. The
window has whole pixels, round(c/s) of them, so the scale is the drawn one to within half a pixel over the crop.
"""

import numpy as np
import tensorflow as tf

from deeplab_tf.classes import IGNORE_LABEL
from deeplab_tf.data.decoding import DCT_METHOD, decode_image


def draw_window(example: dict, draws: tf.Tensor, crop_size: int, scales: tuple[float, ...], mirror: bool) -> dict:
    """Draws scale, place and mirroring of the crop.

    Args:
        example: "label" is uint8 [H, W].
        draws: float32 [4], uniform in [0, 1): for scale, row, column, mirror.
        crop_size: side of the crop, pixels.
        scales: two numbers: scales uniform between them; any other number of them: one of these, equally likely.
        mirror: whether half of the crops are mirrored.

    Returns:
        the example with "offset" and "size", int32 [2], rows and columns of the window inside the image; "target",
        int32 [2], what the window is scaled to; "mirrored", bool. Where the scaled image is smaller than the crop, the
        window is the whole image and `target` is smaller than the crop.
    """
    if len(scales) == 2:
        scale = scales[0] + draws[0] * (scales[1] - scales[0])
    else:
        scale = tf.gather(tf.constant(scales, tf.float32), tf.cast(draws[0] * len(scales), tf.int32))
    shape = tf.shape(example["label"])
    side = tf.round(crop_size / scale)
    size = tf.minimum(tf.cast(side, tf.int32), shape)
    offset = tf.cast(draws[1:3] * tf.cast(shape - size + 1, tf.float32), tf.int32)
    target = tf.maximum(tf.cast(tf.round(tf.cast(size, tf.float32) * crop_size / side), tf.int32), 1)
    return example | {"offset": offset, "size": size, "target": target, "mirrored": mirror & (draws[3] < 0.5)}


def resize_images(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Scales images bilinearly without antialiasing, centres of pixels aligned; at exactly 0.5 the mean of 2x2 pixels.

    Args:
        images: uint8 [..., H, W, 3].
        size: int32 [2], height and width.

    Returns:
        uint8 [..., height, width, 3]; scaled colours are rounded.
    """
    return tf.cast(tf.image.resize(images, size, "bilinear") + 0.5, tf.uint8)


def crop_image(example: dict, crop_size: int, mean_color: tuple[float, float, float]) -> tf.Tensor:
    """Cuts the window out of the image, scales it bilinearly without antialiasing, pads and mirrors it.

    Args:
        example: as from `draw_window`, with "encoded", the bytes of the image.
        crop_size: side of the crop, pixels.
        mean_color: RGB, rounded; fills up at the right and bottom.

    Returns:
        uint8 [crop_size, crop_size, 3], RGB; scaled colours are rounded.
    """
    (y, x), (height, width) = tf.unstack(example["offset"]), tf.unstack(example["size"])
    # The last column that is decoded of a JPEG depends on what is right of it; two more make it exact.
    wider = tf.minimum(width + 2, tf.shape(example["label"])[1] - x)
    encoded = example["encoded"]

    def decode_window():
        return tf.io.decode_and_crop_jpeg(encoded, [y, x, height, wider], channels=3, dct_method=DCT_METHOD)[:, :width]

    window = tf.cond(
        tf.io.is_jpeg(encoded), decode_window, lambda: decode_image(encoded)[y : y + height, x : x + width]
    )
    image = resize_images(window, example["target"])
    missing = crop_size - example["target"]
    mean = tf.constant(np.rint(mean_color), tf.uint8)

    def padded():
        # uint8 wraps around, so that nothing is lost where a colour is below the mean.
        return tf.pad(image - mean, [[0, missing[0]], [0, missing[1]], [0, 0]]) + mean

    image = tf.cond(tf.reduce_any(missing > 0), padded, lambda: image)
    image = tf.cond(example["mirrored"], lambda: tf.reverse(image, [1]), lambda: image)
    return tf.ensure_shape(image, [crop_size, crop_size, 3])


def crop_label(example: dict, crop_size: int) -> tf.Tensor:
    """Cuts the same window out of the label, scales it to the nearest pixels, pads and mirrors it.

    All of it is a choice of rows and a choice of columns. Gathering rows copies memory and gathering columns walks
    through it, so columns are gathered as rows of the transposed label: four times as fast.

    Args:
        example: as from `draw_window`.
        crop_size: side of the crop, pixels.

    Returns:
        uint8 [crop_size, crop_size].
    """
    # One row and one column of the ignore label beyond the label, to pad from.
    label = tf.pad(example["label"], [[0, 1], [0, 1]], constant_values=IGNORE_LABEL)
    place = tf.range(crop_size)
    step = tf.cast(example["size"], tf.float32) / tf.cast(example["target"], tf.float32)
    nearest = tf.cast((tf.cast(place, tf.float32)[:, None] + 0.5) * step, tf.int32) + example["offset"]
    chosen = tf.where(place[:, None] < example["target"], nearest, tf.shape(example["label"]))
    columns = tf.where(example["mirrored"], chosen[::-1, 1], chosen[:, 1])
    label = tf.transpose(tf.gather(tf.transpose(tf.gather(label, chosen[:, 0])), columns))
    return tf.ensure_shape(label, [crop_size, crop_size])


def turn_crop(example: dict, draws: tf.Tensor, rotate_90: bool, vertical_flip: bool) -> dict:
    """Turns a crop and its label by a right angle, or upside down: for pictures that have no up, as from above.

    Args:
        example: "image" is uint8 [S, S, 3], "label" uint8 [S, S].
        draws: float32 [2], uniform in [0, 1): for the angle, for the flip.
        rotate_90: whether crops are turned by 0, 90, 180 or 270 degrees, equally likely.
        vertical_flip: whether half of the crops are flipped upside down.

    Returns:
        the example with both turned the same way.
    """

    def turn(pixels: tf.Tensor) -> tf.Tensor:
        turned = pixels
        if rotate_90:
            turned = tf.image.rot90(turned, tf.cast(4 * draws[0], tf.int32))
        if vertical_flip:
            turned = tf.cond(draws[1] < 0.5, lambda: tf.reverse(turned, [0]), lambda: turned)
        return tf.ensure_shape(turned, pixels.shape)

    label = turn(example["label"][..., tf.newaxis])[..., 0]
    return example | {"image": turn(example["image"]), "label": label}


def jitter_colors(example: dict, draws: tf.Tensor, strength: float) -> dict:
    """Changes brightness, contrast and saturation of an image, each by a factor in [1 - strength, 1 + strength].

    In this order, as torchvision's ColorJitter defines them: the image is blended with black, with its mean grey, and
    with its own grey picture (Rec. 601 luma).

    Args:
        example: "image" is uint8 [H, W, 3], RGB.
        draws: float32 [3], uniform in [0, 1): one for each factor.
        strength: in [0, 1].

    Returns:
        the example with its "image" changed; colours are rounded and kept in 0..255.
    """
    brightness, contrast, saturation = tf.unstack(1 + strength * (2 * draws - 1))
    image = tf.clip_by_value(brightness * tf.cast(example["image"], tf.float32), 0, 255)
    grey = tf.reduce_mean(tf.image.rgb_to_grayscale(image))
    image = tf.clip_by_value(grey + contrast * (image - grey), 0, 255)
    grey = tf.image.rgb_to_grayscale(image)
    image = tf.clip_by_value(grey + saturation * (image - grey), 0, 255)
    return example | {"image": tf.cast(tf.round(image), tf.uint8)}
