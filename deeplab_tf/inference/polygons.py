"""Labels as polygons, exactly: their sides run between the pixels, so drawing them gives the labels back.

Coordinates are in pixels, x to the right and y down; the pixel of row i and column j is the square from (j, i) to
(j+1, i+1). A region is what hangs together over the sides of pixels; it has one outer ring and a ring for each hole.
Rings never cross; where a region's pixels meet at a corner only, two rings touch, never one ring itself: these are
valid polygons, as OGC's Simple Features define them.
"""

from typing import Any

import numpy as np
import scipy.ndimage

from deeplab_tf.classes import DatasetInfo
from deeplab_tf.compiling import kernel


def polygons(labels: np.ndarray, num_classes: int) -> list[tuple[int, list[np.ndarray]]]:
    """The regions of a mask.

    Args:
        labels: uint8 [H, W].
        num_classes: labels that are not below it are not classes and get no polygon.

    Returns:
        (label, rings) of each region, by label; a ring is int32 [N, 2], corners (x, y), the first not repeated. The
        outer ring comes first, clockwise as seen on the image; holes are counter-clockwise.
    """
    regions, label_of = _regions(labels, num_classes)
    rings = [[] for _ in label_of]
    corners, ends, owners = _rings(np.pad(regions, 1))
    start = 0  # of a region's rings the outer one is found first: on it lies the upper side of the first pixel
    for end, owner in zip(ends.tolist(), owners.tolist(), strict=True):
        rings[owner - 1].append(corners[start:end])
        start = end
    return list(zip(label_of, rings, strict=True))


def geojson(labels: np.ndarray, info: DatasetInfo) -> dict[str, Any]:
    """The regions as a GeoJSON FeatureCollection, one Feature each; its properties are label, class name and area.

    Args:
        labels: uint8 [H, W].
        info: the classes.
    """
    features = []
    for label, rings in polygons(labels, info.num_classes):
        closed = [np.concatenate([ring, ring[:1]]).tolist() for ring in rings]
        area = -sum(_signed_area(ring) for ring in rings)
        properties = {"label": label, "class": info.class_names[label], "area": area}
        geometry = {"type": "Polygon", "coordinates": closed}
        features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    return {"type": "FeatureCollection", "features": features}


def _signed_area(ring: np.ndarray) -> int:
    """In pixels; negative for a ring that is clockwise as seen on the image (y points down)."""
    x, y = ring.astype(np.int64).T
    return int(np.dot(np.roll(x, -1), y) - np.dot(x, np.roll(y, -1))) // 2


def _regions(labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, list[int]]:
    """The region of each pixel, int64 [H, W], numbered from 1 (0: not a class), and the label of each region."""
    regions, label_of = np.zeros(labels.shape, np.int64), []
    for label in np.unique(labels[labels < num_classes]).tolist():
        mask = labels == label
        numbered, count = scipy.ndimage.label(mask)
        regions[mask] = numbered[mask] + len(label_of)
        label_of += [label] * count
    return regions, label_of


@kernel
def _rings(regions):
    """Walks along the sides of pixels with the region on the right hand.

    Args:
        regions: int64 [H+2, W+2], with a border of 0.

    Returns:
        the corners of all rings, int32 [N, 2] (x, y), border taken off; where each ring ends among them; its region.
    """
    height, width = regions.shape
    seen = np.zeros((height, width), np.bool_)  # the upper sides of pixels that a ring went along
    corners = [(0, 0) for _ in range(0)]
    ends = [0 for _ in range(0)]
    owners = [0 for _ in range(0)]
    for row in range(1, height - 1):
        for column in range(1, width - 1):
            region = regions[row, column]
            if region == 0 or regions[row - 1, column] == region or seen[row, column]:
                continue
            # Along the side of pixel (i, j) on the left of the direction (di, dj). Every ring goes right somewhere.
            i, j, di, dj = row, column, 0, 1
            while True:
                if dj == 1:
                    seen[i, j] = True
                corner = (j - 1 + (dj == 1 or di == 1), i - 1 + (di == 1 or dj == -1))  # where this side ends
                ahead, left = (i + di, j + dj), (-dj, di)
                ahead_left = (ahead[0] + left[0], ahead[1] + left[1])
                if regions[ahead_left] == region:
                    (i, j), (di, dj) = ahead_left, left
                    corners.append(corner)
                elif regions[ahead] == region:
                    i, j = ahead
                else:
                    di, dj = dj, -di
                    corners.append(corner)
                if i == row and j == column and dj == 1:
                    break
            ends.append(len(corners))
            owners.append(region)
    found = np.empty((len(corners), 2), np.int32)
    for n, (x, y) in enumerate(corners):
        found[n, 0], found[n, 1] = x, y
    return found, np.array(ends), np.array(owners)
