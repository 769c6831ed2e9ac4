"""Unaries and features for `densecrf`, with the arguments of pydensecrf.utils."""

import logging
import math
from collections.abc import Sequence
from numbers import Number

import numpy as np

from deeplab_tf.errors import UserError

__all__ = [
    "compute_unary",
    "create_pairwise_bilateral",
    "create_pairwise_gaussian",
    "softmax_to_unary",
    "unary_from_labels",
    "unary_from_softmax",
]

_log = logging.getLogger(__name__)


def unary_from_labels(labels: np.ndarray, n_labels: int, gt_prob: float, zero_unsure: bool = True) -> np.ndarray:
    """Unary energies of a label map.

    Args:
        labels: integers of any shape, N of them.
        n_labels: C; without the label 0 where that means "unsure".
        gt_prob: how likely a label is right, between 0 and 1; the other classes share the rest.
        zero_unsure: whether 0 means that every class is as likely; class c then has the label c + 1.

    Returns:
        float32 [C, N].

    Raises:
        UserError: (a ValueError) for a label that is not a class, or arguments out of range.
    """
    labels = np.asarray(labels).ravel()
    if not 0 < gt_prob < 1:
        raise UserError(f"unary_from_labels: gt_prob is {gt_prob}, expected a number between 0 and 1")
    if n_labels < 2:
        raise UserError(f"unary_from_labels: n_labels is {n_labels}, expected two or more")
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"unary_from_labels: the labels have dtype {labels.dtype}, expected integers")
    highest = n_labels if zero_unsure else n_labels - 1
    if labels.size and not 0 <= labels.min() <= labels.max() <= highest:
        raise UserError(f"unary_from_labels: found labels {labels.min()} to {labels.max()}, expected 0 to {highest}")
    energies = np.full((n_labels, len(labels)), -np.log((1 - gt_prob) / (n_labels - 1)), np.float32)
    known = labels > 0 if zero_unsure else np.ones(len(labels), bool)
    energies[labels[known].astype(np.int64) - bool(zero_unsure), np.flatnonzero(known)] = -np.log(gt_prob)
    energies[:, ~known] = np.log(n_labels)
    return energies


def compute_unary(labels: np.ndarray, M: int, GT_PROB: float = 0.5) -> np.ndarray:  # noqa: N803
    """Deprecated name of `unary_from_labels`."""
    _log.warning("compute_unary is deprecated, use unary_from_labels instead")
    return unary_from_labels(labels, M, GT_PROB)


def unary_from_softmax(sm: np.ndarray, scale: float | None = None, clip: float | None = 1e-5) -> np.ndarray:
    """Unary energies -log P of probabilities.

    Args:
        sm: float [C, ...].
        scale: the probability that 1 becomes, between 0 and 1; the rest is shared equally. None: as they are.
        clip: probabilities count as at least this. None: 0 becomes infinite, which `densecrf` refuses.

    Returns:
        float32 [C, N].

    Raises:
        UserError: (a ValueError) if the scale is out of range.
    """
    sm = np.asarray(sm)
    if scale is not None:
        if not 0 < scale <= 1:
            raise UserError(f"unary_from_softmax: scale is {scale}, expected more than 0, up to 1")
        sm = scale * sm + (1 - scale) / len(sm)
    if clip is not None:
        sm = np.clip(sm, clip, 1.0)
    with np.errstate(divide="ignore"):
        return -np.log(sm).reshape(len(sm), -1).astype(np.float32)


def softmax_to_unary(sm: np.ndarray, GT_PROB: float = 1) -> np.ndarray:  # noqa: N803
    """Deprecated name of `unary_from_softmax`, without a clip."""
    _log.warning("softmax_to_unary is deprecated, use unary_from_softmax instead")
    return unary_from_softmax(sm, None if GT_PROB == 1 else GT_PROB, clip=None)


def create_pairwise_gaussian(sdims: Sequence[float], shape: Sequence[int]) -> np.ndarray:
    """Features of a kernel over positions, in any number of dimensions.

    Args:
        sdims: standard deviations, one for each axis of the shape, in pixels.
        shape: of the image or volume.

    Returns:
        float32 [axes, N], in the order of the axes.
    """
    if len(sdims) != len(shape):
        raise UserError(f"create_pairwise_gaussian: sdims has {len(sdims)} values, the shape {len(shape)} axes")
    features = np.indices(shape, dtype=np.float32).reshape(len(shape), math.prod(shape))
    return features / np.asarray(sdims, np.float32)[:, None]


def create_pairwise_bilateral(
    sdims: Sequence[float], schan: float | Sequence[float], img: np.ndarray, chdim: int = -1
) -> np.ndarray:
    """Features of a kernel over positions and values, in any number of dimensions and channels.

    Args:
        sdims: standard deviations over positions, one for each axis, in pixels.
        schan: standard deviations over values: one, or one for each channel, in units of the image.
        img: numbers of any shape.
        chdim: the axis of the channels; -1: there is none, the image has one channel.

    Returns:
        float32 [axes + channels, N].
    """
    img = np.asarray(img)
    if not -1 <= chdim < img.ndim:
        raise UserError(f"create_pairwise_bilateral: chdim is {chdim}, the image has {img.ndim} axes")
    channels = img[None] if chdim == -1 else np.moveaxis(img, chdim, 0)
    if not isinstance(schan, Number) and len(schan) != len(channels):
        raise UserError(f"create_pairwise_bilateral: schan has {len(schan)} values, the image {len(channels)} channels")
    values = channels.astype(np.float32).reshape(len(channels), -1)
    values /= schan if isinstance(schan, Number) else np.asarray(schan, np.float32)[:, None]
    return np.concatenate([create_pairwise_gaussian(sdims, channels.shape[1:]), values])
