"""Class maps: a user's classes merged, dropped and put in another order while a data set is prepared.

A class map is a text file with a line for each new class, in the order of the new indices, that names the old classes
it is made of:

    # comment
    background = background, sky
    vehicle = car, truck
    person
    ignore = unclear, *

"person" alone is short for "person = person". Pixels of "ignore" (or "void", "unlabelled") get no label.
"*" stands for all old classes that are named nowhere. Old classes are names: of --class_names, of the colour table, or
the labels of polygons; where masks hold indices and no names are given, they are the values in the mask. The same as
JSON: {"background": ["background", "sky"], "vehicle": ["car", "truck"], ...}.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from deeplab_tf.classes import IGNORE_LABEL, MAX_CLASSES
from deeplab_tf.data.masks import VOID, ColorTable, Mask, check_class_names, check_indices, lines_of, read_mask
from deeplab_tf.errors import UserError

_REST = "*"
_UNKNOWN = -1
BACKGROUNDS = ("background", "_background_")  # names of what lies outside all polygons; the second is LabelMe's


@dataclasses.dataclass(frozen=True)
class ClassMap:
    """New classes, and the old ones that each is made of.

    Attributes:
        class_names: the new classes, in the order of their index.
        indices: the new index of each old class; 255 is the ignore label.
        rest: the new index of all other old classes; None: there must be none.
        source: its file, for messages.
    """

    class_names: tuple[str, ...]
    indices: dict[str, int]
    rest: int | None
    source: str

    def index(self, old: str) -> int | None:
        """The new index of an old class; None where the map does not say."""
        return self.indices.get(old, self.rest)

    def unmapped(self, old: str) -> str:
        """Advice about an old class that the map does not name, for messages."""
        return f"{old!r} is not in {self.source}; add it to a class there, or 'ignore = {old}'"

    def of_values(self, old_names: Sequence[str] | None) -> np.ndarray:
        """The new index of each value of a mask, int16 [256]; -1 where the map does not say.

        Args:
            old_names: the old class of each value, from 0 on; None: the map speaks of the values themselves.

        Raises:
            UserError: the map names a class that is not among them, or says nothing of one.
        """
        names = [str(value) for value in range(256)] if old_names is None else list(old_names)
        wrong = [old for old in self.indices if old not in names]
        if wrong:
            there_are = "a value from 0 to 255; give --class_names" if old_names is None else ", ".join(names)
            raise UserError(f"{self.source}: found the old class {wrong[0]!r}, expected one of {there_are}")
        table = np.full(256, _UNKNOWN, np.int16)
        table[IGNORE_LABEL] = IGNORE_LABEL
        for value, name in enumerate(names):
            known = self.indices.get(name) if value == IGNORE_LABEL else self.index(name)
            if known is not None:
                table[value] = known
            elif old_names is not None:
                raise UserError(f"the class {self.unmapped(name)}")
        return table


def read_class_map(path: str | os.PathLike) -> ClassMap:
    """Reads a class map, text or JSON; see the top of this module.

    Raises:
        UserError: it cannot be read, or names an old class or a new one twice.
    """
    names: list[str] = []
    indices: dict[str, int] = {}
    for where, new, olds in _entries(path):
        is_void = new.lower() in VOID
        if not is_void and new in names:
            raise UserError(f"{where}: the class {new!r} occurs twice; name all it is made of in one place")
        names += [] if is_void else [new]
        for old in olds:
            if old in indices:
                raise UserError(f"{where}: {old!r} is part of two classes; expected one")
            indices[old] = IGNORE_LABEL if is_void else len(names) - 1
    if not names:
        raise UserError(f"{path}: no classes; expected lines 'new class = old class, old class'")
    check_class_names(names, path)
    rest = indices.pop(_REST, None)
    return ClassMap(tuple(names), indices, rest, os.fspath(path))


def _entries(path: str | os.PathLike) -> list[tuple[str, str, list[str]]]:
    """Of each entry its place in the file, the new class and the old ones."""
    lines = list(lines_of(path))
    if not (lines and lines[0][1].lstrip().startswith("{")):
        entries = []
        for number, line in lines:
            new, equals, olds = (part.strip() for part in line.partition("="))
            split = [old.strip() for old in olds.split(",") if old.strip()] if equals else [new]
            if not new or not split:
                raise UserError(f"{path}:{number}: expected 'new class = old class, old class', found {line!r}")
            entries.append((f"{path}:{number}", new, split))
        return entries
    try:
        content = json.loads(pathlib.Path(path).expanduser().read_text(encoding="utf-8-sig"))
        return [(str(path), new, [str(old) for old in _as_list(olds)]) for new, olds in content.items()]
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f'{path}: expected JSON as {{"new class": ["old class", ...]}} ({error})') from error


def _as_list(olds) -> list:
    if not isinstance(olds, list):
        raise TypeError(f"found {olds!r}")
    return olds


def read_mapped_mask(
    data: bytes,
    source: str,
    table: ColorTable | None = None,
    values: np.ndarray | None = None,
    num_classes: int = MAX_CLASSES,
) -> Mask:
    """Reads a mask file as class indices.

    Args:
        data: bytes of the file.
        source: its name, for messages.
        table: the classes of its colours; None: it holds indices.
        values: int16 [256], the new index of each value, -1 for a value that may not occur; None: they stay.
        num_classes: where they stay, the number of classes.

    Raises:
        UserError: it cannot be read, holds a value that may not occur, or its edges are smoothed.
    """
    mask = read_mask(data, source, table)
    between = smoothed_values(mask.indices) if table is None else []
    if between:
        raise UserError(
            f"{source}: the values {', '.join(map(str, between[:5]))} ... occur on borders only, between smaller and "
            "larger ones: the mask looks like an anti-aliased picture; export or scale it without smoothing (nearest "
            "neighbour)"
        )
    if values is None:
        check_indices(mask.indices, num_classes, source, "; if {value} means no label, give --ignore_label={value}")
        return mask
    mapped = values[mask.indices]
    if (mapped == _UNKNOWN).any():
        value = mask.indices[mapped == _UNKNOWN][0]
        raise UserError(
            f"{source}: {(mask.indices == value).sum()} pixels of the mask have the value {value}, which --class_map "
            f"does not name; add it to a class there, or 'ignore = {value}'"
        )
    return mask if (mapped == mask.indices).all() else Mask(mapped.astype(np.uint8))


def smoothed_values(indices: np.ndarray, fewest: int = 5) -> list[int]:
    """The values of a mask that are there because its edges were smoothed, as drawing programs and scaling do it.

    Such a value is rare (under 1% of the pixels), and four fifths of its pixels lie between a smaller and a larger
    value in their 3x3 neighbourhood. Where fewer than `fewest` values are so, thin objects are the likelier reason.

    Args:
        indices: uint8 [H, W].
        fewest: number of such values from which on a mask counts as smoothed.

    Returns:
        the values, ascending; empty for a mask that is not smoothed.
    """
    counts = np.bincount(indices.ravel(), minlength=256)
    rare = np.flatnonzero((counts > 0) & (counts < 0.01 * indices.size))
    if len(rare) < fewest:
        return []
    padded = np.pad(indices, 1, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    places = np.isin(indices, rare)
    values, windows = indices[places], windows[places].reshape(-1, 9)
    inside = (windows.min(1) < values) & (values < windows.max(1))
    between = np.bincount(values[inside], minlength=256)
    found = [int(value) for value in rare if between[value] >= 0.8 * counts[value]]
    return found if len(found) >= fewest else []
