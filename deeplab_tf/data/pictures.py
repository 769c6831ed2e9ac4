"""Masks as pictures: in the colours of their classes, laid over the image, and many on one sheet."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

_IGNORE_COLOR = (224, 224, 192)  # VOC's, of object borders


def colorize(labels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Shows class indices in the colours of the palette.

    Args:
        labels: uint8 [H, W].
        palette: uint8 [num_classes, 3], RGB.

    Returns:
        uint8 [H, W, 3]; indices beyond the palette, like 255, are cream.
    """
    colors = np.full((256, 3), _IGNORE_COLOR, np.uint8)
    colors[: len(palette)] = palette
    return colors[labels]


def overlay(image: np.ndarray, labels: np.ndarray, palette: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """Lays a mask over its image.

    Args:
        image: uint8 [H, W, 3], RGB.
        labels: uint8 [H, W].
        palette: uint8 [num_classes, 3], RGB.
        opacity: of the mask, 0 to 1.

    Returns:
        uint8 [H, W, 3].
    """
    mixed = (1 - opacity) * image + opacity * colorize(labels, palette)
    return np.rint(mixed).astype(np.uint8)


def contact_sheet(pictures: Sequence[np.ndarray], columns: int, cell: int = 240, gap: int = 4) -> np.ndarray:
    """Puts pictures on a grid, each shrunk to fit its cell.

    Args:
        pictures: uint8 [H, W, 3] each.
        columns: pictures in a row.
        cell: side of a cell, pixels.
        gap: between cells, pixels.

    Returns:
        uint8 [H, W, 3], on white.
    """
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * (cell + gap) - gap, rows * (cell + gap) - gap), "white")
    for place, picture in enumerate(pictures):
        small = Image.fromarray(picture)
        scale = cell / max(small.size)
        small = small.resize([max(1, round(side * scale)) for side in small.size], Image.Resampling.BILINEAR)
        row, column = divmod(place, columns)
        margins = [(cell - side) // 2 for side in small.size]
        sheet.paste(small, (column * (cell + gap) + margins[0], row * (cell + gap) + margins[1]))
    return np.asarray(sheet)
