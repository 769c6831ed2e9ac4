"""What an image and its probabilities must look like before they reach the CRF."""

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


def check_image(image: np.ndarray) -> np.ndarray:
    """Returns `image` if it is uint8 [H, W, 3] with at least one pixel, C-contiguous.

    Raises:
        UserError: if it is anything else.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f"dense CRF: the image has shape {image.shape}, expected (height, width, 3): RGB")
    if image.size == 0:
        raise UserError(f"dense CRF: the image is empty: its shape is {image.shape}")
    if image.dtype != np.uint8:
        raise UserError(f"dense CRF: the image has dtype {image.dtype}, expected uint8 values from 0 to 255")
    return np.ascontiguousarray(image)


def check_probabilities(probabilities: np.ndarray, image_shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Checks that `probabilities` are distributions over classes for the pixels of an image.

    Args:
        probabilities: floating point [H, W, C].
        image_shape: the shape of the image, (H, W, 3).

    Returns:
        the probabilities as C-contiguous float32 [H, W, C], and the largest probability of every class, float32 [C].

    Raises:
        UserError: for another shape or dtype, values that are not finite or negative, sums that are not one.
    """
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 3 or probabilities.shape[:2] != image_shape[:2]:
        raise UserError(
            f"dense CRF: the probabilities have shape {probabilities.shape}, the image {image_shape}: expected "
            f"({image_shape[0]}, {image_shape[1]}, classes)"
        )
    if probabilities.shape[2] == 0:
        raise UserError("dense CRF: the probabilities have no classes: their last dimension is 0")
    if not np.issubdtype(probabilities.dtype, np.floating):
        raise UserError(
            f"dense CRF: the probabilities have dtype {probabilities.dtype}, expected floating point "
            "(tools/refine.py accepts label maps)"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is reported below
        probabilities = np.ascontiguousarray(probabilities, np.float32)
    classes = probabilities.shape[2]
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
    """Returns `labels` if they are integers [H, W] from 0 to C-1, as int64.

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
