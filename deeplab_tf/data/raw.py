"""Raw files: finding images and masks that belong together, and reading them."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Protocol

from deeplab_tf.data.builder import Example
from deeplab_tf.data.masks import ColorTable, read_mask
from deeplab_tf.errors import UserError

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


class RawFile(Protocol):
    """A file in a folder (pathlib.Path) or in an archive (zipfile.Path)."""

    name: str

    def read_bytes(self) -> bytes:
        """The whole content."""


@dataclasses.dataclass(frozen=True)
class FilePair:
    """An image file and its mask file.

    Attributes:
        name: what the image is called in the prepared data set, unique in its split.
        image: the image file.
        mask: the mask file; None for a split without masks.
        table: the classes of the mask's colours, for colour masks.
        lookup: uint8 [256] as bytes, the class of each value of the mask, where they differ.
    """

    name: str
    image: RawFile
    mask: RawFile | None
    table: ColorTable | None = None
    lookup: bytes | None = None


def read_pair(pair: FilePair) -> Example:
    """Reads an image file and its mask file."""
    mask = None
    if pair.mask is not None:
        mask = read_mask(_content(pair.mask), str(pair.mask), pair.table, pair.lookup)
    return Example(pair.name, _content(pair.image), mask, str(pair.image), str(pair.mask))


def pairs_in(image_dir: pathlib.Path, mask_dir: pathlib.Path) -> dict[str, tuple[pathlib.Path, pathlib.Path]]:
    """Pairs the images and masks of two folders, and of folders in them, by their names without suffix.

    Returns:
        for each name, sorted, its image and its mask.

    Raises:
        UserError: a folder is missing or empty, a name occurs twice, or a file has no partner.
    """
    images, masks = images_in(image_dir), images_in(mask_dir)
    for files, partners, role in ((images, mask_dir, "mask"), (masks, image_dir, "image")):
        lonely = sorted(set(files) - set(masks if role == "mask" else images))
        if lonely:
            others = f" ({len(lonely)} files lack theirs)" if len(lonely) > 1 else ""
            raise UserError(
                f"{files[lonely[0]]}: its {role} is missing; expected {partners / lonely[0]} with the suffix of an "
                f"image file{others}"
            )
    return {name: (images[name], masks[name]) for name in sorted(images)}


def images_in(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """The image files in a folder and in folders in it, by their path in it without suffix.

    Raises:
        UserError: the folder is missing or has no images, or a name occurs with two suffixes.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; check --raw_dir")
    files: dict[str, pathlib.Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith("."):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in files:
                raise UserError(f"{path}: {files[name].name} has the same name with another suffix; remove one of them")
            files[name] = path
    if not files:
        raise UserError(f"{folder}: no image files in it; expected {', '.join(sorted(_SUFFIXES))}")
    return files


def required_folder(raw_dir: str | os.PathLike | None, name: str, expected: Sequence[str]) -> pathlib.Path:
    """The raw folder of a data set, of which some content is known.

    Args:
        raw_dir: as the user gave it.
        name: of the data set, for messages.
        expected: folders or files that must be in it.

    Raises:
        UserError: it was not given, or lacks some of them.
    """
    if raw_dir is None:
        raise UserError(
            f"dataset {name!r} needs --raw_dir: the folder that holds {', '.join(expected)}; datasets/"
            f"{name.split('/')[0]}/README.md tells where to get it"
        )
    folder = pathlib.Path(raw_dir)
    for path in expected:
        if not (folder / path).exists():
            raise UserError(
                f"--raw_dir={folder}: has no {path}; dataset {name!r} expects {', '.join(expected)} in it (datasets/"
                f"{name.split('/')[0]}/README.md)"
            )
    return folder


def lookup(classes: Iterable[tuple[int, int]]) -> bytes:
    """A table for `FilePair.lookup`: maps some values to others and leaves the rest."""
    table = bytearray(range(256))
    for value, index in classes:
        table[value] = index
    return bytes(table)


def _content(file: RawFile) -> bytes:
    try:
        return file.read_bytes()
    except (OSError, KeyError) as error:
        raise UserError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
