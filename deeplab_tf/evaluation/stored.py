"""Evaluations read back from their files: what was evaluated, and the counts of every image."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np

from deeplab_tf.counts import ImageCounts
from deeplab_tf.errors import UserError
from deeplab_tf.evaluation.comparison import Comparison, check_classes, check_comparable, compare, differences
from deeplab_tf.evaluation.evaluating import Evaluation, evaluate
from deeplab_tf.inference.segmenter import Segmenter
from deeplab_tf.run_folder import image_counts_beside


@dataclasses.dataclass(frozen=True)
class StoredEvaluation:
    """An evaluation that `evaluate_and_draw` has written.

    Attributes:
        path: its `evaluation*.json`.
        made_with: what was evaluated, see `Evaluation.made_with`.
        images: number of images.
        mean_iou: in [0, 1] by stage, "network" and, where there was one, "crf".
        image_counts: counts of every image.
        trimap: curves of the quality near boundaries, see `charts.trimap_figure`; empty where there are none.
    """

    path: pathlib.Path
    made_with: Mapping[str, Any]
    images: int
    mean_iou: Mapping[str, float]
    image_counts: ImageCounts
    trimap: Mapping[str, Any]

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Reads an `evaluation*.json` and the counts beside it.

        Raises:
            UserError: one of the files is missing or another one, they are not of one evaluation, or they were written
                by a version that did not record what was evaluated.
        """
        path = pathlib.Path(path).expanduser()
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
            images, stages = written["images"], ("network", *(["crf"] if "crf" in written else []))
            mean_iou = {stage: written[stage]["mean_iou"] for stage in stages}
            mean_iou = {stage: float("nan") if value is None else value for stage, value in mean_iou.items()}
            confusions = {stage: np.array(written[stage]["confusion"]) for stage in stages}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not an evaluation ({error!r:.200}); evaluate.py writes evaluation.json") from None
        if not written.get("made_with"):
            raise UserError(f"{path}: does not say what was evaluated (it is of an older version); evaluate again")
        counts = ImageCounts.load(image_counts_beside(path))
        for stage, confusion in confusions.items():
            of_stage = getattr(counts, stage)
            if of_stage is None or not np.array_equal(of_stage.sum(axis=0)[1], confusion.sum(axis=1)):
                raise UserError(
                    f"{path} and {image_counts_beside(path).name} are of different evaluations; evaluate again"
                )
        # Older versions knew nothing else.
        made_with = {"align_corners": True, "vertical_flip": False} | written["made_with"]
        return cls(path, made_with, images, mean_iou, counts, written.get("trimap", {}))

    def answers(self, wanted: Mapping[str, Any]) -> bool:
        """Whether the figures are those of an evaluation made with `wanted`, but for `limit`.

        What was evaluated with the CRF answers for the network alone as well.
        """
        different = differences(self.made_with, wanted).keys() - {"limit"}
        return different <= ({"crf"} if wanted["crf"] is None else set())


def stored_counts(
    model_dir: str | os.PathLike, wanted: Mapping[str, Any], compared_with: ImageCounts
) -> ImageCounts | None:
    """The counts in a run's folder of an evaluation that was made as is wanted, on the images to compare with.

    Args:
        model_dir: folder of the run.
        wanted: what must have been evaluated, see `Evaluation.made_with`.
        compared_with: counts of the images.

    Returns:
        counts, with those after the CRF only where `wanted` has one; None where there are none of the kind.
    """
    for path in sorted(pathlib.Path(model_dir).expanduser().glob("evaluation*.json")):
        try:
            stored = StoredEvaluation.load(path)
            check_comparable(compared_with, stored.image_counts)
        except UserError:
            continue
        if stored.answers(wanted):
            counts = stored.image_counts
            return counts if wanted["crf"] is not None else dataclasses.replace(counts, crf=None)
    return None


def compare_stored(first: StoredEvaluation, second: StoredEvaluation) -> tuple[Comparison, dict[str, tuple[Any, Any]]]:
    """Compares two evaluations as they are, however they were made.

    Returns:
        the comparison, and what differs between the ways in which they were made, see `differences`.

    Raises:
        UserError: they differ in classes, images, or truths.
    """
    return compare(first.image_counts, second.image_counts), differences(first.made_with, second.made_with)


def compare_with_run(
    evaluation: Evaluation, other: Segmenter, model_dir: str | os.PathLike, examples: Iterable[Mapping[str, Any]]
) -> Comparison:
    """Compares an evaluation with that of another run, made the same way: the stored one, else one made now, in memory.

    Args:
        evaluation: with `made_with`.
        other: the other run's segmenter, with the same options of inference as the one evaluated.
        model_dir: folder of the other run; nothing is written there.
        examples: the ones that were evaluated.

    Raises:
        UserError: the runs have different classes.
    """
    check_classes(evaluation.class_names, other.class_names, f"the run in {model_dir}")
    counts = stored_counts(model_dir, {**evaluation.made_with, **other.settings}, evaluation.image_counts)
    if counts is None:
        counts = evaluate(other, examples).image_counts
    return compare(evaluation.image_counts, counts)
