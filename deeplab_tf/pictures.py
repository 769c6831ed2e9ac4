"""Pictures of segmentations: palette masks, overlays, panels with a legend."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deeplab_tf import files
from deeplab_tf.compiling import kernel

_LEGEND_ROW = 18
_MARGIN = 4


def save_mask(path: str | pathlib.Path, labels: np.ndarray, palette: np.ndarray) -> None:
    """Writes labels as an indexed PNG, as VOC's masks are: the pixel values are the labels, the palette colours them.

    Args:
        path: of the PNG.
        labels: uint8 [H, W].
        palette: uint8 [C, 3], RGB.
    """
    picture = Image.fromarray(labels)
    picture.putpalette(_full_palette(palette).tobytes())
    with files.written_aside(path) as aside:
        picture.save(aside, optimize=True)


def overlay(image: np.ndarray, labels: np.ndarray, palette: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """The image with the colour of each pixel's class laid over it.

    Args:
        image: uint8 [H, W, 3], RGB.
        labels: uint8 [H, W]; what is no class of the palette stays uncoloured.
        palette: uint8 [C, 3], RGB.
        opacity: of the colours, in [0, 1].

    Returns:
        uint8 [H, W, 3].
    """
    mixed = np.empty(image.shape, np.uint8)
    _mix(np.ascontiguousarray(image), labels, palette, np.float32(opacity), mixed)
    return mixed


def panel(
    columns: Mapping[str, np.ndarray], class_names: Sequence[str], palette: np.ndarray, labels: Sequence[np.ndarray]
) -> np.ndarray:
    """Pictures side by side under their titles, with a legend of the classes that occur.

    Args:
        columns: title -> uint8 [H, W, 3], all of one size.
        class_names: C names.
        palette: uint8 [C, 3], RGB.
        labels: the masks shown, uint8 [H, W] each; the legend names their classes.

    Returns:
        uint8 [h, w, 3].
    """
    height, width = next(iter(columns.values())).shape[:2]
    present = np.unique(np.concatenate([np.unique(mask) for mask in labels]))
    present = [int(label) for label in present if label < len(class_names)]
    font = ImageFont.load_default(size=12)
    entry_width = 24 + max((int(font.getlength(class_names[label])) for label in present), default=0) + 2 * _MARGIN
    total_width = len(columns) * (width + _MARGIN) - _MARGIN
    per_row = max(1, total_width // entry_width)
    legend_rows = -(-len(present) // per_row)
    sheet = Image.new("RGB", (total_width, _LEGEND_ROW * (1 + legend_rows) + height + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (title, picture) in enumerate(columns.items()):
        left = i * (width + _MARGIN)
        draw.text((left + 2, 1), title, "black", font)
        sheet.paste(Image.fromarray(picture), (left, _LEGEND_ROW))
    for i, label in enumerate(present):
        left, top = (i % per_row) * entry_width, _LEGEND_ROW * (1 + i // per_row) + height + _MARGIN
        draw.rectangle((left, top + 2, left + 14, top + 14), tuple(map(int, palette[label])), "black")
        draw.text((left + 20, top), class_names[label], "black", font)
    return np.asarray(sheet)


def save_picture(path: str | pathlib.Path, picture: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] as the file format that the suffix of `path` names."""
    with files.written_aside(path) as aside:
        Image.fromarray(picture).save(aside)


def _full_palette(palette: np.ndarray) -> np.ndarray:
    """256 colours: those of the classes, then white for what is no class."""
    full = np.full((256, 3), 255, np.uint8)
    full[: len(palette)] = palette
    return full


@kernel
def _mix(image, labels, palette, opacity, mixed):
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            for c in range(3):
                value = np.float32(image[y, x, c])
                if labels[y, x] < len(palette):
                    value = np.rint(value + opacity * (np.float32(palette[labels[y, x], c]) - value))
                mixed[y, x, c] = np.uint8(value)
