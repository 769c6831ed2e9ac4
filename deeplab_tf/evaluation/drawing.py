"""An evaluation that leaves something to look at: the figures as a file, a few examples as pictures."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from deeplab_tf import pictures as drawing
from deeplab_tf.evaluation import trimap
from deeplab_tf.evaluation.evaluating import Evaluation, evaluate
from deeplab_tf.evaluation.submission import Submission
from deeplab_tf.inference.segmenter import Segmentation, Segmenter
from deeplab_tf.run_folder import EVALUATION_FILE, IMAGE_COUNTS_FILE, OVERLAYS


def evaluate_and_draw(
    segmenter: Segmenter,
    examples: tf.data.Dataset,
    model_dir: str | pathlib.Path,
    *,
    pictures: int = 4,
    submission: Submission | None = None,
) -> Evaluation:
    """Evaluates; writes the figures and the panels of the first examples to `model_dir`.

    `evaluation.json` holds all that was measured, `evaluation_images.npz` the counts of each image
    (`ImageCounts.load`), `overlays/` the panels.

    Args:
        segmenter: as for `evaluate`.
        examples: as for `evaluate`, with "filename".
        model_dir: folder of the run.
        pictures: number of examples to draw.
        submission: gets the final labels of every example.
    """
    model_dir = pathlib.Path(model_dir)

    def save(index: int, example: Mapping, unrefined: Segmentation, refined: Segmentation | None) -> None:
        if index < pictures or submission:
            filename = bytes(np.asarray(example["filename"]).item()).decode()
        if index < pictures:
            panel = draw_example(segmenter, example, unrefined, refined)
            drawing.save_picture(model_dir / OVERLAYS / f"{pathlib.Path(filename).stem}.png", panel)
        if submission:
            submission.write(filename, (refined or unrefined).labels)

    evaluation = evaluate(segmenter, examples, trimap_widths=trimap.WIDTHS, on_example=save)
    evaluation.save(model_dir / EVALUATION_FILE)
    evaluation.image_counts.save(model_dir / IMAGE_COUNTS_FILE)
    return evaluation


def draw_example(
    segmenter: Segmenter, example: Mapping[str, Any], unrefined: Segmentation, refined: Segmentation | None = None
) -> np.ndarray:
    """A panel of one example: image, truth, what the network says and, where there is one, what the CRF says.

    Returns:
        uint8 [h, w, 3].
    """
    image, truth = np.asarray(example["image"]), np.asarray(example["label"])
    masks = {"truth": truth, "network": unrefined.labels}
    if refined is not None:
        masks["network + CRF"] = refined.labels
    palette = segmenter.info.palette
    columns = {"image": image} | {title: drawing.overlay(image, mask, palette) for title, mask in masks.items()}
    return drawing.panel(columns, segmenter.info.class_names, palette, list(masks.values()))
