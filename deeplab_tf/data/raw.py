"""Raw files: finding images and masks that belong together, and reading them."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from deeplab_tf.data.builder import Example
from deeplab_tf.data.masks import Mask, read_mask
from deeplab_tf.errors import UserError
from deeplab_tf.pictures import SUFFIXES

# Endings that labelling tools give the names of masks.
_ENDING = re.compile(r"[_-](mask|label|seg|segmentation|annotation|gt)s?$", re.IGNORECASE)
# What people call the folders of images and of masks, in whatever case.
_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "photos")
_MASK_FOLDERS = ("masks", "mask", "labels", "label", "segmentationclass", "segmentations", "annotations", "gt")


class RawFile(Protocol):
    """A file in a folder (pathlib.Path) or in an archive."""

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
        decode: turns the content of the mask file and its name, for messages, into a Mask.
        problem: what is wrong with the pair, if that is known before it is read.
    """

    name: str
    image: RawFile
    mask: RawFile | None
    decode: Callable[[bytes, str], Mask] = read_mask
    problem: str = ""


def read_pair(pair: FilePair) -> Example:
    """Reads an image file and its mask file."""
    if pair.problem:
        raise UserError(pair.problem)
    mask = None if pair.mask is None else pair.decode(content(pair.mask), str(pair.mask))
    return Example(pair.name, content(pair.image), mask, str(pair.image), str(pair.mask))


def pair_from_list(image: pathlib.Path, mask: pathlib.Path | None, list_file: pathlib.Path, **kwargs: Any) -> FilePair:
    """A pair that a list file names; `kwargs` are FilePair's."""
    missing = [path for path in (image, mask) if path is not None and not path.exists()]
    problem = f"{missing[0]}: does not exist, but {list_file} names it" if missing else ""
    return FilePair(image.name, image, mask, problem=problem, **kwargs)


def pair_files(image_dir: pathlib.Path, mask_dir: pathlib.Path, **kwargs: Any) -> dict[str, FilePair]:
    """Pairs the images and masks of two folders, and of folders in them, by their names without suffix.

    A mask may have an ending that labelling tools give them: a_mask.png belongs to a.jpg where there is no a.png.

    Args:
        image_dir: folder of the images.
        mask_dir: folder of the masks; the same one where masks with such endings lie beside the images.
        **kwargs: FilePair's.

    Returns:
        pairs by name, sorted; also those of which one file is missing, with that as their problem.

    Raises:
        UserError: a folder is missing or empty, or a name occurs twice.
    """
    if image_dir == mask_dir:
        images, masks = _with_and_without_ending(images_in(image_dir))
    else:
        images, masks = images_in(image_dir), images_in(mask_dir)
        masks = {_image_of(name, images, masks): path for name, path in masks.items()}
    pairs = {}
    for name in sorted({*images, *masks}):
        problem, present = "", images.get(name) or masks[name]
        for files, folder, role in ((masks, mask_dir, "mask"), (images, image_dir, "image")):
            if name not in files:
                problem = f"{present}: its {role} is missing; expected {folder / name} with the suffix of an image file"
        image = images.get(name, present)
        pairs[name] = FilePair(
            image.relative_to(image_dir if name in images else mask_dir).as_posix(),
            image,
            masks.get(name, present),
            problem=problem,
            **kwargs,
        )
    return pairs


def _image_of(mask: str, images: Mapping[str, pathlib.Path], masks: Mapping[str, pathlib.Path]) -> str:
    """The name of the image that a mask belongs to: its own, or that without the ending."""
    shorter = _ENDING.sub("", mask)
    return shorter if mask not in images and shorter in images and shorter not in masks else mask


def _with_and_without_ending(files: dict[str, pathlib.Path]) -> tuple[dict, dict]:
    """Images and masks of one folder, both by the name of the image."""
    masks = {_ENDING.sub("", name): path for name, path in files.items() if _ENDING.search(name)}
    return {name: path for name, path in files.items() if not _ENDING.search(name)}, masks


def pair_folders(root: pathlib.Path) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """Folders of images and of masks that lie beside each other, in a folder or else in folders in it.

    Returns:
        (images, masks) of each; both the folder itself where it holds images and masks mixed, such as a.jpg and
        a_mask.png; empty where there is nothing of the kind.
    """
    for folders in ([root], sorted(path for path in root.rglob("*") if path.is_dir())):
        found = [pair for folder in folders if (pair := _beside_each_other(folder))]
        if found:
            return found
    names = {path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*") if is_image(path)}
    mixed = any(_ENDING.search(name) and _ENDING.sub("", name) in names for name in names)
    return [(root, root)] if mixed else []


def _beside_each_other(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path] | None:
    inside = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    images = next((inside[name] for name in _IMAGE_FOLDERS if name in inside), None)
    masks = next((inside[name] for name in _MASK_FOLDERS if name in inside and _has_masks(inside[name])), None)
    return (images, masks) if images and masks else None


def _has_masks(folder: pathlib.Path) -> bool:
    """Whether a folder is one of mask files; one called "annotations" may hold polygons."""
    return folder.name == "masks" or any(is_image(path) for path in folder.rglob("*"))


def is_image(path: pathlib.Path) -> bool:
    """Whether a file is named like an image, and not hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def images_in(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """The image files in a folder and in folders in it, by their path in it without suffix.

    Raises:
        UserError: the folder is missing or has no images, or a name occurs with two suffixes.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; check --raw_dir")
    files: dict[str, pathlib.Path] = {}
    for path in sorted(folder.rglob("*")):
        if is_image(path):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in files:
                raise UserError(f"{path}: {files[name].name} has the same name with another suffix; remove one of them")
            files[name] = path
    if not files:
        raise UserError(f"{folder}: no image files in it; expected {', '.join(sorted(SUFFIXES))}")
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
            others = folder.iterdir() if folder.is_dir() else ()
            near = next((f" (found {other.name})" for other in others if other.name.lower() == path.lower()), "")
            raise UserError(
                f"--raw_dir={folder}: has no {path}{near}; dataset {name!r} expects {', '.join(expected)} in it "
                f"(datasets/{name.split('/')[0]}/README.md)"
            )
    return folder


def first_existing(folders: Iterable[pathlib.Path], path: str) -> pathlib.Path | None:
    """`path` in the first of the folders that has it."""
    return next((folder / path for folder in folders if (folder / path).exists()), None)


def voc_folder(raw_dir: str | os.PathLike | None, name: str, years: Sequence[str]) -> pathlib.Path:
    """The folder VOC<year> of PASCAL VOC: in `raw_dir`, in its VOCdevkit, or itself.

    Raises:
        UserError: it is not there.
    """
    if raw_dir is not None:
        raw = pathlib.Path(raw_dir)
        places = [base / f"VOC{year}" for base in (raw, raw / "VOCdevkit") for year in years]
        for place in (*places, raw):
            if (place / "JPEGImages").is_dir():
                return place
    required_folder(raw_dir, name, [f"VOC{years[0]}"])
    raise UserError(f"--raw_dir={raw_dir}: its VOC{years[0]} has no JPEGImages")


def read_list(path: pathlib.Path) -> list[str]:
    """The first word of each line of a list file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def lookup(classes: Iterable[tuple[int, int]]) -> bytes:
    """A table for `read_mask`: maps some values to others and leaves the rest."""
    table = bytearray(range(256))
    for value, index in classes:
        table[value] = index
    return bytes(table)


def content(file: RawFile) -> bytes:
    """The whole content of a raw file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return file.read_bytes()
    except (OSError, KeyError) as error:
        raise UserError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
