"""Validation during training: the metrics as scalars, a few images as pictures, both for TensorBoard."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from deeplab_tf.evaluation import charts
from deeplab_tf.evaluation.drawing import draw_example
from deeplab_tf.evaluation.evaluating import Evaluation, evaluate
from deeplab_tf.inference.segmenter import Segmentation, Segmenter
from deeplab_tf.stopping import Stopped, StopRequest


def make_validate(
    segmenter: Segmenter,
    examples: tf.data.Dataset,
    *,
    overlays: int = 4,
    on_evaluation: Callable[[Evaluation], None] | None = None,
) -> Callable[[int, StopRequest], dict[str, float]]:
    """Makes a function that validates the weights as they are when it is called.

    Args:
        segmenter: of the model in training.
        examples: as for `evaluate`.
        overlays: number of examples to draw (input, truth, prediction) with `tf.summary.image`.
        on_evaluation: called with every result.

    Returns:
        (step, stop) -> {"mean_iou", "pixel_accuracy", "iou/<class>", ...}, each in [0, 1]. It raises `Stopped` after an
        image before which `stop` received a signal.
    """

    def look(
        index: int,
        example: dict,
        unrefined: Segmentation,
        refined: Segmentation | None,
        step: int,
        stop: StopRequest | None,
    ) -> None:
        if stop and stop.signal_number():
            raise Stopped(stop.signal_number())
        if index < overlays:
            picture = draw_example(segmenter, example, unrefined, refined)
            tf.summary.image(f"validation/{index}", picture[np.newaxis], step=step)

    def validate(step: int, stop: StopRequest | None = None) -> dict[str, float]:
        evaluation = evaluate(segmenter, examples, on_example=lambda *args: look(*args, step=step, stop=stop))
        if on_evaluation:
            on_evaluation(evaluation)
        confusion = charts.confusion_figure(evaluation.network.counts, evaluation.class_names)
        tf.summary.image("validation/confusion", charts.render(confusion)[np.newaxis], step=step)
        per_class = zip(evaluation.class_names, evaluation.network.iou, strict=True)
        return evaluation.network.summary() | {
            f"iou/{name}": float(iou) for name, iou in per_class if not np.isnan(iou)
        }

    return validate
