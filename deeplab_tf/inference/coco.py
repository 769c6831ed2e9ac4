"""Masks as COCO's annotations: run-length encoded, one file for all images.

`pycocotools.coco.COCO(path)` reads the file, `pycocotools.mask.decode` an annotation; writing needs neither.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from deeplab_tf.classes import DatasetInfo


def encode(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run-length encoding of a mask.

    Args:
        mask: bool [H, W].

    Returns:
        {"size": [H, W], "counts": text}: the lengths of the runs of 0 and 1 in turn, beginning with 0, column by
        column.
    """
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    edges = np.concatenate([[0] if pixels[0] else [], [0], changes, [pixels.size]])
    return {"size": list(mask.shape), "counts": _compressed(np.diff(edges).astype(np.int64).tolist())}


def _compressed(counts: list[int]) -> str:
    """Each count, from the fourth on less the one two before it, in groups of 5 bits, the lowest first.

    A character holds a group: 48 + the 5 bits + 32 where another group follows. The last one's highest bit is the sign.
    """
    characters = []
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        while True:
            group, value = value & 31, value >> 5
            last = value == (-1 if group & 16 else 0)
            characters.append(chr(48 + group + (0 if last else 32)))
            if last:
                break
    return "".join(characters)


def annotations(labels: np.ndarray, num_classes: int) -> list[dict[str, Any]]:
    """One annotation for every class that occurs, without the ids that it gets in the file.

    Args:
        labels: uint8 [H, W].
        num_classes: what is not below it is no class and gets none.

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
