"""The trimap curve against brute force over all pairs of pixels, on random and on VOC's own masks."""

import numpy as np
import pytest
from PIL import Image

from deeplab_tf.errors import UserError
from deeplab_tf.evaluation.trimap import TrimapCurve, boundary_distance


def brute_force_distance(labels):
    """To the nearest pixel that has a neighbour of another label, by comparing with every one of them."""
    height, width = labels.shape
    touching = [
        (y, x)
        for y in range(height)
        for x in range(width)
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))
        if 0 <= y + dy < height and 0 <= x + dx < width and labels[y + dy, x + dx] != labels[y, x]
    ]
    if not touching:
        return np.full(labels.shape, np.inf)
    ys, xs = np.array(touching).T
    grid_y, grid_x = np.mgrid[:height, :width]
    return np.sqrt((grid_y[..., None] - ys) ** 2 + (grid_x[..., None] - xs) ** 2).min(-1)


def brute_force_curve(masks, predictions, widths, num_classes):
    curve = []
    distances = [brute_force_distance(labels) for labels in masks]
    for width in widths:
        ious = []
        for c in range(num_classes):
            intersection = union = 0
            for labels, predicted, distance in zip(masks, predictions, distances, strict=True):
                band = (distance < width) & (labels != 255)
                intersection += (band & (labels == c) & (predicted == c)).sum()
                union += (band & ((labels == c) | (predicted == c))).sum()
            if union:
                ious.append(intersection / union)
        curve.append(np.mean(ious))
    return curve


def blocks(rng, height, width):
    coarse = rng.choice([0, 1, 2, 3, 255], (height // 9 + 1, width // 9 + 1), p=[0.4, 0.2, 0.2, 0.1, 0.1])
    return np.kron(coarse, np.ones((9, 9)))[:height, :width].astype(np.uint8)


def test_against_brute_force():
    rng = np.random.default_rng(0)
    masks = [blocks(rng, 40, 52), blocks(rng, 31, 47), np.full((20, 20), 2, np.uint8)]
    predictions = [np.where(rng.random(m.shape) < 0.8, m % 255, rng.integers(0, 4, m.shape)) for m in masks]
    widths = (1, 2, 4, 6, 9)
    curve = TrimapCurve(5, widths)
    for labels, predicted in zip(masks, predictions, strict=True):
        distance = boundary_distance(labels)
        np.testing.assert_allclose(distance, brute_force_distance(labels))
        curve.add(labels, predicted.astype(np.uint8), distance)
    np.testing.assert_allclose(curve.mean_iou, brute_force_curve(masks, predictions, widths, 5))
    assert len(set(curve.mean_iou)) == len(widths)


def test_masks_of_voc_against_brute_force(voc_masks_dir):
    paths = sorted(voc_masks_dir.rglob("*.png"))[:2]
    masks = [np.asarray(Image.open(path))[::5, ::5] for path in paths]
    predictions = [np.roll(mask, 2, axis=1) % 255 for mask in masks]
    curve = TrimapCurve(21, (1, 3, 8))
    for labels, predicted in zip(masks, predictions, strict=True):
        curve.add(labels, predicted, boundary_distance(labels))
    np.testing.assert_allclose(curve.mean_iou, brute_force_curve(masks, predictions, (1, 3, 8), 21))


def test_an_image_of_one_label_has_no_band():
    curve = TrimapCurve(3, (1, 1000))
    labels = np.ones((5, 5), np.uint8)
    curve.add(labels, labels, boundary_distance(labels))
    assert curve.counts.sum() == 0 and np.isnan(curve.mean_iou).all()


@pytest.mark.parametrize("widths", [(), (2, 1), (0, 3), (2, 2)])
def test_widths_that_make_no_curve_are_refused(widths):
    with pytest.raises(UserError, match="expected positive numbers of pixels, ascending"):
        TrimapCurve(3, widths)
