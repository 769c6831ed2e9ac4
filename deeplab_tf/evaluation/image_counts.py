"""What an evaluation counted in each image: enough for every class's IoU over any selection of the images."""

import dataclasses
import pathlib
from typing import Self

import numpy as np

from deeplab_tf import files
from deeplab_tf.errors import UserError


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
            UserError: the file is missing or another one.
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
            raise UserError(f"{path}: no counts of an evaluation ({error}); evaluate.py writes them") from None


def class_counts(confusion: np.ndarray) -> np.ndarray:
    """The counts of one image, int64 [3, C], from its confusion matrix [C, C] (rows: truth)."""
    return np.stack([np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)])


def iou(counts: np.ndarray) -> np.ndarray:
    """Intersection over union [..., C] of counts [..., 3, C]; NaN for a class neither present nor predicted."""
    both, truth, predicted = np.moveaxis(counts, -2, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.true_divide(both, truth + predicted - both)


def mean_iou(counts: np.ndarray) -> np.ndarray:
    """Mean [...] of `iou` over the classes that occur; NaN where none does."""
    values = iou(counts)
    occurs = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(occurs, values, 0).sum(-1) / occurs.sum(-1)
