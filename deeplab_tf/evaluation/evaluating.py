"""Evaluation of a segmenter on a data set, image by image, at the original resolution."""

import collections
import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tqdm

from deeplab_tf import files
from deeplab_tf.counts import CRF, NETWORK, STAGES, ConfusionMatrix, ImageCounts, class_counts
from deeplab_tf.evaluation import tables
from deeplab_tf.evaluation.boundaries import BoundaryQuality
from deeplab_tf.evaluation.comparison import LEVEL, mean_iou_interval
from deeplab_tf.evaluation.tables import Subsets, or_null
from deeplab_tf.evaluation.trimap import TrimapCurve, boundary_distance
from deeplab_tf.inference.segmenter import Segmentation, Segmenter
from deeplab_tf.inference.stream import segment_stream

Results = dict[str, Segmentation]  # by stage


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        class_names: C names.
        network: confusion matrix of the network alone.
        crf: confusion matrix after the CRF; None without one.
        images: number of images.
        seconds: wall time of the evaluation.
        image_counts: the same, image by image.
        network_trimap: quality near boundaries, of the network alone; None where it was not asked for.
        crf_trimap: likewise after the CRF.
        network_boundary: boundary IoU and boundary F1, of the network alone; None where trimaps were not asked for.
        crf_boundary: likewise after the CRF.
        made_with: what was evaluated, in terms of JSON: "dataset", "split", "limit", and `Segmenter.settings`; empty
            where the caller of `evaluate` did not say.
        subsets: names of classes to take further means over, by their title.
    """

    class_names: tuple[str, ...]
    network: ConfusionMatrix
    crf: ConfusionMatrix | None
    images: int
    seconds: float
    image_counts: ImageCounts
    network_trimap: TrimapCurve | None = None
    crf_trimap: TrimapCurve | None = None
    network_boundary: BoundaryQuality | None = None
    crf_boundary: BoundaryQuality | None = None
    made_with: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    subsets: Subsets = dataclasses.field(default_factory=dict)

    @property
    def stages(self) -> dict[str, ConfusionMatrix]:
        """The confusion matrices by the names that people read, see `STAGES`."""
        return {STAGES[stage]: matrix for stage, matrix in self._by_stage().items()}

    @property
    def final(self) -> ConfusionMatrix:
        """The confusion matrix after the last step: the CRF where there is one."""
        return self.network if self.crf is None else self.crf

    def by_class(self, stage: str) -> dict[str, np.ndarray]:
        """The figures by class after a stage, "network" or "crf", by name, each float64 [C]; see `tables.by_class`."""
        matrix, boundary = self._by_stage()[stage], self._by_stage("_boundary").get(stage)
        return tables.by_class(class_counts(matrix.counts), *((boundary.iou, boundary.f1) if boundary else ()))

    def columns(self) -> dict[str, np.ndarray]:
        """IoU after each stage, by the names that people read, and the other figures after the last one."""
        last = self.by_class(tuple(self._by_stage())[-1])
        return {name: matrix.iou for name, matrix in self.stages.items()} | {
            name: values for name, values in last.items() if name != "IoU"
        }

    @functools.cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """The ends of the 95% interval of the mean IoU after each stage, see `comparison.mean_iou_interval`."""
        found = {stage: mean_iou_interval(getattr(self.image_counts, stage)) for stage in self._by_stage()}
        return {stage: interval for stage, interval in found.items() if interval}

    @functools.cached_property
    def change_interval(self) -> tuple[float, float] | None:
        """The ends of the 95% interval of what the CRF changes in the mean IoU; None where there is none."""
        return mean_iou_interval(self.image_counts.crf, before=self.image_counts.network) if self.crf else None

    def intervals_as_text(self) -> dict[str, str]:
        """The intervals as text, in percent, by their title; empty where there is none."""
        ends = [
            f"{STAGES[stage]} {tables.percent(low)} to {tables.percent(high)}"
            for stage, (low, high) in self.intervals.items()
        ]
        texts = {f"{LEVEL:.0%} interval of the mean IoU": f"{'; '.join(ends)} (bootstrap over images)"} if ends else {}
        if self.change_interval:
            values = (self.crf.mean_iou - self.network.mean_iou, *self.change_interval)
            change, low, high = (f"{100 * value:+.2f}" for value in values)
            title = "change of the mean IoU by the CRF"
            texts[title] = f"{change}, {LEVEL:.0%} interval {low} to {high} (paired bootstrap over images)"
        return texts

    def table(self) -> str:
        """The figures by class and in summary, in percent, as text; beside IoU those after the last step."""
        summaries = [matrix.summary() for matrix in self.stages.values()]
        further = {
            title: [summary[name] for summary in summaries]
            for name, title in (
                ("pixel_accuracy", "pixel accuracy"),
                ("mean_accuracy", "mean accuracy"),
                ("frequency_weighted_iou", "frequency-weighted IoU"),
            )
        }
        lines = tables.table("IoU, %", self.columns(), self.class_names, self.subsets, further)
        lines += [f"{title}: {text}" for title, text in self.intervals_as_text().items()]
        lines += [
            tables.trimap_line(
                dict(zip(curve.widths, curve.mean_iou, strict=True)),
                f"mean IoU near boundaries (trimap), {STAGES[stage]}",
            )
            for stage, curve in self._by_stage("_trimap").items()
        ]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """All that was measured and of what, in terms of JSON; figures in [0, 1], null where nothing was counted."""
        names = distinct(self.class_names)
        return {
            "made_with": dict(self.made_with),
            "images": self.images,
            "seconds": round(self.seconds, 3),
            "class_names": list(self.class_names),
            **{
                stage: {name: or_null(value) for name, value in matrix.summary().items()}
                | ({"mean_iou_interval": list(self.intervals[stage])} if stage in self.intervals else {})
                | {
                    tables.key(title): dict(zip(names, map(or_null, values), strict=True))
                    for title, values in self.by_class(stage).items()
                }
                | {"means": tables.means_as_json(self.by_class(stage), self.class_names, self.subsets)}
                | {"confusion": matrix.counts.tolist()}
                for stage, matrix in self._by_stage().items()
            },
        } | ({"trimap": self._trimap_as_json()} if self.network_trimap else {})

    def _by_stage(self, suffix: str = "") -> dict[str, Any]:
        """The confusion matrix, "_trimap" or "_boundary" of each stage that has one, by its key."""
        found = {stage: getattr(self, f"{stage}{suffix}") for stage in STAGES}
        return {stage: of_stage for stage, of_stage in found.items() if of_stage is not None}

    def _trimap_as_json(self) -> dict[str, list]:
        return {"widths": list(self.network_trimap.widths)} | {
            stage: [or_null(value) for value in curve.mean_iou] for stage, curve in self._by_stage("_trimap").items()
        }

    def save(self, path: str | pathlib.Path) -> None:
        """Writes `as_json()` to a file."""
        files.write_json(path, self.as_json())


def evaluate(
    segmenter: Segmenter,
    examples: Iterable[Mapping[str, Any]],
    *,
    trimap_widths: Sequence[float] = (),
    made_with: Mapping[str, Any] | None = None,
    subsets: Subsets | None = None,
    on_example: Callable[[int, Mapping[str, Any], Segmentation, Segmentation | None], None] | None = None,
) -> Evaluation:
    """Counts, over all examples, how the segmenter's labels agree with the truth.

    The images go through `segment_stream`: the network works on one while others are interpolated, refined and counted.

    Args:
        segmenter: with `info` (the classes).
        examples: {"image": uint8 [H, W, 3], "label": uint8 [H, W]} and, where there is one, "filename"; NumPy arrays or
            tensors, as `deeplab_tf.data.evaluation_pipeline` gives them.
        trimap_widths: in pixels, of the bands around boundaries to count as well, such as `trimap.WIDTHS`; with them
            boundary IoU and boundary F1 are measured too.
        made_with: becomes `Evaluation.made_with`.
        subsets: names of classes to take further means over, by their title, such as those of `tables.named_subsets`.
        on_example: called in order, on this thread, with (index, example, result of the network, result after the CRF
            or None).

    Raises:
        UserError: a label, or a name in a subset, is not a class of the segmenter.
    """
    started = time.monotonic()
    info = segmenter.info
    tables.check_subsets(subsets or {}, info.class_names)
    stages = (NETWORK, CRF) if segmenter.crf else (NETWORK,)
    totals = {stage: ConfusionMatrix.empty(info.num_classes) for stage in stages}
    curves = {stage: TrimapCurve(info.num_classes, trimap_widths) for stage in stages} if trimap_widths else {}
    boundaries = {stage: BoundaryQuality(info.num_classes) for stage in curves}
    counts = {stage: [] for stage in stages}
    filenames = []

    def count(example: Mapping[str, Any], image: np.ndarray, results: Results) -> tuple:
        """On other threads: of one image the confusion matrices, the counts near boundaries, and their quality."""
        label = np.asarray(example["label"])
        distance = boundary_distance(label) if curves else None
        confusions, near, quality = {}, {}, {}
        for stage, result in results.items():
            confusions[stage] = ConfusionMatrix.empty(info.num_classes)
            confusions[stage].add(label, result.labels, info.ignore_label)
            if curves:
                near[stage] = TrimapCurve(info.num_classes, trimap_widths)
                near[stage].add(label, result.labels, distance, info.ignore_label)
                quality[stage] = BoundaryQuality(info.num_classes)
                quality[stage].add(label, result.labels, info.ignore_label)
        return example, results, confusions, near, quality

    progress = tqdm.tqdm(examples, "evaluate", leave=False, unit="image", dynamic_ncols=True)
    images = ((example, np.asarray(example["image"])) for example in examples)
    with progress, contextlib.closing(segment_stream(segmenter, images, count)) as counted:
        for example, results, confusions, near, quality in counted:
            for stage, confusion in confusions.items():
                totals[stage].counts += confusion.counts
                counts[stage].append(class_counts(confusion.counts))
            for stage, curve in near.items():
                curves[stage].counts += curve.counts
                boundaries[stage] += quality[stage]
            if on_example:
                on_example(len(filenames), example, results[NETWORK], results.get(CRF))
            filenames.append(filename_of(example, len(filenames)))
            progress.update()
    arrays = {stage: np.array(rows, np.int64).reshape(-1, 3, info.num_classes) for stage, rows in counts.items()}
    return Evaluation(
        class_names=tuple(info.class_names),
        network=totals[NETWORK],
        crf=totals.get(CRF),
        images=len(filenames),
        seconds=time.monotonic() - started,
        image_counts=ImageCounts(tuple(info.class_names), tuple(filenames), **arrays),
        network_trimap=curves.get(NETWORK),
        crf_trimap=curves.get(CRF),
        network_boundary=boundaries.get(NETWORK),
        crf_boundary=boundaries.get(CRF),
        made_with=made_with or {},
        subsets=subsets or {},
    )


def filename_of(example: Mapping[str, Any], index: int) -> str:
    """The file name of an example's image; its number where it has none. Bytes that are not UTF-8 become U+FFFD."""
    name = np.asarray(example.get("filename", str(index))).item()
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def distinct(names: Sequence[str]) -> list[str]:
    """The names with "(2)", "(3)" ... after those that occur before, so that each is a key of its own."""
    seen, result = collections.Counter(), []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return result
