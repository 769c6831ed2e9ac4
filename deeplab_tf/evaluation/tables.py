"""The figures by class, their means over all classes and over named subsets: of a network and of any folder of masks.

Figures are by name ("IoU", "precision", ...), each float64 [C], in [0, 1], NaN where nothing was counted. Needs no
TensorFlow.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from deeplab_tf.classes import CITYSCAPES
from deeplab_tf.counts import f1, iou, mean, precision, recall
from deeplab_tf.errors import UserError

Figures = Mapping[str, np.ndarray]
Subsets = Mapping[str, Sequence[str]]  # names of classes by the title of the subset

# Classes that a protocol takes the mean over. The models from SYNTHIA are scored on Cityscapes over 16 or 13 of the 19.
SUBSETS = {"synthia16": tuple(name for name in CITYSCAPES if name not in ("terrain", "truck", "train"))}
SUBSETS["synthia13"] = tuple(name for name in SUBSETS["synthia16"] if name not in ("wall", "fence", "pole"))

_COLUMN = 15  # width in a table, letters


def named_subsets(names: Sequence[str]) -> dict[str, Sequence[str]]:
    """The classes to take further means over, by title.

    Args:
        names: of `SUBSETS`; further ones are names of classes, which make one subset together.
    """
    subsets = {name: SUBSETS[name] for name in names if name in SUBSETS}
    chosen = [name for name in names if name not in SUBSETS]
    return subsets | ({f"{len(chosen)} chosen": chosen} if chosen else {})


def check_subsets(subsets: Subsets, class_names: Sequence[str]) -> None:
    """Refuses names that are not those of classes.

    Raises:
        UserError: one is not.
    """
    unknown = [name for names in subsets.values() for name in names if name not in class_names]
    if unknown:
        raise UserError(f"--classes: {unknown[0]!r} is not one of {', '.join(class_names)}")


def by_class(
    counts: np.ndarray, boundary_iou: np.ndarray | None = None, boundary_f1: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """The figures by class.

    Args:
        counts: int64 [3, C], see `deeplab_tf.counts.class_counts`.
        boundary_iou: float64 [C] (`BoundaryQuality.iou`), where it was measured.
        boundary_f1: likewise.
    """
    figures = {"IoU": iou(counts), "precision": precision(counts), "recall": recall(counts), "F1": f1(counts)}
    further = {"boundary IoU": boundary_iou, "boundary F1": boundary_f1}
    return figures | {name: values for name, values in further.items() if values is not None}


def means(figures: Figures, class_names: Sequence[str], chosen: Sequence[str] = ()) -> dict[str, float]:
    """The means of figures over some classes, those of them that occur.

    Args:
        figures: by class.
        class_names: C names.
        chosen: the names of some; default: all.

    Raises:
        UserError: one is not a class.
    """
    check_subsets({"": chosen}, class_names)
    places = [i for i, name in enumerate(class_names) if name in (chosen or class_names)]
    return {title: float(mean(values[places])) for title, values in figures.items()}


def all_means(figures: Figures, class_names: Sequence[str], subsets: Subsets) -> dict[str, dict[str, float]]:
    """`means` over all classes, titled "mean", and over each subset, titled "mean of <its title>"."""
    titled = {f"mean of {title}": means(figures, class_names, names) for title, names in subsets.items()}
    return {"mean": means(figures, class_names)} | titled


def table(
    title: str, figures: Figures, class_names: Sequence[str], subsets: Subsets, further: Mapping[str, Iterable[float]]
) -> list[str]:
    """The lines of a table in percent: a row for each class, the means, and further rows.

    Args:
        title: of the first column.
        figures: by class; a column each.
        class_names: C names.
        subsets: to give further means of.
        further: rows by title, with figures for the first columns.
    """
    averages = {name: values.values() for name, values in all_means(figures, class_names, subsets).items()}
    width = max(map(len, (title, *class_names, *averages, *further)))
    header = f"{title:<{width}}" + "".join(f"{name:>{_COLUMN}}" for name in figures)
    rule = "-" * len(header)

    def lines(entries: Iterable[tuple[str, Iterable[float]]]) -> list[str]:
        return [f"{name:<{width}}" + "".join(f"{percent(v):>{_COLUMN}}" for v in values) for name, values in entries]

    of_classes = zip(class_names, zip(*figures.values(), strict=True), strict=True)  # names may occur twice
    return [header, rule, *lines(of_classes), rule, *lines(averages.items()), *lines(further.items())]


def trimap_line(curve: Mapping[float, float], title: str = "mean IoU near boundaries (trimap)") -> str:
    """A line with the mean IoU, in percent, by the width of the band around boundaries."""
    return f"{title}: " + "  ".join(f"{width:g} px {percent(value)}" for width, value in curve.items())


def means_as_json(figures: Figures, class_names: Sequence[str], subsets: Subsets) -> dict[str, dict[str, float | None]]:
    """The means over all classes and over the subsets, by the title of the subset and the key of the figure."""
    by_title = {"all": ()} | dict(subsets)
    return {
        title: {key(name): or_null(value) for name, value in means(figures, class_names, names).items()}
        for title, names in by_title.items()
    }


def percent(value: float) -> str:
    """Two digits after the point; "-" for NaN."""
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def or_null(value: float) -> float | None:
    """The value in terms of JSON, which has no NaN."""
    return None if math.isnan(value) else float(value)


def key(title: str) -> str:
    """The key of a figure in files: "boundary IoU" is "boundary_iou" there."""
    return title.lower().replace(" ", "_")
