"""Random scale, crop and mirror, as the paper trains (Sec. 4.1.2: scales from 0.5 to 1.5).

Scaling an image by s and cropping c x c from it is the same as cropping a window of side c/s from it and scaling that
to c x c. The latter touches only the pixels that are used, and a JPEG need not be decoded outside the window. The
window has whole pixels, round(c/s) of them, so the scale is the drawn one to within half a pixel over the crop.
"""

import tensorflow as tf


def random_window(example: dict, draws: tf.Tensor, crop_size: int, scales: tuple[float, ...], mirror: bool) -> dict:
    """Draws scale, place and mirroring of the crop.

    Args:
        example: "label" is uint8 [H, W].
        draws: float32 [4], uniform in [0, 1): for scale, row, column, mirror.
        crop_size: side of the crop, pixels.
        scales: two numbers: scales uniform between them; any other number of them: one of these, equally likely.
        mirror: whether half of the crops are mirrored.

    Returns:
        the example with "offset" and "size", int32 [2], rows and columns of the window inside the image; "target",
        int32 [2], what the window is scaled to; "mirror", bool. Where the scaled image is smaller than the crop, the
        window is the whole image and `target` is smaller than the crop.
    """
    if len(scales) == 2:
        scale = scales[0] + draws[0] * (scales[1] - scales[0])
    else:
        scale = tf.gather(tf.constant(scales, tf.float32), tf.cast(draws[0] * len(scales), tf.int32))
    shape = tf.shape(example["label"])
    side = tf.cast(tf.round(crop_size / scale), tf.int32)
    size = tf.minimum(side, shape)
    offset = tf.cast(draws[1:3] * tf.cast(shape - size + 1, tf.float32), tf.int32)
    scaled = tf.cast(tf.round(tf.cast(size * crop_size, tf.float32) / tf.cast(side, tf.float32)), tf.int32)
    target = tf.maximum(scaled, 1)
    return example | {"offset": offset, "size": size, "target": target, "mirror": mirror & (draws[3] < 0.5)}


def crop_and_scale(example: dict) -> dict:
    """Cuts the window out of image and label and scales it: the image bilinearly, the label to the nearest pixel.

    Args:
        example: as from `random_window`, with "encoded", the bytes of the image.

    Returns:
        {"image": uint8 [*target, 3], "label": uint8 [*target], "mirror"}.
    """
    (y, x), (height, width) = tf.unstack(example["offset"]), tf.unstack(example["size"])
    # The last column of a decoded window depends on what is right of it; two more make it exact.
    wider = tf.minimum(width + 2, tf.shape(example["label"])[1] - x)
    image = tf.cond(
        tf.io.is_jpeg(example["encoded"]),
        lambda: tf.io.decode_and_crop_jpeg(example["encoded"], [y, x, height, wider], channels=3)[:, :width],
        lambda: decode_image(example["encoded"])[y : y + height, x : x + width],
    )
    label = example["label"][y : y + height, x : x + width]
    image = tf.image.resize(image, example["target"], "bilinear")
    label = tf.image.resize(label[..., None], example["target"], "nearest")[..., 0]
    return {"image": tf.cast(tf.round(image), tf.uint8), "label": label, "mirror": example["mirror"]}


def pad(example: dict, crop_size: int, mean_color: tuple[float, float, float], ignore_label: int) -> dict:
    """Fills up at the right and bottom to the crop's size, with the mean colour and the ignore label."""
    missing = crop_size - tf.shape(example["label"])
    paddings = [[0, missing[0]], [0, missing[1]]]
    mean = tf.constant([round(channel) for channel in mean_color], tf.uint8)
    image = tf.pad(example["image"] - mean, [*paddings, [0, 0]]) + mean  # modulo 256, so nothing is lost
    label = tf.pad(example["label"], paddings, constant_values=ignore_label)
    image.set_shape([crop_size, crop_size, 3])
    label.set_shape([crop_size, crop_size])
    return example | {"image": image, "label": label}


def mirror(example: dict) -> dict:
    """Mirrors left and right where "mirror" says so."""
    image, label = example["image"], example["label"]
    image, label = tf.cond(
        example["mirror"], lambda: (tf.reverse(image, [1]), tf.reverse(label, [1])), lambda: (image, label)
    )
    return {"image": image, "label": label}


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes JPEG, PNG, BMP or the first frame of a GIF: uint8 [H, W, 3], RGB."""
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])
