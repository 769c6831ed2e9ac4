"""The grid of the method: output i sits on input pixel `output_stride * i`, corners aligned (Caffe's Interp).

An input of `output_stride * k + 1` pixels (321 and 513 at stride 8) gives k + 1 outputs. Any other image is padded at
the right and bottom to the next such size. Sizes may be Python integers or, where a graph does not know them yet,
scalar tensors; the functions here take either.
"""

from typing import Any

from keras import ops

Size = Any  # a Python integer, or a scalar integer tensor


def padded_size(size: Size, output_stride: int) -> Size:
    """Returns the smallest `output_stride * k + 1` that is at least `size`."""
    # Not -(-a // b): converters to ONNX round the quotient of a negative number up.
    return (size + output_stride - 2) // output_stride * output_stride + 1


def map_size(size: Size, output_stride: int) -> Size:
    """Returns how many outputs sit on pixels of a side of `size` pixels: 321 -> 41, 513 -> 65 at stride 8."""
    return (size - 1) // output_stride + 1


def scaled_size(size: Size, scale: float) -> Size:
    """Returns the size of a scaled side, `round(scale * (size - 1)) + 1`: 321 -> 241 and 161 at 0.75 and 0.5."""
    if isinstance(size, int):
        return round(scale * (size - 1)) + 1
    return ops.cast(ops.round(ops.cast(size - 1, "float64") * scale), "int32") + 1


def pad_to_grid(images, output_stride: int, least: int = 1):
    """Pads the right and the bottom with zeros, which is the mean colour once the mean has been subtracted.

    Args:
        images: float [B, H, W, C], mean already subtracted.
        output_stride: pixels between two outputs.
        least: height and width of the result at least, pixels.

    Returns:
        float [B, padded_size(H), padded_size(W), C], or padded_size(least) where that is larger.
    """
    height, width = ops.shape(images)[1:3]
    bottom = padded_size(_at_least(height, least), output_stride) - height
    right = padded_size(_at_least(width, least), output_stride) - width
    if isinstance(bottom, int) and isinstance(right, int) and bottom == right == 0:
        return images
    return ops.pad(images, [[0, 0], [0, bottom], [0, right], [0, 0]])


def scaled_map_size(size: Size, padded: Size, scaled: Size, output_stride: int) -> Size:
    """Returns how many outputs of a scaled image sit on the first `size` of the `padded` pixels it was scaled from."""
    return (size - 1) * (scaled - 1) // (_at_least(padded - 1, 1) * output_stride) + 1


def aligned_positions(count: Size, size: Size, other_size: Size):
    """Returns where the points 0 ... count - 1 of a side of `size` sit on a side of `other_size`, corners aligned.

    Returns:
        float32 [count], in units of the other side's points.
    """
    # One rounding only: products of two sizes are exact in float32.
    points = ops.arange(count, dtype="float32") * ops.cast(other_size - 1, "float32")
    return points / ops.cast(_at_least(size - 1, 1), "float32")


def _at_least(size: Size, least: int) -> Size:
    return max(size, least) if isinstance(size, int) else ops.maximum(size, least)


def map_pixels(size: int, scale: float, output_stride: int):
    """Returns the image pixels that the outputs of one scale sit on: where a label map is to be read for its loss.

    Args:
        size: pixels of one side of the image.
        scale: scale of the input.
        output_stride: pixels of the scaled image between two outputs.

    Returns:
        float32 [n], n as that side of `DeepLab.score_maps`: 0, 16, ..., 320 for 321 pixels at scale 0.5 and stride 8.
    """
    padded = padded_size(size, output_stride)
    scaled = scaled_size(padded, scale)
    return output_stride * aligned_positions(scaled_map_size(size, padded, scaled, output_stride), scaled, padded)


def sample(values, rows, columns):
    """Samples a map bilinearly at every pair of a row and a column position.

    Each axis takes the neighbours on both sides and mixes them. Memory and time are those of the result, however long
    a side is, and no product is rounded to fewer bits on an accelerator.

    Args:
        values: float32 [B, H, W, C].
        rows: float32 [h], positions in units of the map's rows; outside, the value at the border is taken.
        columns: float32 [w], likewise.

    Returns:
        float32 [B, h, w, C].
    """
    return _sample_axis(_sample_axis(values, rows, 1), columns, 2)


def _sample_axis(values, positions, axis: int):
    """Interpolates linearly along one axis."""
    last = ops.shape(values)[axis] - 1
    positions = ops.clip(positions, 0.0, ops.cast(last, "float32"))
    before = ops.cast(ops.floor(positions), "int32")
    weights = ops.reshape(positions - ops.cast(before, "float32"), (-1,) + (1,) * (3 - axis))
    left = ops.take(values, before, axis=axis)
    right = ops.take(values, ops.minimum(before + 1, last), axis=axis)
    return left + (right - left) * weights


def centred_positions(count: Size, size: Size, other_size: Size, first: Size = 0):
    """Returns where the points first ... first + count - 1 of a side of `size` sit on a side of `other_size`, each the
    centre of a cell, as PyTorch's `align_corners=False` has it.

    Returns:
        float32 [count], in units of the other side's points; the first and last may lie outside it.
    """
    points = ops.arange(count, dtype="float32") + ops.cast(first, "float32") + 0.5
    return points * ops.cast(other_size, "float32") / ops.cast(size, "float32") - 0.5


def resize(values, height: Size, width: Size, align_corners: bool = True):
    """Resizes bilinearly with corners aligned, as Caffe's Interp does, or not, as PyTorch does by default.

    Args:
        values: float32 [B, H, W, C].
        height: the new height.
        width: the new width.
        align_corners: whether the points at the corners stay where they are; else the borders of their cells do.

    Returns:
        float32 [B, height, width, C].
    """
    old_height, old_width = ops.shape(values)[1:3]
    if isinstance(old_height, int) and isinstance(old_width, int) and (old_height, old_width) == (height, width):
        return values
    if not align_corners:
        rows, columns = centred_positions(height, height, old_height), centred_positions(width, width, old_width)
    else:
        rows, columns = aligned_positions(height, height, old_height), aligned_positions(width, width, old_width)
    return sample(values, rows, columns)


def upsample_score_map(score_map, height: Size, width: Size, output_stride: int, top: Size = 0):
    """Brings a score map to the pixels of its image: pixel p reads the map at position `p / output_stride`.

    In the map of the padded image (`DeepLab.score_maps(..., crop=False)`) every pixel lies between two outputs. In a
    cropped map the pixels beyond the last output take its value.

    Args:
        score_map: float32 [B, h, w, C] on the grid of `output_stride`.
        height: of the image in pixels, before padding.
        width: likewise.
        output_stride: pixels between two outputs.
        top: first pixel row, where only `height` rows from there on are wanted.

    Returns:
        float32 [B, height, width, C].
    """
    rows = (ops.arange(height, dtype="float32") + ops.cast(top, "float32")) / output_stride
    columns = ops.arange(width, dtype="float32") / output_stride
    return sample(score_map, rows, columns)
