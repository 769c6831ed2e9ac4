"""Checks of a guide and its probabilities before they reach the CRF."""

import math
import warnings
from typing import Any

import numpy as np

from deeplab_tf.compiling import kernel
from deeplab_tf.errors import UserError

# How far the probabilities of a pixel may be from summing to one: float16 softmax outputs stay well inside.
SUM_TOLERANCE = 0.01


# The most classes that labels may name: each costs four bytes a pixel.
MOST_CLASSES = 65_536


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)


def as_array(name: str, values: Any) -> np.ndarray:
    """Whatever NumPy takes as an array; bfloat16, which NumPy does not know, as float32.

    Raises:
        UserError: it takes it for none: tensors that need a gradient or lie on a GPU, placeholders, ragged lists.
    """
    try:
        array = np.asarray(values)
        return array.astype(np.float32) if array.dtype.name == "bfloat16" else array
    except Exception as error:  # every framework raises its own
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        graph = type(values).__module__.startswith(("tensorflow", "keras"))
        way_out = "backend 'tensorflow' takes tensors in a graph" if graph else "expected an array in main memory"
        raise UserError(f"dense CRF: the {name} cannot be taken as an array ({line}); {way_out}") from error


def check_axes(parameters: Any, axes: int, channels: int, classes: int) -> None:
    """Checks that what a `DenseCRF` has for each axis, channel and class fits.

    Raises:
        UserError: it has other numbers of them.
    """
    for name, expected, of in (
        ("bilateral_spatial_std", axes, "axes"),
        ("spatial_std", axes, "axes"),
        ("bilateral_color_std", channels, "channels"),
    ):
        value = getattr(parameters, name)
        if isinstance(value, tuple) and len(value) != expected:
            raise UserError(f"dense CRF: {name} has {len(value)} values, the image {expected} {of}")
    if parameters.compatibility is not None and len(parameters.compatibility) != classes:
        raise UserError(
            f"dense CRF: the compatibility is for {len(parameters.compatibility)} classes, the probabilities have "
            f"{classes}"
        )


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
    image = as_array("image", image)
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
    probabilities = as_array("probabilities", probabilities)
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
    labels = as_array("labels", labels)
    *size, classes = probabilities_shape
    if labels.shape != tuple(size) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"dense CRF: the labels are {labels.dtype} {list(labels.shape)}, expected integers {size}")
    if not 0 <= labels.min() <= labels.max() < classes:
        raise UserError(f"dense CRF: the labels are {labels.min()} to {labels.max()}, expected 0 to {classes - 1}")
    return labels.astype(np.int64)
