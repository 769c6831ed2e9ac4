"""The metrics of semantic segmentation: from one confusion matrix over the whole set, or from counts by image."""

import dataclasses
import pathlib
from typing import Self

import numpy as np

from deeplab_tf import files
from deeplab_tf.classes import IGNORE_LABEL
from deeplab_tf.errors import UserError

# The two stages of a segmentation, of which the second exists where there is a CRF: the key in files and dictionaries,
# and the name that people read.
NETWORK, CRF = "network", "crf"
STAGES = {NETWORK: "network", CRF: "network + CRF"}


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

    def add(self, labels: np.ndarray, predictions: np.ndarray, ignore_label: int = IGNORE_LABEL) -> None:
        """Counts the pixels of one image, or of a batch.

        Args:
            labels: integers of any shape, the truth; `ignore_label` is not counted.
            predictions: integers of the same shape, in [0, C).
            ignore_label: the label of pixels without a class.

        Raises:
            UserError: the shapes differ, or a label or prediction is not a class.
        """
        if np.shape(labels) != np.shape(predictions):
            raise UserError(f"labels and predictions differ in shape: {np.shape(labels)} and {np.shape(predictions)}")
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
        return iou(class_counts(self.counts))

    @property
    def mean_iou(self) -> float:
        """Mean intersection over union of the classes that occur: the paper's metric."""
        return float(mean_iou(class_counts(self.counts)))

    @property
    def pixel_accuracy(self) -> float:
        """Fraction of the labelled pixels that are right."""
        return float(ratio(np.trace(self.counts), self.counts.sum()))

    @property
    def class_accuracy(self) -> np.ndarray:
        """Fraction of each class's pixels that are right (recall), float64 [C]; NaN for a class not in the truth."""
        return recall(class_counts(self.counts))

    @property
    def precision(self) -> np.ndarray:
        """Fraction of each class's predictions that are right, float64 [C]; NaN for a class never predicted."""
        return precision(class_counts(self.counts))

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall (Dice), float64 [C]; NaN where `iou` is."""
        return f1(class_counts(self.counts))

    @property
    def mean_accuracy(self) -> float:
        """Mean of `class_accuracy` over the classes in the truth."""
        return float(mean(self.class_accuracy))

    @property
    def frequency_weighted_iou(self) -> float:
        """Intersection over union of each class weighted by its share of the labelled pixels."""
        frequency = ratio(self.counts.sum(1), self.counts.sum())
        return float(np.nansum(frequency * np.nan_to_num(self.iou))) if self.counts.sum() else float("nan")

    def summary(self) -> dict[str, float]:
        """The four figures by name, each in [0, 1]; NaN where nothing was counted."""
        return {
            "mean_iou": self.mean_iou,
            "pixel_accuracy": self.pixel_accuracy,
            "mean_accuracy": self.mean_accuracy,
            "frequency_weighted_iou": self.frequency_weighted_iou,
        }


@dataclasses.dataclass(frozen=True)
class ImageCounts:
    """Pixels by image and class, before and after the CRF.

    Attributes:
        class_names: C names.
        filenames: of the N images.
        network: int64 [N, 3, C]: pixels that are truly of the class and labelled so; truly of the class; labelled so.
        crf: likewise after the CRF; None without one.
    """

    class_names: tuple[str, ...]
    filenames: tuple[str, ...]
    network: np.ndarray
    crf: np.ndarray | None = None

    @property
    def final(self) -> np.ndarray:
        """The counts after the last step: the CRF where there is one."""
        return self.network if self.crf is None else self.crf

    def save(self, path: str | pathlib.Path) -> None:
        """Writes a compressed .npz: most counts are 0, so an image takes about a hundred bytes."""
        arrays = {
            "class_names": np.array(self.class_names),
            "filenames": np.array(self.filenames, dtype=str),
            "network": self.network,
        }
        if self.crf is not None:
            arrays["crf"] = self.crf
        with files.written_aside(path) as aside:
            np.savez_compressed(aside, **arrays)

    @classmethod
    def load(cls, path: str | pathlib.Path) -> Self:
        """Reads what `save` wrote.

        Raises:
            UserError: the file is missing, or is not such a file.
        """
        try:
            with np.load(path) as arrays:
                return cls(
                    class_names=tuple(map(str, arrays["class_names"])),
                    filenames=tuple(map(str, arrays["filenames"])),
                    network=arrays["network"],
                    crf=arrays.get("crf"),
                )
        except (OSError, KeyError, ValueError) as error:
            raise UserError(
                f"{path}: not the counts file of an evaluation ({error!s:.200}); evaluate.py writes them"
            ) from None


def class_counts(confusion: np.ndarray) -> np.ndarray:
    """The counts of one image, int64 [3, C], from its confusion matrix [C, C] (rows: truth)."""
    return np.stack([np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)])


def iou(counts: np.ndarray) -> np.ndarray:
    """Intersection over union [..., C] of counts [..., 3, C]; NaN for a class neither present nor predicted."""
    both, truth, predicted = np.moveaxis(counts, -2, 0)
    return ratio(both, truth + predicted - both)


def precision(counts: np.ndarray) -> np.ndarray:
    """Fraction [..., C] of the predicted pixels that are right, of counts [..., 3, C]; NaN where none is predicted."""
    return ratio(counts[..., 0, :], counts[..., 2, :])


def recall(counts: np.ndarray) -> np.ndarray:
    """Fraction [..., C] of the true pixels that are right, of counts [..., 3, C]; NaN where there are none."""
    return ratio(counts[..., 0, :], counts[..., 1, :])


def f1(counts: np.ndarray) -> np.ndarray:
    """Harmonic mean [..., C] of precision and recall (Dice) of counts [..., 3, C]; NaN where `iou` is."""
    return ratio(2 * counts[..., 0, :], counts[..., 1, :] + counts[..., 2, :])


def mean_iou(counts: np.ndarray) -> np.ndarray:
    """Mean [...] of `iou` over the classes that occur; NaN where none does."""
    return mean(iou(counts))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The ratio part / whole, NaN where whole is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.true_divide(part, whole)


def mean(values: np.ndarray) -> np.ndarray:
    """Mean along the last axis of the values that are not NaN; NaN where all are."""
    occurs = ~np.isnan(values)
    return ratio(np.where(occurs, values, 0).sum(-1), occurs.sum(-1))
