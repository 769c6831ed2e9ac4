"""Masks as COCO's annotations: run-length encoded, one file for all images.

`pycocotools.coco.COCO(path)` reads the file, `pycocotools.mask.decode` an annotation.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

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


def dataset(images: Iterable[dict[str, Any]], key: str, info: DatasetInfo) -> dict[str, Any]:
    """The content of a COCO file.

    Args:
        images: {"file_name", "height", "width", key: see `annotations`} each; numbered from 1 in this order.
        key: of the annotations.
        info: the classes; their ids are the labels, so the first one's is 0.
    """
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": label, "name": name} for label, name in enumerate(info.class_names)],
    }
    for image_id, image in enumerate(images, start=1):
        content["images"].append({"id": image_id} | {key: image[key] for key in ("file_name", "height", "width")})
        for annotation in image[key]:
            ids = {"id": len(content["annotations"]) + 1, "image_id": image_id}
            content["annotations"].append(ids | annotation)
    return content
