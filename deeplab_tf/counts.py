"""The metrics of semantic segmentation, all from one confusion matrix over the whole set."""

import dataclasses
from typing import Self

import numpy as np

from deeplab_tf.errors import UserError


@dataclasses.dataclass
class ConfusionMatrix:
    """Counts of pixels by true class (rows) and predicted class (columns).

    Attributes:
        counts: int64 [C, C].

    Example:
        >>> confusion = ConfusionMatrix.empty(num_classes=2)
        >>> confusion.add(np.array([[0, 1], [1, 255]]), np.array([[0, 1], [0, 0]]))
        >>> round(confusion.mean_iou, 3)
        0.5
    """

    counts: np.ndarray

    @classmethod
    def empty(cls, num_classes: int) -> Self:
        """A matrix of zeros."""
        return cls(np.zeros((num_classes, num_classes), np.int64))

    def add(self, labels: np.ndarray, predictions: np.ndarray, ignore_label: int = 255) -> None:
        """Counts the pixels of one image, or of a batch.

        Args:
            labels: integers of any shape, the truth; `ignore_label` is not counted.
            predictions: integers of the same shape, in [0, C).
            ignore_label: the label of pixels without a class.

        Raises:
            UserError: the shapes differ, or a label or prediction is no class.
        """
        if np.shape(labels) != np.shape(predictions):
            raise UserError(f"labels have shape {np.shape(labels)}, predictions {np.shape(predictions)}: expected one")
        num_classes = len(self.counts)
        labelled = np.not_equal(labels, ignore_label)
        labels = np.asarray(labels)[labelled].astype(np.int64)
        predictions = np.asarray(predictions)[labelled].astype(np.int64)
        for name, values in (("label", labels), ("prediction", predictions)):
            if values.size and not 0 <= values.min() <= values.max() < num_classes:
                raise UserError(
                    f"found {name} values {values.min()} to {values.max()}, "
                    f"expected 0 to {num_classes - 1} or the ignore label {ignore_label}"
                )
        pairs = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
        self.counts += pairs.reshape(num_classes, num_classes)

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class, float64 [C]; NaN for a class neither present nor predicted."""
        intersection = np.diag(self.counts)
        union = self.counts.sum(0) + self.counts.sum(1) - intersection
        return _ratio(intersection, union)

    @property
    def mean_iou(self) -> float:
        """Mean intersection over union of the classes that occur: the paper's metric."""
        return _mean(self.iou)

    @property
    def pixel_accuracy(self) -> float:
        """Fraction of the labelled pixels that are right."""
        return float(_ratio(np.trace(self.counts), self.counts.sum()))

    @property
    def class_accuracy(self) -> np.ndarray:
        """Fraction of each class's pixels that are right (recall), float64 [C]; NaN for a class not in the truth."""
        return _ratio(np.diag(self.counts), self.counts.sum(1))

    @property
    def mean_accuracy(self) -> float:
        """Mean of `class_accuracy` over the classes in the truth."""
        return _mean(self.class_accuracy)

    @property
    def frequency_weighted_iou(self) -> float:
        """Intersection over union of each class weighted by its share of the labelled pixels."""
        frequency = _ratio(self.counts.sum(1), self.counts.sum())
        return float(np.nansum(frequency * np.nan_to_num(self.iou))) if self.counts.sum() else float("nan")

    def summary(self) -> dict[str, float]:
        """The four figures by name, each in [0, 1]; NaN where nothing was counted."""
        return {
            "mean_iou": self.mean_iou,
            "pixel_accuracy": self.pixel_accuracy,
            "mean_accuracy": self.mean_accuracy,
            "frequency_weighted_iou": self.frequency_weighted_iou,
        }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The ratio part / whole, NaN where whole is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.true_divide(part, whole)


def _mean(values: np.ndarray) -> float:
    """Mean of what is no NaN; NaN when nothing is left."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")
