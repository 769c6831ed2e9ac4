"""From score maps to the pixels of an image: labels without ever holding the scores of every pixel.

A score map is 64 times smaller than its image, and a label is all that most callers want of a pixel. So the bilinear
interpolation with corners aligned (Caffe's Interp, `deeplab_tf.models.geometry.upsample_score_map`) and the arg max are
one pass here, row by row: the scores of one row of the image are all that exists at a time.

`score_maps` are of one image, float32 [V, h, w, C]: V = 1, or 2 when the second is that of the mirrored image; then the
scores of the two are averaged at every pixel. Output (i, j) sits on pixel (i, j) * output_stride.
"""

import numpy as np

from deeplab_tf.compiling import kernel

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
def _interpolated_class(row, output_stride, scores):
    """scores [W] = the interpolated scores of one class [w] at every pixel column; in runs that vectorise."""
    last = len(row) - 1
    for j in range(len(row)):
        start = j * output_stride
        here, right = row[j], row[min(j + 1, last)]
        for k in range(min(output_stride, len(scores) - start)):
            weight = np.float32(k) / np.float32(output_stride)
            scores[start + k] = right * weight + here * (np.float32(1) - weight)


@kernel
def _labels(score_maps, output_stride, labels):
    height, width = labels.shape
    views, _, columns, classes = score_maps.shape
    rows = np.empty((views, columns, classes), np.float32)
    scores, mirrored = np.empty((2, width), np.float32)
    highest, best = np.empty(width, np.float32), np.empty(width, np.int32)
    for y in range(height):
        _interpolated_row(score_maps, output_stride, y, rows)
        highest[:] = -np.inf
        best[:] = 0
        for c in range(classes):
            _interpolated_class(rows[0, :, c], output_stride, scores)
            if views == 2:
                _interpolated_class(rows[1, :, c], output_stride, mirrored)
                for x in range(width):
                    scores[x] = (scores[x] + mirrored[width - 1 - x]) * np.float32(0.5)
            for x in range(width):
                higher = scores[x] > highest[x]
                best[x] = c if higher else best[x]
                highest[x] = scores[x] if higher else highest[x]
        for x in range(width):
            labels[y, x] = best[x]


@kernel
def _interpolated_pixels(row, output_stride, pixels):
    """pixels [W, C] = the scores of a row [w, C] interpolated at every pixel column."""
    last = row.shape[0] - 1
    for x in range(pixels.shape[0]):
        j = x // output_stride
        weight = np.float32(x - j * output_stride) / np.float32(output_stride)
        here, right, pixel = row[j], row[min(j + 1, last)], pixels[x]
        for c in range(len(pixel)):
            pixel[c] = right[c] * weight + here[c] * (np.float32(1) - weight)


@kernel
def _scores_below_maximum(score_maps, output_stride, top, band):
    """band [n, W, C] = the scores of the image's rows from `top` on, minus the highest of each pixel."""
    views, _, columns, classes = score_maps.shape
    width = band.shape[1]
    rows = np.empty((views, columns, classes), np.float32)
    mirrored = np.empty((width if views == 2 else 0, classes), np.float32)
    for y in range(band.shape[0]):
        _interpolated_row(score_maps, output_stride, top + y, rows)
        _interpolated_pixels(rows[0], output_stride, band[y])
        if views == 2:
            _interpolated_pixels(rows[1], output_stride, mirrored)
            for x in range(width):
                for c in range(classes):
                    band[y, x, c] = (band[y, x, c] + mirrored[width - 1 - x, c]) * np.float32(0.5)
        for x in range(width):
            pixel = band[y, x]
            highest = pixel[0]
            for c in range(1, classes):
                highest = max(highest, pixel[c])
            for c in range(classes):
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
