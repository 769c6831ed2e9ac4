"""Prediction on the user's own photographs: masks and overlays on disk."""

import dataclasses
import glob
import pathlib

import numpy as np
import tqdm
from PIL import Image, ImageOps

from deeplab_tf.errors import UserError
from deeplab_tf.evaluation import pictures
from deeplab_tf.evaluation.segmenter import Segmenter

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What `predict` wrote.

    Attributes:
        output_dir: holds masks/ (indexed PNGs), masks_crf/ where there is a CRF, and overlays/.
        images: number of images segmented.
        unreadable: one line for each file that could not be read.
    """

    output_dir: pathlib.Path
    images: int
    unreadable: list[str]


def find_images(pattern: str) -> list[pathlib.Path]:
    """The images that an argument names: one file, all images of a folder, or a glob.

    Raises:
        UserError: there is none.
    """
    path = pathlib.Path(pattern).expanduser()
    if path.is_dir():
        found = [entry for entry in path.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES]
    elif path.is_file():
        found = [path]
    else:
        found = [pathlib.Path(name) for name in glob.glob(str(path), recursive=True) if pathlib.Path(name).is_file()]
    if not found:
        raise UserError(f"input: found no image for {pattern!r}; expected an image, a folder of images, or a glob")
    return sorted(found)


def read_image(path: str | pathlib.Path) -> np.ndarray:
    """A photograph as uint8 [H, W, 3] RGB, turned upright as its EXIF orientation says.

    Raises:
        UserError: the file is no image that Pillow reads, or a truncated one.
    """
    try:
        with Image.open(path) as picture:
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: no readable image ({error})") from None


def predict(segmenter: Segmenter, inputs: list[pathlib.Path], output_dir: str | pathlib.Path) -> Predictions:
    """Segments photographs and writes, for each, an indexed PNG of its labels and a picture to look at.

    Args:
        segmenter: with `info`; where it has a CRF, the labels before and after it are written and shown.
        inputs: image files; two of the same stem are told apart by their suffix.
        output_dir: see `Predictions`.
    """
    output_dir = pathlib.Path(output_dir).expanduser()
    palette, class_names = segmenter.info.palette, segmenter.info.class_names
    stems = [path.stem for path in inputs]
    unreadable = []
    for path in tqdm.tqdm(inputs, "predict", unit="image", dynamic_ncols=True, leave=False):
        try:
            image = read_image(path)
        except UserError as error:
            unreadable.append(str(error))
            continue
        name = path.stem if stems.count(path.stem) == 1 else path.name
        unrefined = segmenter.without_crf(image)
        masks = {"network": unrefined.labels}
        pictures.save_mask(output_dir / "masks" / f"{name}.png", unrefined.labels, palette)
        if segmenter.crf is not None:
            masks["network + CRF"] = segmenter.refined(image, unrefined).labels
            pictures.save_mask(output_dir / "masks_crf" / f"{name}.png", masks["network + CRF"], palette)
        columns = {"image": image} | {title: pictures.overlay(image, mask, palette) for title, mask in masks.items()}
        sheet = pictures.panel(columns, class_names, palette, list(masks.values()))
        pictures.save_picture(output_dir / "overlays" / f"{name}.png", sheet)
    return Predictions(output_dir, len(inputs) - len(unreadable), unreadable)
