"""Masks as people have them on disk, read as class indices.

A prepared data set holds every mask as a PNG of one 8-bit grey channel whose values are class indices, 255 for pixels
without a label: what `tf.io.decode_png(..., channels=1)` reads back, here and in the Model Garden. A file that is
already that keeps its bytes. A palette PNG (VOC's, for one) does not qualify: decoders would turn its colours to
grey.
"""

import collections
import dataclasses
import io
import os
import pathlib
import re
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from deeplab_tf import pictures
from deeplab_tf.classes import IGNORE_LABEL, MAX_CLASSES
from deeplab_tf.errors import UserError

_MANY_COLORS = 8  # that no table has: more than anyone forgets
# Names that give pixels the ignore label.
_PIXELS_AT_ONCE = 1 << 22  # whose colours are looked up: numpy.unique takes 25 bytes for each
VOID = ("ignore", "void", "unlabelled", "unlabeled")


@dataclasses.dataclass(frozen=True)
class Mask:
    """Class indices, and the PNG file that holds them where there already is one.

    Attributes:
        indices: uint8 [H, W].
        png: bytes of a PNG of one 8-bit grey channel with exactly these values, or None.
    """

    indices: np.ndarray
    png: bytes | None = None

    def encoded(self) -> bytes:
        """The mask as a PNG of one 8-bit grey channel."""
        if self.png is not None:
            return self.png
        buffer = io.BytesIO()
        Image.fromarray(self.indices).save(buffer, "PNG")
        return buffer.getvalue()


@dataclasses.dataclass(frozen=True)
class ColorTable:
    """Which colour of a colour mask means which class.

    Attributes:
        class_names: the classes, in the order of their index.
        colors: for each colour, as 256*256*R + 256*G + B, its index; 255 is the ignore label.
    """

    class_names: tuple[str, ...]
    colors: dict[int, int]

    @property
    def palette(self) -> np.ndarray:
        """uint8 [num_classes, 3], RGB: the first colour of each class."""
        first: dict[int, int] = {}
        for color, index in self.colors.items():
            first.setdefault(index, color)
        codes = [first[index] for index in range(len(self.class_names))]
        return np.array([_rgb(code) for code in codes], np.uint8)


def read_color_table(path: str | os.PathLike) -> ColorTable:
    """Reads a colour table: for each class a line "R G B name" or "name, R, G, B", in the order of the class index.

    CVAT's labelmap.txt ("name:R,G,B:parts:actions") is one too.

    The name "ignore" (or "void", "unlabelled") gives a colour the ignore label. A name that occurs again gives the
    class another colour. Empty lines and lines that start with "#" do not count.
    """
    names: list[str] = []
    colors: dict[int, int] = {}
    for number, line in lines_of(path):
        of_cvat = re.fullmatch(r"(.+):(\d+),(\d+),(\d+):[^:]*:[^:]*", line.strip())
        fields = list(of_cvat.groups()) if of_cvat else [part for part in re.split(r"[,;\t ]+", line.strip()) if part]
        if all(field.isdecimal() for field in fields[-3:]):
            fields = fields[-3:] + fields[:-3]
        if len(fields) < 4 or not all(field.isdecimal() and int(field) < 256 for field in fields[:3]):
            raise UserError(f"{path}:{number}: expected 'R G B name' with colours of 0 to 255, found {line!r}")
        color, name = tuple(int(field) for field in fields[:3]), " ".join(fields[3:])
        if name.lower() not in VOID and name not in names:
            names.append(name)
        code = color[0] << 16 | color[1] << 8 | color[2]
        if code in colors:
            raise UserError(f"{path}:{number}: the colour {color} occurs twice")
        colors[code] = IGNORE_LABEL if name.lower() in VOID else names.index(name)
    if not names:
        raise UserError(f"{path}: no classes; expected lines 'R G B name'")
    check_class_names(names, path)
    return ColorTable(tuple(names), colors)


def read_names(path: str | os.PathLike) -> tuple[str, ...]:
    """Reads names, one a line. Empty lines and lines that start with "#" do not count."""
    names = tuple(line.strip() for _, line in lines_of(path))
    if not names:
        raise UserError(f"{path}: no names in it; expected one a line")
    return names


def read_class_names(path: str | os.PathLike) -> tuple[str, ...]:
    """Reads the names of classes, one a line, the first that of index 0.

    Raises:
        UserError: there are more than 255, or one occurs twice or has characters that cannot be printed.
    """
    names = read_names(path)
    check_class_names(names, path)
    return names


