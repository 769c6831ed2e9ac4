"""Masks as COCO's annotations: run-length encoded, one file for all images.

`pycocotools.coco.COCO(path)` reads the file, `pycocotools.mask.decode` an annotation.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from deeplab_tf import files
from deeplab_tf.classes import DatasetInfo
from deeplab_tf.errors import UserError


def encode(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run-length encoding of a mask.

    Args:
        mask: bool [H, W].

    Returns:
        {"size": [H, W], "counts": text}.

    Raises:
        UserError: pycocotools is not installed.
    """
    try:
        from pycocotools import mask as coco_masks
    except ImportError:
        raise UserError("COCO annotations need pycocotools: pip install 'deeplab_tf[train]'") from None
    code = coco_masks.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": code["counts"].decode("ascii")}


def annotations(labels: np.ndarray, num_classes: int) -> list[dict[str, Any]]:
    """One annotation for every class that occurs, without the ids that it gets in the file.

    Args:
        labels: uint8 [H, W].
        num_classes: labels that are not below it are not classes and get none.

    Returns:
        {"category_id": the label, "segmentation": see `encode`, "area": pixels, "bbox": [x, y, width, height],
        "iscrowd": 0} each.
    """
    found = []
    for label in np.unique(labels[labels < num_classes]).tolist():
        mask = labels == label
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        (top, bottom), (left, right) = rows[[0, -1]].tolist(), columns[[0, -1]].tolist()
        found.append(
            {
                "category_id": label,
                "segmentation": encode(mask),
                "area": int(mask.sum()),
                "bbox": [left, top, right - left + 1, bottom - top + 1],
                "iscrowd": 0,
            }
        )
    return found


@contextlib.contextmanager
def written(path: str | os.PathLike, key: str, info: DatasetInfo) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yields what adds an image to a COCO file, which is there when the block ends.

    What is added goes to the disk at once: memory does not grow with the number of images.

    Args:
        path: of the file.
        key: of an image's annotations.
        info: the classes; their ids are the labels, so the first one's is 0.

    Yields:
        a function that takes {"file_name", "height", "width", key: see `annotations`}; images are numbered from 1.
    """
    images = annotations = 0
    categories = [{"id": label, "name": name} for label, name in enumerate(info.class_names)]
    with (
        files.written_aside(path) as aside,
        aside.open("w", encoding="utf-8") as file,
        tempfile.TemporaryFile("w+", dir=aside.parent, encoding="utf-8") as entries,
    ):
        file.write(f'{{"categories": {json.dumps(categories)}, "annotations": [')

        def add(image: dict[str, Any]) -> None:
            nonlocal images, annotations
            for annotation in image[key]:
                ids = {"id": annotations + 1, "image_id": images + 1}
                file.write(", " * bool(annotations) + json.dumps(ids | annotation))
                annotations += 1
            entry = {"id": images + 1} | {field: image[field] for field in ("file_name", "height", "width")}
            entries.write(", " * bool(images) + json.dumps(entry))
            images += 1

        yield add
        file.write('], "images": [')
        entries.seek(0)
        shutil.copyfileobj(entries, file)
        file.write("]}\n")
