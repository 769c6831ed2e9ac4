"""Refining the results of any network that lie in folders: images and maps in, masks out."""

import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import tqdm

from deeplab_tf.classes import IGNORE_LABEL, voc_palette
from deeplab_tf.crf.dense_crf import DenseCRF
from deeplab_tf.crf.label_maps import label_probabilities
from deeplab_tf.errors import UserError
from deeplab_tf.pictures import SUFFIXES, read_labels, read_photograph, save_mask

MAPS = (".npy", ".npz", ".png")


def refine_folder(
    image_dir: str | os.PathLike,
    map_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    crf: DenseCRF | None = None,
    *,
    num_classes: int | None = None,
    confidence: float = 0.7,
    ignore_label: int = IGNORE_LABEL,
    on_error: Callable[[str], None] | None = None,
) -> int:
    """Refines a folder of maps with the images of another, and writes a mask for each.

    Args:
        image_dir: images (.jpg, .png, ...); turned upright where their EXIF orientation says so.
        map_dir: for every image a map of the same stem and size: probabilities, .npy or .npz (one array, or one named
            "probabilities"), float [H, W, C] or [C, H, W]; or labels, .png with a class number a pixel.
        output_dir: gets indexed PNG masks of the same stems; another folder than the other two.
        crf: the CRF; default: those of the released ResNet-101.
        num_classes: C of label maps; by default the largest label in the folder plus one.
        confidence: of label maps; see `label_probabilities`.
        ignore_label: of label maps.
        on_error: called with one line for a pair that cannot be refined, and the rest goes on; by default the first
            such pair raises.

    Returns:
        the number of masks written.

    Raises:
        UserError: a folder or a map is missing, or a pair cannot be refined.
    """
    image_dir, map_dir, output_dir = (pathlib.Path(p).expanduser() for p in (image_dir, map_dir, output_dir))
    crf = crf or DenseCRF()
    pairs = _pairs(image_dir, map_dir)
    if output_dir.resolve() in (image_dir.resolve(), map_dir.resolve()):
        raise UserError(f"{output_dir}: the masks would be written among the inputs; expected another folder")
    label_maps = [map_path for _, map_path in pairs if map_path.suffix.lower() == ".png"]
    if num_classes is None and label_maps:
        num_classes = _largest_label(label_maps, ignore_label) + 1
    written = 0
    for image_path, map_path in tqdm.tqdm(pairs, "refine", unit="image", dynamic_ncols=True, leave=False):
        try:
            image = read_photograph(image_path)
            palette = None
            if map_path in label_maps:
                labels, palette = read_labels(map_path)
                probabilities = label_probabilities(labels, num_classes, confidence, ignore_label)
            else:
                probabilities = _read_probabilities(map_path, image.shape)
            refined = crf(image, probabilities, return_labels=True)
            if refined.dtype != np.uint8:
                raise UserError(f"has {probabilities.shape[-1]} classes; a mask holds 256 at most")
        except UserError as error:
            known = any(str(path) in str(error) for path in (image_path, map_path))
            message = str(error) if known else f"{map_path}: {error}"
            if on_error is None:
                raise UserError(message) from error
            on_error(message)
            continue
        colors = voc_palette(256) if palette is None else np.reshape(palette, (-1, 3))
        save_mask(output_dir / f"{map_path.stem}.png", refined, colors)
        written += 1
    return written


def _pairs(image_dir, map_dir):
    """Every image with its map."""
    images, maps = _by_stem(image_dir, sorted(SUFFIXES)), _by_stem(map_dir, MAPS)
    missing = [path.name for stem, path in images.items() if stem not in maps]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"{map_dir}: holds no map for {missing[0]}{more}; expected the same stem and {' or '.join(MAPS)}"
        )
    return [(path, maps[stem]) for stem, path in images.items()]


def _by_stem(folder, suffixes):
    """The files of a folder that have one of the suffixes: {stem: path}."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes]
    if not paths:
        raise UserError(f"{folder}: holds no files {' or '.join(suffixes)}")
    found = {}
    for path in paths:
        if path.stem in found:
            raise UserError(f"{folder}: holds {found[path.stem].name} and {path.name}; expected one of each stem")
        found[path.stem] = path
    return found


def _largest_label(paths, ignore_label):
    """Over all readable label maps; those that are not are reported when their turn comes."""
    largest = 1
    for path in paths:
        try:
            labels, _ = read_labels(path)
        except UserError:
            continue
        largest = max(largest, int(labels[labels != ignore_label].max(initial=0)))
    return largest


def _read_probabilities(path, image_shape):
    try:
        content = np.load(path)
        if path.suffix.lower() == ".npz":
            with content:
                names = list(content)
                name = names[0] if len(names) == 1 else "probabilities"
                if name not in names:
                    found = ", ".join(names) or "nothing"
                    raise UserError(f"{path}: holds {found}; expected one array, or one named 'probabilities'")
                content = content[name]
    except UserError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: no readable NumPy file ({error})") from error
    if content.ndim == 3 and content.shape[:2] != image_shape[:2] and content.shape[1:] == image_shape[:2]:
        content = content.transpose(1, 2, 0)
    return content
