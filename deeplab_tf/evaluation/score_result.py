"""The result of scoring a folder of masks: figures by class, their means, as a table and as JSON."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from deeplab_tf import files
from deeplab_tf.counts import class_counts, f1, iou, precision, ratio, recall
from deeplab_tf.evaluation.tables import Subsets, by_class, key, means, means_as_json, or_null, table, trimap_line


@dataclasses.dataclass(frozen=True)
class FolderScore:
    """The agreement of a folder of masks with the truth; every figure in [0, 1].

    Attributes:
        class_names: C names.
        confusion: int64 [C + 1, C + 1]; the last column counts labelled pixels whose prediction is not a class.
        boundary_iou: of each class, float64 [C]; NaN where it does not occur.
        boundary_f1: likewise.
        trimap: mean IoU by the width of the band around the boundaries of the truth, in pixels.
        images: number of masks scored.
        not_predicted: number of truths without a prediction.
        left_out: one line for each mask that could not be scored.
    """

    class_names: tuple[str, ...]
    confusion: np.ndarray
    boundary_iou: np.ndarray
    boundary_f1: np.ndarray
    trimap: dict[int, float]
    images: int
    not_predicted: int
    left_out: tuple[str, ...]

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class, float64 [C]; NaN where it neither occurs nor is predicted."""
        return iou(self._counts)

    @property
    def precision(self) -> np.ndarray:
        """Fraction of each class's predicted pixels that are right, float64 [C]; NaN where none is predicted."""
        return precision(self._counts)

    @property
    def recall(self) -> np.ndarray:
        """Fraction of each class's pixels that are right (class accuracy), float64 [C]; NaN where it has none."""
        return recall(self._counts)

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall (Dice), float64 [C]; NaN where `iou` is."""
        return f1(self._counts)

    @property
    def pixel_accuracy(self) -> float:
        """Fraction of the labelled pixels that are right."""
        return float(ratio(self._counts[0].sum(), self.confusion.sum()))

    @property
    def unlabelled(self) -> float:
        """Fraction of the labelled pixels whose prediction is not a class; they count as wrong."""
        return float(ratio(self.confusion[:, -1].sum(), self.confusion.sum()))

    @property
    def _counts(self) -> np.ndarray:
        return class_counts(self.confusion)[:, :-1]

    def columns(self) -> dict[str, np.ndarray]:
        """The figures by class, each float64 [C], by name."""
        return by_class(self._counts, self.boundary_iou, self.boundary_f1)

    def means(self, names: Sequence[str] = ()) -> dict[str, float]:
        """The means of `columns()` over some classes, those of them that occur.

        Args:
            names: of the classes; default: all.

        Raises:
            UserError: one is not a class.
        """
        return means(self.columns(), self.class_names, names)

    def table(self, subsets: Subsets | None = None) -> str:
        """All figures in percent, as text.

        Args:
            subsets: names of classes to give further means of, by their title.
        """
        further = {"pixel accuracy": [self.pixel_accuracy]}
        lines = table("%", self.columns(), self.class_names, subsets or {}, further)
        return "\n".join([*lines, "", trimap_line(self.trimap)])

    def as_json(self, subsets: Subsets | None = None) -> dict[str, Any]:
        """Everything measured, in terms of JSON; figures in [0, 1], null where nothing was counted."""
        of_classes = {
            key(title): dict(zip(self.class_names, map(or_null, values), strict=True))
            for title, values in self.columns().items()
        }
        return {
            "images": self.images,
            "class_names": list(self.class_names),
            "pixel_accuracy": or_null(self.pixel_accuracy),
            "unlabelled": or_null(self.unlabelled),
            "means": means_as_json(self.columns(), self.class_names, subsets or {}),
            "classes": of_classes,
            "trimap": {str(w): or_null(value) for w, value in self.trimap.items()},
            "confusion": self.confusion.tolist(),
            "left_out": list(self.left_out),
        }

    def save(self, path: str | os.PathLike, subsets: Subsets | None = None) -> None:
        """Writes `as_json()` to a file."""
        files.write_json(path, self.as_json(subsets))
