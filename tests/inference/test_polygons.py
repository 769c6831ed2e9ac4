"""Polygons against drawing them again with another library's point-in-polygon test, and against the rules of rings."""

import matplotlib.path
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from deeplab_tf.data import info
from deeplab_tf.inference.polygons import geojson, polygons

CLASSES = 3
labels_of_noise = arrays.arrays(
    np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from([0, 1, 2, 255])
)


def drawn(regions, shape):
    """The labels of the polygons by the even-odd rule, tested at the centres of pixels; 255 outside all of them."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    centres = np.stack([x.ravel(), y.ravel()], 1)
    labels = np.full(len(centres), 255, np.uint8)
    for label, rings in regions:
        inside = np.zeros(len(centres), bool)
        for ring in rings:
            inside ^= matplotlib.path.Path(np.concatenate([ring, ring[:1]]), closed=True).contains_points(centres)
        assert (labels[inside] == 255).all()  # no pixel is in two polygons
        labels[inside] = label
    return labels.reshape(shape)


@pytest.mark.slow
@settings(max_examples=200)
@given(labels_of_noise)
def test_drawing_the_polygons_gives_the_labels_back(labels):
    regions = polygons(labels, CLASSES)
    np.testing.assert_array_equal(drawn(regions, labels.shape), np.where(labels < CLASSES, labels, 255))


@settings(max_examples=200)
@given(labels_of_noise)
def test_rings_turn_at_every_corner_and_never_meet_themselves(labels):
    for _, rings in polygons(labels, CLASSES):
        for ring in rings:
            steps = np.roll(ring, -1, axis=0) - ring
            assert ((steps == 0).sum(1) == 1).all()  # along one axis
            assert (
                np.diff(np.concatenate([steps, steps[:1]])[:, 0] == 0) != 0
            ).all()  # the other one after each corner
            assert len(np.unique(ring, axis=0)) == len(ring)


def test_a_hole_is_a_ring_of_the_region_around_it():
    labels = np.zeros((5, 6), np.uint8)
    labels[1:3, 2:4] = 1
    (outer_label, (outer, hole)), (inner_label, (inner,)) = polygons(labels, 2)
    assert (outer_label, inner_label) == (0, 1)
    assert outer.tolist() == [[6, 0], [6, 5], [0, 5], [0, 0]]  # clockwise
    assert {tuple(corner) for corner in hole} == {tuple(corner) for corner in inner}
    assert inner.tolist() == [[4, 1], [4, 3], [2, 3], [2, 1]]
    assert hole.tolist()[::-1] != hole.tolist() and np.cross(hole[1] - hole[0], hole[2] - hole[1]) < 0  # the other way


def test_pixels_that_meet_at_a_corner_are_two_regions():
    assert len(polygons(np.eye(2, dtype=np.uint8), 2)) == 4


def test_geojson_of_a_real_mask(camvid_dir):
    path = sorted((camvid_dir / "valannot").iterdir())[0]
    labels = np.asarray(Image.open(path))
    classes = info("camvid")
    collection = geojson(labels, classes)
    assert collection["type"] == "FeatureCollection"
    regions, areas = [], np.zeros(classes.num_classes, int)
    for feature in collection["features"]:
        properties, rings = feature["properties"], feature["geometry"]["coordinates"]
        assert all(ring[0] == ring[-1] for ring in rings)
        assert properties["class"] == classes.class_names[properties["label"]]
        regions.append((properties["label"], [np.array(ring[:-1]) for ring in rings]))
        areas[properties["label"]] += properties["area"]
    np.testing.assert_array_equal(drawn(regions, labels.shape), np.where(labels < classes.num_classes, labels, 255))
    np.testing.assert_array_equal(areas, np.bincount(labels.ravel(), minlength=256)[: classes.num_classes])


@pytest.mark.parametrize("value", [0, 255])
def test_one_class_or_none(value):
    regions = polygons(np.full((2, 3), value, np.uint8), 1)
    assert [(label, [ring.tolist() for ring in rings]) for label, rings in regions] == (
        [(0, [[[3, 0], [3, 2], [0, 2], [0, 0]]])] if value == 0 else []
    )
