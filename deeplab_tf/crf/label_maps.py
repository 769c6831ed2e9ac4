"""Label maps instead of probabilities: a class for every pixel, and how far it is to be believed."""

import numpy as np

from deeplab_tf.classes import IGNORE_LABEL
from deeplab_tf.crf.check import MOST_CLASSES, is_number
from deeplab_tf.errors import UserError


def label_probabilities(
    labels: np.ndarray, num_classes: int, confidence: float = 0.7, ignore_label: int = IGNORE_LABEL
) -> np.ndarray:
    """Probabilities for a label map, whose labels are right with some confidence.

    Args:
        labels: integers [H, W], or [D, H, W] of a volume.
        num_classes: C.
        confidence: the probability of the label at its pixel; the other classes share the rest.
        ignore_label: the label of pixels where every class is as likely.

    Returns:
        float32 [H, W, C], or [D, H, W, C].

    Raises:
        UserError: for a label that is not a class, or a confidence not between 1/C and 1.
    """
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"the labels have dtype {labels.dtype}, expected integers")
    if not is_number(num_classes) or not 2 <= num_classes <= MOST_CLASSES or num_classes != int(num_classes):
        raise UserError(f"num_classes is {num_classes!r}, expected a whole number from 2 to {MOST_CLASSES}")
    num_classes = int(num_classes)
    if not is_number(confidence) or not 1 / num_classes < confidence < 1:
        raise UserError(f"the confidence of labels is {confidence}, expected between 1/{num_classes} (classes) and 1")
    known = labels != ignore_label
    if known.any() and not 0 <= labels[known].min() <= labels[known].max() < num_classes:
        raise UserError(
            f"found labels {labels[known].min()} to {labels[known].max()}, expected 0 to {num_classes - 1}, or "
            f"{ignore_label} for pixels without one"
        )
    probabilities = np.full((*labels.shape, num_classes), (1 - confidence) / (num_classes - 1), np.float32)
    probabilities[known, labels[known]] = confidence
    probabilities[~known] = 1 / num_classes
    return probabilities
