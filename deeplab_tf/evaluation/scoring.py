"""Scores of any folder of masks against a folder of truths: no network, no TensorFlow, no prepared data set."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import tqdm

from deeplab_tf import pictures
from deeplab_tf.classes import CITYSCAPES_TRAIN_IDS, IGNORE_LABEL
from deeplab_tf.counts import ConfusionMatrix, class_counts, mean_iou
from deeplab_tf.errors import UserError
from deeplab_tf.evaluation import trimap
from deeplab_tf.evaluation.boundaries import BoundaryQuality
from deeplab_tf.evaluation.score_result import FolderScore
from deeplab_tf.parallel import available_cores, in_order

# What the values in the files of a data set mean: {value: class}. Values that are missing are not classes.
ID_TABLES = {"cityscapes": CITYSCAPES_TRAIN_IDS}

_MASKS = tuple(sorted(pictures.SUFFIXES - {".jpeg", ".jpg"}))


@dataclasses.dataclass(frozen=True)
class MaskFolder:
    """A folder of masks and how to read them.

    Attributes:
        folder: with the masks, also in folders below it.
        suffix: that the names of its masks end in, before the ending: "_gtFine_labelIds". Other files are left alone.
        ids: {value in the files: class}, such as those of `ID_TABLES`; None: the values are the classes.
    """

    folder: str | os.PathLike
    suffix: str = ""
    ids: Mapping[int, int] | None = None

    def paths(self) -> dict[str, pathlib.Path]:
        """The masks by name: that of the file without suffix and ending.

        Raises:
            UserError: the folder is missing or without masks, or two masks have one name.
        """
        folder = pathlib.Path(self.folder).expanduser()
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
        found = {}
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in _MASKS and path.stem.endswith(self.suffix) and not path.name.startswith("."):
                name = path.stem.removesuffix(self.suffix)
                if name in found:
                    raise UserError(f"{folder}: holds {found[name]} and {path}; expected one mask of each name")
                found[name] = path
        if not found:
            raise UserError(f"{folder}: found no masks, expected names that end in {self.suffix}{' or '.join(_MASKS)}")
        return found

    def read(self, path: pathlib.Path) -> np.ndarray:
        """The classes in a mask, uint8 [H, W]; `IGNORE_LABEL` for values that the table does not have."""
        labels, _ = pictures.read_labels(path)
        if self.ids is None:
            return labels
        table = np.full(256, IGNORE_LABEL, np.uint8)
        table[list(self.ids)] = list(self.ids.values())
        return table[labels]


def id_table(name: str | None) -> Mapping[int, int] | None:
    """The table of ids of this name.

    Args:
        name: one of `ID_TABLES`; or a text file with a value and its class on each line, both numbers; None gives None.

    Raises:
        UserError: there is neither.
    """
    if name is None or name in ID_TABLES:
        return ID_TABLES.get(name)
    try:
        lines = pathlib.Path(name).expanduser().read_text(encoding="utf-8").splitlines()
        table = {int(value): int(label) for value, label in (line.split() for line in lines if line.strip())}
    except OSError as error:
        known = ", ".join(ID_TABLES)
        message = f"--prediction_ids, --label_ids: {name!r} is neither {known} nor a file ({error.strerror})"
        raise UserError(message) from error
    except ValueError as error:
        raise UserError(f"{name}: expected two numbers a line, a value and its class ({error})") from error
    if any(not 0 <= number <= 255 for pair in table.items() for number in pair):
        raise UserError(f"{name}: expected numbers from 0 to 255")
    return table


def score_folders(
    predictions: MaskFolder,
    labels: MaskFolder,
    class_names: Sequence[str] | None = None,
    *,
    ignore_label: int = IGNORE_LABEL,
    cores: int | None = None,
) -> FolderScore:
    """Scores masks on disk, at the resolution of the files.

    Pixels that are `ignore_label` in the truth do not count. A prediction there that is not a class ("ignore", or what
    its table does not have) counts as wrong, as Cityscapes' own scripts count it.

    Args:
        predictions: the masks to score; each needs a truth of the same name and size.
        labels: the truth; those without a prediction are only counted.
        class_names: C names; default: "0", "1" and so on, up to the largest label found in the truth.
        ignore_label: of the truth, after its table.
        cores: to use at most; default: all.

    Raises:
        UserError: a folder is missing or empty, no prediction has a truth, or nothing could be scored.
    """
    predicted, truths = predictions.paths(), labels.paths()
    if not predicted.keys() & truths.keys():
        raise UserError(
            f"{predictions.folder}: no mask here has the name of one in {labels.folder}: found {next(iter(predicted))} "
            f"and {next(iter(truths))}; --prediction_suffix and --label_suffix tell what to leave out of the names"
        )
    num_classes = 255 if class_names is None else len(class_names)

    def measure(name: str) -> "_ImageScore | str":
        path = predicted[name]
        try:
            if name not in truths:
                raise UserError(f"{path}: has no truth in {labels.folder}")
            truth, prediction = labels.read(truths[name]), predictions.read(path)
            if truth.shape != prediction.shape:
                raise UserError(f"{path}: has shape {prediction.shape}, its truth {truth.shape}: expected the same")
            return _measure(truth, prediction, num_classes, ignore_label, path, truths[name])
        except UserError as error:
            return str(error)

    total, left_out = _ImageScore.zeros(num_classes), []
    workers = max(1, min(cores or available_cores(), len(predicted)))
    results = in_order(measure, predicted, workers)
    for result in tqdm.tqdm(results, "score", len(predicted), leave=False, unit="mask", dynamic_ncols=True):
        if isinstance(result, str):
            left_out.append(result)
        else:
            total.add(result)
    images = len(predicted) - len(left_out)
    if not images:
        raise UserError(f"{left_out[0]} (and {len(left_out) - 1} more): nothing could be scored")
    if class_names is None:
        class_names = [str(i) for i in range(total.largest_label + 1)]
    return total.result(tuple(class_names), images, len(truths.keys() - predicted.keys()), tuple(left_out))


@dataclasses.dataclass
class _ImageScore:
    """Counts of one image, or of several: the fields are sums."""

    confusion: np.ndarray  # int64 [C + 1, C + 1]
    boundary: BoundaryQuality
    bands: np.ndarray  # int64 [widths, 3, C + 1]

    @classmethod
    def zeros(cls, num_classes: int) -> "_ImageScore":
        return cls(
            np.zeros((num_classes + 1, num_classes + 1), np.int64),
            BoundaryQuality(num_classes),
            np.zeros((len(trimap.WIDTHS), 3, num_classes + 1), np.int64),
        )

    @property
    def largest_label(self) -> int:
        """The largest class in the truth."""
        return int(np.flatnonzero(self.confusion.sum(axis=1)).max(initial=0))

    def add(self, other: "_ImageScore") -> None:
        self.confusion += other.confusion
        self.boundary += other.boundary
        self.bands += other.bands

    def result(self, class_names: tuple[str, ...], images: int, not_predicted: int, left_out: tuple) -> FolderScore:
        count = len(class_names)
        confusion = np.zeros((count + 1, count + 1), np.int64)
        confusion[:count, :count] = self.confusion[:count, :count]
        confusion[:count, count] = self.confusion[:count, count:].sum(axis=1)
        curve = zip(trimap.WIDTHS, self.bands[..., :count], strict=True)
        return FolderScore(
            class_names,
            confusion,
            self.boundary.iou[:count],
            self.boundary.f1[:count],
            {width: float(mean_iou(counts)) for width, counts in curve},
            images,
            not_predicted,
            left_out,
        )


def _measure(
    truth: np.ndarray, prediction: np.ndarray, num_classes: int, ignore_label: int, path: pathlib.Path, truth_path
) -> _ImageScore:
    """Counts one image: everything in it that is not a class becomes class C."""
    labelled = truth != ignore_label
    none = num_classes
    for values, source in ((truth[labelled], truth_path), (prediction, path)):
        wrong = values[(values >= num_classes) & (values != IGNORE_LABEL) & (values != ignore_label)]
        if wrong.size:
            raise UserError(f"{source}: found the value {wrong[0]}, expected classes 0 to {num_classes - 1}")
    labelled &= truth != IGNORE_LABEL
    prediction = np.where(labelled & (prediction < num_classes), prediction, none).astype(np.int16)
    truth = np.where(labelled, truth, none).astype(np.int16)

    confusion = ConfusionMatrix.empty(num_classes + 1)
    confusion.add(truth, prediction, none)
    boundary = BoundaryQuality(num_classes)
    boundary.add(truth, prediction, none)
    return _ImageScore(confusion.counts, boundary, _bands(truth, prediction, num_classes))


def _bands(truth: np.ndarray, prediction: np.ndarray, none: int) -> np.ndarray:
    """The counts of `TrimapCurve`, int64 [widths, 3, C + 1]."""
    curve = trimap.TrimapCurve(none + 1)
    curve.add(truth, prediction, trimap.boundary_distance(truth), none)
    return np.stack([class_counts(counts) for counts in curve.counts])
