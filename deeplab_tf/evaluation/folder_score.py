"""The result of scoring a folder of masks: figures by class, their means, as a table and as JSON."""

import dataclasses
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from deeplab_tf import files
from deeplab_tf.counts import class_counts, f1, iou, mean, precision, ratio, recall
from deeplab_tf.errors import UserError


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
        return {
            "IoU": self.iou,
            "precision": self.precision,
            "recall": self.recall,
            "F1": self.f1,
            "boundary IoU": self.boundary_iou,
            "boundary F1": self.boundary_f1,
        }

    def means(self, names: Sequence[str] = ()) -> dict[str, float]:
        """The means of `columns()` over some classes, those of them that occur.

        Args:
            names: of the classes; default: all.

        Raises:
            UserError: one is not a class.
        """
        unknown = [name for name in names if name not in self.class_names]
        if unknown:
            raise UserError(f"classes: {unknown[0]!r} is not one of {', '.join(self.class_names)}")
        chosen = [i for i, name in enumerate(self.class_names) if name in (names or self.class_names)]
        return {title: float(mean(values[chosen])) for title, values in self.columns().items()}

    def table(self, subsets: Mapping[str, Sequence[str]] | None = None) -> str:
        """All figures in percent, as text.

        Args:
            subsets: names of classes to give further means of, by their title.
        """
        means = {"mean": self.means()}
        means |= {f"mean of {title}": self.means(names) for title, names in (subsets or {}).items()}
        width = max(len("pixel accuracy"), *map(len, (*self.class_names, *means)))
        header = f"{'%':<{width}}" + "".join(f"{title:>14}" for title in self.columns())
        rule = "-" * len(header)
        rows = zip(self.class_names, zip(*self.columns().values(), strict=True), strict=True)
        lines = [header, rule, *(_row(name, values, width) for name, values in rows), rule]
        lines += [_row(title, values.values(), width) for title, values in means.items()]
        lines += [_row("pixel accuracy", [self.pixel_accuracy], width), ""]
        curve = "  ".join(f"{w} px {_percent(value)}" for w, value in self.trimap.items())
        return "\n".join([*lines, f"mean IoU near boundaries (trimap): {curve}"])

    def as_json(self, subsets: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """Everything measured, in terms of JSON; figures in [0, 1], null where nothing was counted."""
        by_class = {
            _key(title): dict(zip(self.class_names, map(_or_null, values), strict=True))
            for title, values in self.columns().items()
        }
        means = {"all": self.means()} | {title: self.means(names) for title, names in (subsets or {}).items()}
        return {
            "images": self.images,
            "class_names": list(self.class_names),
            "pixel_accuracy": _or_null(self.pixel_accuracy),
            "unlabelled": _or_null(self.unlabelled),
            "means": {
                title: {_key(name): _or_null(value) for name, value in figures.items()}
                for title, figures in means.items()
            },
            "classes": by_class,
            "trimap": {str(w): _or_null(value) for w, value in self.trimap.items()},
            "confusion": self.confusion.tolist(),
            "left_out": list(self.left_out),
        }

    def save(self, path: str | os.PathLike, subsets: Mapping[str, Sequence[str]] | None = None) -> None:
        """Writes `as_json()` to a file."""
        files.write_json(path, self.as_json(subsets))


def _row(name: str, values: Iterable[float], width: int) -> str:
    return f"{name:<{width}}" + "".join(f"{_percent(value):>14}" for value in values)


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _or_null(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _key(title: str) -> str:
    return title.lower().replace(" ", "_")
