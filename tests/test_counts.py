"""The metrics against brute force over sets of pixels."""

import numpy as np
import pytest

from deeplab_tf.counts import ConfusionMatrix


@pytest.fixture
def counted():
    rng = np.random.default_rng(1)
    labels = rng.choice([0, 1, 2, 255], size=(3, 40, 50), p=[0.5, 0.3, 0.1, 0.1])
    predictions = np.where(rng.random(labels.shape) < 0.7, labels, rng.integers(0, 5, labels.shape)) % 255
    predictions[labels == 255] = 4
    confusion = ConfusionMatrix.empty(6)
    for label, prediction in zip(labels, predictions, strict=True):
        confusion.add(label, prediction)
    return labels, predictions, confusion


def test_against_sets_of_pixels(counted):
    labels, predictions, confusion = counted
    labelled = labels != 255
    ious, accuracies, weighted = [], [], 0.0
    for c in range(6):
        truth, predicted = labelled & (labels == c), labelled & (predictions == c)
        union = (truth | predicted).sum()
        if union:
            iou = (truth & predicted).sum() / union
            ious.append(iou)
            weighted += truth.sum() / labelled.sum() * iou
            assert confusion.iou[c] == pytest.approx(iou)
        else:
            assert np.isnan(confusion.iou[c])
        if truth.any():
            accuracies.append((truth & predicted).sum() / truth.sum())
    assert len(ious) == 5  # Classes 3 and 4 are predicted only; class 5 does not occur.
    assert confusion.summary() == pytest.approx(
        {
            "mean_iou": np.mean(ious),
            "pixel_accuracy": (labels == predictions)[labelled].mean(),
            "mean_accuracy": np.mean(accuracies),
            "frequency_weighted_iou": weighted,
        }
    )


def test_nothing_counted_is_nan():
    assert all(np.isnan(value) for value in ConfusionMatrix.empty(3).summary().values())


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([[0, 3]], [[0, 0]], "label values 0 to 3, expected 0 to 2"),
        ([[0, 1]], [[0, 3]], "prediction values 0 to 3, expected 0 to 2"),
        ([[0, 1]], [[0]], "shape"),
    ],
)
def test_what_is_no_class_is_refused(labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        ConfusionMatrix.empty(3).add(np.array(labels), np.array(predictions))
