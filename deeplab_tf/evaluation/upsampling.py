"""From score maps to the pixels of an image: labels without ever holding the scores of every pixel.

A score map is 64 times smaller than its image, and a label is all that most callers want of a pixel. So the bilinear
interpolation with corners aligned (Caffe's Interp, `deeplab_tf.models.geometry.upsample_score_map`) and the arg max are
one pass here, row by row: the scores of one row of the image are all that exists at a time.

`score_maps` are of one image, float32 [V, h, w, C]: V = 1, or 2 when the second is that of the mirrored image; then the
scores of the two are averaged at every pixel. Output (i, j) sits on pixel (i, j) * output_stride.
"""

import numpy as np

from deeplab_tf.crf.compiling import kernel

# Rows of an image whose scores exist at the same time, before their softmax.
_BAND = 16


def upsampled_labels(score_maps: np.ndarray, height: int, width: int, output_stride: int) -> np.ndarray:
    """The class of the highest score at every pixel; the first one where scores are equal.

    Args:
        score_maps: float32 [V, h, w, C].
        height: of the image, pixels.
        width: likewise.
        output_stride: pixels between two outputs.

    Returns:
        uint8 [height, width].
    """
    labels = np.empty((height, width), np.uint8)
    _labels(np.ascontiguousarray(score_maps), output_stride, labels)
    return labels


def upsampled_probabilities(score_maps: np.ndarray, height: int, width: int, output_stride: int) -> np.ndarray:
    """The softmax of the scores at every pixel.

    Args:
        score_maps: float32 [V, h, w, C].
        height: of the image, pixels.
        width: likewise.
        output_stride: pixels between two outputs.

    Returns:
        float32 [height, width, C], adding up to 1 at each pixel.
    """
    score_maps = np.ascontiguousarray(score_maps)
    probabilities = np.empty((height, width, score_maps.shape[-1]), np.float32)
    for top in range(0, height, _BAND):
        band = probabilities[top : top + _BAND]
        _scores_below_maximum(score_maps, output_stride, top, band)
        np.exp(band, out=band)
        _divide_by_sum(band)
    return probabilities


def highest(scores: np.ndarray) -> np.ndarray:
    """Labels uint8 [H, W] of float32 [H, W, C]: `scores.argmax(-1)`, several times faster for a few classes."""
    labels = np.empty(scores.shape[:2], np.uint8)
    _highest(np.ascontiguousarray(scores), labels)
    return labels


@kernel
def _interpolated_row(score_maps, output_stride, y, rows):
    """rows [V, w, C] = the score maps at the height of pixel row y."""
    last = score_maps.shape[1] - 1
    i = min(y // output_stride, last)
    below = min(i + 1, last)
    weight = np.float32(y - i * output_stride) / np.float32(output_stride)
    for v in range(score_maps.shape[0]):
        for j in range(score_maps.shape[2]):
            for c in range(score_maps.shape[3]):
                upper, lower = score_maps[v, i, j, c], score_maps[v, below, j, c]
                rows[v, j, c] = lower * weight + upper * (np.float32(1) - weight)


@kernel
def _interpolated_pixel(row, output_stride, x, pixel):
    """pixel [C] = the interpolated row [w, C] at pixel column x."""
    last = row.shape[0] - 1
    j = min(x // output_stride, last)
    right = min(j + 1, last)
    weight = np.float32(x - j * output_stride) / np.float32(output_stride)
    for c in range(row.shape[1]):
        pixel[c] = row[right, c] * weight + row[j, c] * (np.float32(1) - weight)


@kernel
def _scores_of_pixel(rows, output_stride, x, width, pixel, mirrored_pixel):
    """pixel [C] = the mean over the views; the second one is mirrored."""
    _interpolated_pixel(rows[0], output_stride, x, pixel)
    if len(rows) == 2:
        _interpolated_pixel(rows[1], output_stride, width - 1 - x, mirrored_pixel)
        for c in range(len(pixel)):
            pixel[c] = (pixel[c] + mirrored_pixel[c]) * np.float32(0.5)


@kernel
def _labels(score_maps, output_stride, labels):
    height, width = labels.shape
    rows = np.empty((score_maps.shape[0], *score_maps.shape[2:]), np.float32)
    pixel, mirrored_pixel = np.empty((2, score_maps.shape[3]), np.float32)
    for y in range(height):
        _interpolated_row(score_maps, output_stride, y, rows)
        for x in range(width):
            _scores_of_pixel(rows, output_stride, x, width, pixel, mirrored_pixel)
            best = 0
            for c in range(1, len(pixel)):
                if pixel[c] > pixel[best]:
                    best = c
            labels[y, x] = best


@kernel
def _scores_below_maximum(score_maps, output_stride, top, band):
    """band [n, W, C] = the scores of the image's rows from `top` on, minus the highest of each pixel."""
    rows = np.empty((score_maps.shape[0], *score_maps.shape[2:]), np.float32)
    mirrored_pixel = np.empty(score_maps.shape[3], np.float32)
    for y in range(band.shape[0]):
        _interpolated_row(score_maps, output_stride, top + y, rows)
        for x in range(band.shape[1]):
            pixel = band[y, x]
            _scores_of_pixel(rows, output_stride, x, band.shape[1], pixel, mirrored_pixel)
            highest = pixel[0]
            for c in range(1, len(pixel)):
                highest = max(highest, pixel[c])
            for c in range(len(pixel)):
                pixel[c] -= highest


@kernel
def _divide_by_sum(band):
    for y in range(band.shape[0]):
        for x in range(band.shape[1]):
            pixel = band[y, x]
            total = np.float32(0)
            for c in range(len(pixel)):
                total += pixel[c]
            for c in range(len(pixel)):
                pixel[c] /= total


@kernel
def _highest(scores, labels):
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            best = 0
            for c in range(1, scores.shape[2]):
                if scores[y, x, c] > scores[y, x, best]:
                    best = c
            labels[y, x] = best
