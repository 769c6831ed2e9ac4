"""Quality near the boundaries of objects: the trimap curve (Sec. 4.1.2, Fig. 10)."""

from collections.abc import Sequence

import numpy as np
import scipy.ndimage

from deeplab_tf.classes import IGNORE_LABEL
from deeplab_tf.counts import ConfusionMatrix
from deeplab_tf.errors import UserError

# Widths of the bands in pixels, over the range of Fig. 10.
WIDTHS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40)


def boundary(labels: np.ndarray) -> np.ndarray:
    """The pixels that touch (above, below, left or right) one of another label; "ignore" is a label here.

    Args:
        labels: [H, W].

    Returns:
        bool [H, W].
    """
    touches = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        here, there = ((slice(None),) * axis + (part,) for part in (slice(1, None), slice(None, -1)))
        differs = labels[here] != labels[there]
        touches[here] |= differs
        touches[there] |= differs
    return touches


def boundary_distance(labels: np.ndarray) -> np.ndarray:
    """Euclidean distance of each pixel to the nearest boundary pixel, float64 [H, W]; infinite where there is none."""
    touches = boundary(labels)
    if not touches.any():
        return np.full(labels.shape, np.inf)
    return scipy.ndimage.distance_transform_edt(~touches)


class TrimapCurve:
    """Mean intersection over union in bands around the boundaries of the truth, by the width of the band.

    The band of width w holds the pixels whose distance to the nearest boundary pixel is below w: w = 1 is the boundary
    pixels themselves, on both sides of every boundary. "Ignore" has boundaries but is not counted, so on VOC the band
    starts at the void ring around each object.

    Args:
        num_classes: C.
        widths: of the bands in pixels, ascending.

    Attributes:
        widths: of the bands.
        counts: int64 [len(widths), C, C], for each band its confusion matrix.
    """

    def __init__(self, num_classes: int, widths: Sequence[float] = WIDTHS):
        if not widths or min(widths) <= 0 or list(widths) != sorted(set(widths)):
            raise UserError(f"widths={tuple(widths)}: expected positive numbers of pixels, ascending, each once")
        self.widths = tuple(widths)
        self.counts = np.zeros((len(self.widths), num_classes, num_classes), np.int64)

    def add(
        self, labels: np.ndarray, predictions: np.ndarray, distance: np.ndarray, ignore_label: int = IGNORE_LABEL
    ) -> None:
        """Counts one image.

        Args:
            labels: uint8 [H, W], the truth.
            predictions: uint8 [H, W], in [0, C).
            distance: `boundary_distance(labels)`.
            ignore_label: the label of pixels without a class.
        """
        within = (distance < self.widths[-1]) & (labels != ignore_label)
        num_classes = self.counts.shape[-1]
        band = np.searchsorted(self.widths, distance[within], side="right")
        cell = (band * num_classes + labels[within]) * num_classes + predictions[within]
        rings = np.bincount(cell, minlength=self.counts.size).reshape(self.counts.shape)
        self.counts += rings.cumsum(axis=0)

    @property
    def mean_iou(self) -> list[float]:
        """For each width the mean intersection over union of the classes that occur in the band."""
        return [ConfusionMatrix(counts).mean_iou for counts in self.counts]
