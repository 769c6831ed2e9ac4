"""Checks of a guide and its probabilities before they reach the CRF."""

import warnings

import numpy as np

from deeplab_tf.compiling import kernel
from deeplab_tf.errors import UserError

# How far the probabilities of a pixel may be from summing to one: float16 softmax outputs stay well inside.
SUM_TOLERANCE = 0.01


@kernel
def _survey(probabilities, peaks):
    """The lowest value and the farthest sum from one over [N, C], NaN if anything is; fills peaks [C] with maxima."""
    lowest = np.float32(np.inf)
    farthest = np.float32(0)
    peaks[:] = -np.inf
    for i in range(probabilities.shape[0]):
        total = np.float32(0)
        for c in range(probabilities.shape[1]):
            value = probabilities[i, c]
            total += value
            lowest = min(lowest, value)
            peaks[c] = max(peaks[c], value)
        deviation = abs(total - 1)
        if not deviation <= farthest:  # written so that NaN counts
            farthest = deviation
            if np.isnan(farthest):
                break
    return lowest, farthest


def check_guide(image: np.ndarray, shape: tuple[int, ...], color_stds: float | tuple[float, ...]) -> np.ndarray:
    """Returns the guide of a CRF as numbers [*shape, channels], C-contiguous.

    Args:
        image: uint8, other integers or floating point; [*shape] or [*shape, channels].
        shape: of the pixels: (H, W), or (D, H, W) of a volume.
        color_stds: of the bilateral kernel, for all channels or one for each.

    Raises:
        UserError: if it is anything else.
    """
    image = np.asarray(image)
    size = ", ".join(map(str, shape))
    if image.ndim not in (len(shape), len(shape) + 1) or image.shape[: len(shape)] != tuple(shape):
        raise UserError(
            f"dense CRF: the probabilities have shape ({size}, classes), the image {image.shape}: expected an image of "
            f"({size}) or ({size}, channels)"
        )
    if image.size == 0:
        raise UserError(f"dense CRF: the image is empty: its shape is {image.shape}")
    if not np.issubdtype(image.dtype, np.integer) and not np.issubdtype(image.dtype, np.floating):
        raise UserError(f"dense CRF: the image has dtype {image.dtype}, expected integers or floating point")
    image = np.ascontiguousarray(image.reshape(*shape, -1))
    if isinstance(color_stds, tuple) and len(color_stds) != image.shape[-1]:
        raise UserError(
            f"dense CRF: bilateral_color_std has {len(color_stds)} values, the image {image.shape[-1]} channels"
        )
    if np.issubdtype(image.dtype, np.floating):
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is reported
            image = image.astype(np.float32, copy=False)
        if not np.isfinite(image).all():
            raise UserError("dense CRF: the image contains values that are not finite (NaN or infinity)")
        if 0 < np.ptp(image) <= 1 <= np.min(color_stds):
            warnings.warn(
                f"dense CRF: the values of the image span {np.ptp(image):.3g}, bilateral_color_std is {color_stds}: "
                "the image makes next to no difference; bilateral_color_std is in the units of the image",
                stacklevel=4,
            )
    return image


def check_probabilities(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Checks that `probabilities` are distributions over classes.

    Args:
        probabilities: floating point [H, W, C], or [D, H, W, C] of a volume.

    Returns:
        the probabilities as C-contiguous float32, and the largest probability of every class, float32 [C].

    Raises:
        UserError: for another shape or dtype, values that are not finite or negative, sums that are not one.
    """
    probabilities = np.asarray(probabilities)
    if probabilities.ndim not in (3, 4):
        raise UserError(
            f"dense CRF: the probabilities have shape {probabilities.shape}, expected (height, width, classes), or "
            "(depth, height, width, classes) of a volume"
        )
    if probabilities.shape[-1] == 0:
        raise UserError("dense CRF: the probabilities have no classes: their last dimension is 0")
    if probabilities.size == 0:
        raise UserError(f"dense CRF: the image is empty: the probabilities have shape {probabilities.shape}")
    if not np.issubdtype(probabilities.dtype, np.floating):
        raise UserError(f"dense CRF: the probabilities have dtype {probabilities.dtype}, expected floating point")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is reported below
        probabilities = np.ascontiguousarray(probabilities, np.float32)
    classes = probabilities.shape[-1]
    peaks = np.empty(classes, np.float32)
    lowest, farthest = _survey(probabilities.reshape(-1, classes), peaks)
    if not np.isfinite(farthest):
        raise UserError("dense CRF: the probabilities contain values that are not finite (NaN or infinity)")
    if lowest < 0:
        raise UserError(f"dense CRF: the probabilities contain {lowest:.3g}: apply a softmax to scores first")
    if farthest > SUM_TOLERANCE:
        raise UserError(
            f"dense CRF: the probabilities of a pixel sum to 1 only within {farthest:.3g}: expected distributions over "
            "the last dimension; apply a softmax first"
        )
    return probabilities, peaks


def check_labels(labels: np.ndarray, probabilities_shape: tuple[int, ...]) -> np.ndarray:
    """Returns `labels` if they are integers of the shape of the pixels from 0 to C-1, as int64.

    Raises:
        UserError: if they are anything else.
    """
    labels = np.asarray(labels)
    *size, classes = probabilities_shape
    if labels.shape != tuple(size) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"dense CRF: the labels are {labels.dtype} {list(labels.shape)}, expected integers {size}")
    if not 0 <= labels.min() <= labels.max() < classes:
        raise UserError(f"dense CRF: the labels are {labels.min()} to {labels.max()}, expected 0 to {classes - 1}")
    return labels.astype(np.int64)
