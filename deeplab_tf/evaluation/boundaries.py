"""The quality of boundaries: boundary IoU (Cheng et al. 2021) and boundary F1 (Csurka et al. 2013).

Pixels without a label are cut out of truth and prediction alike, so a prediction that is right at every labelled pixel
scores 1, also on VOC, where such pixels lie along every object. Classes of all kinds are measured in one pass over the
label map: a pixel is within d of its class's boundary where the window around it is not all of its class.
"""

import math

import numpy as np
import scipy.ndimage
import scipy.spatial

from deeplab_tf.classes import IGNORE_LABEL
from deeplab_tf.counts import iou, ratio
from deeplab_tf.evaluation.trimap import boundary

# Width of the band of boundary IoU, and tolerance of boundary F1, as fractions of the diagonal of the image.
IOU_RATIO = 0.02  # Cheng et al., arXiv 2103.16562
F1_RATIO = 0.0075  # the tolerance of the Berkeley benchmark, which Csurka et al., BMVC 2013 take over


class BoundaryQuality:
    """Boundary IoU and boundary F1 of a set of images.

    Args:
        num_classes: C.
    """

    def __init__(self, num_classes: int):
        self._num_classes = num_classes
        self._counts = np.zeros((3, num_classes), np.int64)
        self._f1 = np.zeros((2, num_classes))  # sum of the scores, images that have one

    def add(self, labels: np.ndarray, predictions: np.ndarray, ignore_label: int = IGNORE_LABEL) -> None:
        """Counts one image.

        Args:
            labels: integers [H, W], the truth: `ignore_label`, or in [0, C).
            predictions: integers [H, W]; what is not in [0, C) is not a class.
            ignore_label: the label of pixels without a class.
        """
        labelled = labels != ignore_label
        none = self._num_classes
        truth = np.where(labelled, labels, none).astype(np.int16)
        predicted = np.where(labelled & (predictions < none), predictions, none).astype(np.int16)
        self._counts += boundary_counts(truth, predicted, none)
        f1 = boundary_f1(truth, predicted, none)
        self._f1 += np.nan_to_num(f1), ~np.isnan(f1)

    def __iadd__(self, other: "BoundaryQuality") -> "BoundaryQuality":
        self._counts += other._counts
        self._f1 += other._f1
        return self

    @property
    def iou(self) -> np.ndarray:
        """Boundary IoU by class, from the sums over all images, float64 [C]; NaN where a class does not occur."""
        return iou(self._counts)

    @property
    def f1(self) -> np.ndarray:
        """Boundary F1 by class, the mean over the images that have a boundary of it, float64 [C]; NaN for none."""
        return ratio(*self._f1)


def boundary_band(labels: np.ndarray, distance: int) -> np.ndarray:
    """The pixels of each class that are up to `distance` pixels (rows or columns) away from where the class ends.

    As in the authors' boundary_iou: what a 3x3 erosion repeated `distance` times takes from the mask of the class; the
    border of the image counts as an end.

    Args:
        labels: integers [H, W], none of them negative.
        distance: in pixels, 1 or more.

    Returns:
        bool [H, W].
    """
    lowest = highest = labels.astype(np.int16)
    for axis in (0, 1):
        size = 2 * distance + 1
        lowest = scipy.ndimage.minimum_filter1d(lowest, size, axis, mode="constant", cval=-1)
        highest = scipy.ndimage.maximum_filter1d(highest, size, axis, mode="constant", cval=-1)
    return lowest != highest


def boundary_counts(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """The counts of boundary IoU of one image; sums over images go through `deeplab_tf.counts.iou`.

    Args:
        labels: integers [H, W], the truth; what is not below C is not a class.
        predictions: likewise.
        num_classes: C.

    Returns:
        int64 [3, C]: pixels in the bands of the class in both; in the truth; in the prediction.
    """
    distance = max(1, round(IOU_RATIO * math.hypot(*labels.shape)))
    truth, predicted = boundary_band(labels, distance), boundary_band(predictions, distance)
    both = truth & predicted & (labels == predictions)
    return np.stack(
        [
            np.bincount(values, minlength=num_classes)[:num_classes]
            for values in (labels[both], labels[truth], predictions[predicted])
        ]
    )


def boundary_f1(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Boundary F1 of one image by class; the score of a set of images is the mean over those where it is not NaN.

    Precision is the fraction of the prediction's boundary pixels of the class that have one of the truth's within the
    tolerance (Euclidean), recall the reverse.

    Args:
        labels: integers [H, W], the truth; what is not below C is not a class.
        predictions: likewise.
        num_classes: C.

    Returns:
        float64 [C]; NaN for a class without a boundary in either.
    """
    tolerance = F1_RATIO * math.hypot(*labels.shape)
    truth, predicted = (_boundary_points(values, num_classes, tolerance) for values in (labels, predictions))
    precision = _fraction_near(predicted, truth, num_classes, tolerance)
    recall = _fraction_near(truth, predicted, num_classes, tolerance)
    occurs = ~(np.isnan(precision) & np.isnan(recall))
    precision, recall = np.nan_to_num(precision), np.nan_to_num(recall)
    return np.where(occurs, 2 * precision * recall / np.maximum(precision + recall, 1e-300), np.nan)


def _boundary_points(labels: np.ndarray, num_classes: int, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """The boundary pixels of the classes: coordinates float64 [N, 3], and their classes, [N].

    The third coordinate is the class, multiplied so that pixels of different classes are never near each other.
    """
    rows, columns = np.nonzero(boundary(labels) & (labels < num_classes))
    classes = labels[rows, columns].astype(np.int64)
    return np.stack([rows, columns, classes * (2 * tolerance + 1)], axis=1), classes


def _fraction_near(points: tuple, others: tuple, num_classes: int, tolerance: float) -> np.ndarray:
    """Of the points of each class, the fraction with one of `others` within the tolerance, [C]; NaN without points."""
    coordinates, classes = points
    near = np.zeros(len(classes))
    if len(classes) and len(others[1]):
        bound = np.nextafter(tolerance, np.inf)  # the tree takes what is strictly nearer
        near = np.isfinite(scipy.spatial.cKDTree(others[0]).query(coordinates, distance_upper_bound=bound)[0])
    with np.errstate(invalid="ignore"):
        return np.bincount(classes, near, num_classes) / np.bincount(classes, minlength=num_classes)