def check_class_names(names: Sequence[str], path: str | os.PathLike) -> None:
    """Raises a UserError where there are more than 255 names, or one is not fit for a class."""
    if len(names) > MAX_CLASSES:
        raise UserError(f"{path}: {len(names)} classes; masks of 8 bits hold {MAX_CLASSES} at most, and 'no label'")
    for place, name in enumerate(names):
        if name in names[:place]:
            raise UserError(f"{path}: the class {name!r} occurs twice; give each class a name of its own")
        if not name.isprintable():
            raise UserError(f"{path}: the class {name!r} has characters that cannot be printed")


def read_mask(data: bytes, source: str, table: ColorTable | None = None, lookup: bytes | None = None) -> Mask:
    """Reads a mask file as class indices.

    Args:
        data: bytes of an image file: palette or grey, or, with a colour table, of any kind.
        source: the name of the file, for messages.
        table: the classes of its colours.
        lookup: uint8 [256] as bytes, the class of each value of the mask, where they differ.

    Raises:
        UserError: it cannot be read, is in colours without a table, or holds a colour that the table lacks.
    """
    mask = _read_indices(data, source, table)
    return mask if lookup is None else Mask(np.frombuffer(lookup, np.uint8)[mask.indices])


def _read_indices(data: bytes, source: str, table: ColorTable | None) -> Mask:
    if table is not None:
        image = pictures.open_image(data, source)
        pictures.check_lossless(image, source)
        return Mask(_from_colors(np.asarray(image.convert("RGB")), source, table))
    indices, _ = pictures.read_labels(data, source, ", or give the meaning of its colours with --color_table")
    return Mask(indices, data if _is_8_bit_grey_png(data) else None)


def check_indices(indices: np.ndarray, num_classes: int, source: str, advice: str = "") -> np.ndarray:
    """Checks that a mask holds classes and the ignore label only.

    Args:
        indices: uint8 [H, W].
        num_classes: of the data set.
        source: the name of the file, for messages.
        advice: what to do about another value, which takes the place of "{value}".

    Returns:
        int64 [256], the number of pixels of each value.

    Raises:
        UserError: it holds another value.
    """
    counts = np.bincount(indices.ravel(), minlength=256)
    wrong = [value for value in np.flatnonzero(counts) if num_classes <= value != IGNORE_LABEL]
    if wrong:
        raise UserError(
            f"{source}: {counts[wrong[0]]} pixels of the mask have the value {wrong[0]}; expected classes 0 to "
            f"{num_classes - 1}, or {IGNORE_LABEL} for no label{advice.format(value=wrong[0])}"
        )
    return counts


def _from_colors(colors: np.ndarray, source: str, table: ColorTable) -> np.ndarray:
    """uint8 [H, W, 3] of colours to uint8 [H, W] of indices."""
    indices = np.empty(colors.shape[:2], np.uint8)
    unknown: collections.Counter[int] = collections.Counter()
    rows = max(1, _PIXELS_AT_ONCE // colors.shape[1])
    for top in range(0, len(colors), rows):
        codes = colors[top : top + rows].astype(np.int32) @ np.array([65536, 256, 1], np.int32)
        known, places, counts = np.unique(codes, return_inverse=True, return_counts=True)
        of_known = [table.colors.get(code) for code in known.tolist()]
        unknown.update({known[i].item(): counts[i].item() for i, index in enumerate(of_known) if index is None})
        of_known = np.array([IGNORE_LABEL if index is None else index for index in of_known], np.uint8)
        indices[top : top + rows] = of_known[places.reshape(codes.shape)]
    if unknown:
        code = min(unknown)
        smoothed = f" ({len(unknown) - 1} more: an anti-aliased picture? Export it without smoothing)"
        raise UserError(
            f"{source}: the colour {_rgb(code)} at {unknown[code]} pixels is not in the colour table; add it, as a "
            f"class or as 'ignore'{smoothed if len(unknown) > _MANY_COLORS else ''}"
        )
    return indices


def _rgb(code: int) -> tuple[int, int, int]:
    return code >> 16, code >> 8 & 255, code & 255


def _is_8_bit_grey_png(data: bytes) -> bool:
    """Whether decoders give back the values of the file: fewer bits are stretched to 8, and transparency is a channel.

    Bytes 24 and 25 of a PNG are its bits per channel and its kind of colour, 0 for grey.
    """
    return data.startswith(b"\x89PNG") and data[24:26] == b"\x08\x00" and b"tRNS" not in data


def lines_of(path: str | os.PathLike) -> Iterable[tuple[int, str]]:
    """The lines of a text file with their numbers; not the empty ones and those that start with "#"."""
    try:
        text = pathlib.Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); expected a text file") from error
    return [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")]
