"""Evaluation that writes its result: the figures as files, a few examples as pictures."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from deeplab_tf import model_card
from deeplab_tf.counts import CRF, NETWORK, STAGES
from deeplab_tf.evaluation import trimap
from deeplab_tf.evaluation.evaluating import Evaluation, evaluate, filename_of
from deeplab_tf.evaluation.submission import Submission
from deeplab_tf.evaluation.tables import Subsets
from deeplab_tf.inference.segmenter import Segmentation, Segmenter
from deeplab_tf.pictures import overlay, panel, save_picture
from deeplab_tf.run_folder import evaluation_files, set_evaluation_aside


def evaluate_and_draw(
    segmenter: Segmenter,
    examples: tf.data.Dataset,
    model_dir: str | pathlib.Path,
    *,
    dataset: str,
    split: str,
    limit: int | None = None,
    name: str = "",
    pictures: int = 4,
    submission: Submission | None = None,
    subsets: Subsets | None = None,
) -> Evaluation:
    """Evaluates; writes the figures and panels of the first examples to `model_dir`.

    `evaluation.json` holds all that was measured and what was evaluated, `evaluation_images.npz` the counts of each
    image (`ImageCounts.load`), `overlays/` the panels. The model card of the run takes up the figures. An evaluation of
    the same name that was made with other settings is kept, see `run_folder.set_evaluation_aside`.

    Args:
        segmenter: as for `evaluate`.
        examples: as for `evaluate`, with "filename".
        model_dir: folder of the run.
        dataset: name of the data set, for the record.
        split: likewise.
        limit: likewise: only the first images of the split are in `examples`; None: all.
        name: of this evaluation: "best" writes `evaluation_best.json` etc., see `run_folder.evaluation_files`.
        pictures: number of examples to draw.
        submission: gets the final labels of every example.
        subsets: names of classes to take further means over, by their title.
    """
    model_dir = pathlib.Path(model_dir).expanduser()
    written = evaluation_files(name)
    made_with = {"dataset": dataset, "split": split, "limit": limit, **segmenter.settings}
    set_evaluation_aside(model_dir, name, made_with)

    def save(index: int, example: Mapping, unrefined: Segmentation, refined: Segmentation | None) -> None:
        filename = filename_of(example, index)
        if index < pictures:
            drawn = draw_example(segmenter, example, unrefined, refined)
            save_picture(model_dir / written.overlays / f"{_stem(filename)}.png", drawn)
        if submission:
            submission.write(filename, (refined or unrefined).labels)

    evaluation = evaluate(
        segmenter, examples, trimap_widths=trimap.WIDTHS, made_with=made_with, subsets=subsets, on_example=save
    )
    evaluation.image_counts.save(model_dir / written.image_counts)
    evaluation.save(model_dir / written.figures)
    model_card.update(model_dir)
    return evaluation


def draw_example(
    segmenter: Segmenter, example: Mapping[str, Any], unrefined: Segmentation, refined: Segmentation | None = None
) -> np.ndarray:
    """A panel of one example: image, truth, labels of the network and, where there is one, after the CRF.

    Returns:
        uint8 [h, w, 3].
    """
    image, truth = np.asarray(example["image"]), np.asarray(example["label"])
    masks = {"truth": truth, STAGES[NETWORK]: unrefined.labels}
    if refined is not None:
        masks[STAGES[CRF]] = refined.labels
    palette = segmenter.info.palette
    columns = {"image": image} | {title: overlay(image, mask, palette) for title, mask in masks.items()}
    return panel(columns, segmenter.info.class_names, palette, list(masks.values()))


def _stem(filename: str) -> str:
    """The stem of an image's name as that of a file here: of a length that file systems take, no control characters."""
    return re.sub(r"[\x00-\x1f\x7f/\\]", "_", pathlib.PurePath(filename.replace("\0", "_")).stem)[:80] or "image"
