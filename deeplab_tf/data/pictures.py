"""A contact sheet: many images with their masks laid over them, to see at a glance whether a data set is right."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_CELL, _GAP, _COLUMNS = 220, 4, 6
_OPACITY = 0.65
_VOID_COLOR = (255, 255, 255)


def contact_sheet(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], class_names: Sequence[str], palette: np.ndarray
) -> np.ndarray:
    """Puts images and their masks on a grid, over a legend.

    Args:
        pairs: image uint8 [H, W, 3] and mask uint8 [H, W] of each example; pixels without a label are shown white.
        class_names: of the classes.
        palette: uint8 [num_classes, 3], RGB.

    Returns:
        uint8 [height, width, 3].
    """
    cells = [_shrunk(cell) for image, mask in pairs for cell in (image, _overlay(image, mask, palette))]
    rows = [cells[first : first + _COLUMNS] for first in range(0, len(cells), _COLUMNS)]
    tops = np.cumsum([0] + [max(cell.height for cell in row) + _GAP for row in rows]).tolist()
    width = _COLUMNS * (_CELL + _GAP)
    legend = _legend(class_names, palette, width)
    sheet = Image.new("RGB", (width, tops[-1] + legend.height), "black")
    for row, top in zip(rows, tops, strict=False):
        for column, cell in enumerate(row):
            sheet.paste(cell, (column * (_CELL + _GAP), top))
    sheet.paste(legend, (0, tops[-1]))
    return np.asarray(sheet)


def _shrunk(picture: np.ndarray) -> Image.Image:
    """The picture with its longer side as long as a cell's."""
    scale = _CELL / max(picture.shape)
    size = [max(1, round(side * scale)) for side in picture.shape[1::-1]]
    return Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)


def _overlay(image: np.ndarray, mask: np.ndarray, palette: np.ndarray) -> np.ndarray:
    colors = np.full((256, 3), _VOID_COLOR, np.uint8)
    colors[: len(palette)] = palette
    return np.rint((1 - _OPACITY) * image + _OPACITY * colors[mask]).astype(np.uint8)


def _legend(class_names: Sequence[str], palette: np.ndarray, width: int) -> Image.Image:
    """The colour of each class beside its index and name."""
    font, height = ImageFont.load_default(size=14), 24
    entries = [(f"{index} {name}", tuple(palette[index].tolist())) for index, name in enumerate(class_names)]
    entries.append(("no label", _VOID_COLOR))
    column_width = max(int(font.getlength(text)) for text, _ in entries) + 44
    per_row = max(1, width // column_width)
    legend = Image.new("RGB", (width, height * math.ceil(len(entries) / per_row)), "black")
    draw = ImageDraw.Draw(legend)
    for place, (text, color) in enumerate(entries):
        row, column = divmod(place, per_row)
        left, top = column * column_width, row * height
        draw.rectangle((left + 4, top + 4, left + 20, top + 20), color, "white")
        draw.text((left + 28, top + 3), text, "white", font)
    return legend
