"""Annotations of strangers: what ends pycocotools or SciPy is one line here, and the next file is read."""

import io
import multiprocessing
import os
import struct

import numpy as np
import pytest
import scipy.io
from pycocotools import mask as coco_masks

from deeplab_tf.data import annotations
from deeplab_tf.errors import UserError

SQUARE = [[10.0, 5.0, 20.0, 5.0, 20.0, 15.0, 10.0, 15.0]]
SIZE = (40, 60)


def run_lengths(mask: np.ndarray) -> dict:
    code = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": code["counts"].decode()}


def test_polygons_and_run_lengths_are_drawn_as_by_pycocotools():
    mask = np.random.default_rng(0).random(SIZE) < 0.4
    pixels = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel(order="F"), [2]])))
    edges = [0, *pixels.tolist()]
    plain = {"size": list(SIZE), "counts": [b - a for a, b in zip(edges[:-1], edges[1:], strict=True)]}
    square, packed, unpacked = annotations.draw_segmentations([SQUARE, run_lengths(mask), plain], *SIZE, "x.json")
    expected = coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects(SQUARE, *SIZE))).astype(bool)
    np.testing.assert_array_equal(square, expected)
    np.testing.assert_array_equal(packed, mask)
    np.testing.assert_array_equal(unpacked, mask)


@pytest.mark.parametrize("seed", range(30))
def test_every_code_of_pycocotools_passes_the_check(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 90, 2).tolist())
    code = run_lengths(rng.random(shape) < rng.random())
    assert annotations._problem(code, *shape) == ""


@pytest.mark.parametrize(
    "segmentation",
    [
        [[10, 5, 20, 5, float("nan"), 15]],
        [[10, 5, 20, 5, 1e8, 15]],
        [[10, 5, 20, 5, 1e30, 15]],
        [[10, 5, 20, 5, float("inf"), 15]],
        [[10, 5, 20, 5, "20", 15]],
        [[10, 5, 20, 5, True, 15]],
        [[10, 5, 20, 5, 7]],
        [[10, 5]],
        [],
        [None],
        None,
        7,
        {"counts": [2400]},
        {"size": [40, 60], "counts": [2399]},
        {"size": [40, 60], "counts": [-1, 2401]},
        {"size": [10**6, 10**6], "counts": [10**12]},
        {"size": [40, 60], "counts": "0" * 10**6},
        {"size": [40, 60], "counts": "ooooooooooooooooo"},
        {"size": [40, 60], "counts": "\x00\xff"},
        {"size": [40, 60], "counts": run_lengths(np.ones((40, 61)))["counts"]},
    ],
)
def test_what_is_no_segmentation_is_refused(segmentation):
    with pytest.raises(UserError, match="x.json: found") as raised:
        annotations.draw_segmentations([SQUARE, segmentation], *SIZE, "x.json")
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 200


@pytest.mark.parametrize("size", [(10**6, 10**6), (-5, 60), ("60", 60), (40, None), (40.0, 60), (0, 60)])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(UserError, match="x.json: found a size of"):
        annotations.draw_segmentations([SQUARE], *size, "x.json")


def test_a_crash_is_one_line_and_the_next_file_is_read():
    file = io.BytesIO()
    scipy.io.savemat(file, {"LabelMap": np.arange(6).reshape(2, 3)})
    with pytest.raises(UserError, match="x.mat: the process that read it crashed"):
        annotations._in_worker("x.mat", os._exit, 3)
    np.testing.assert_array_equal(annotations.read_mat(file.getvalue(), "y.mat", "LabelMap"), [[0, 1, 2], [3, 4, 5]])
    with pytest.raises(UserError, match="y.mat: a MATLAB file without GTcls.Segmentation"):
        annotations.read_mat(file.getvalue(), "y.mat", "GTcls", "Segmentation")
    with pytest.raises(UserError, match="z.mat: cannot be read as a MATLAB file"):
        annotations.read_mat(b"\x00" * 300, "z.mat", "LabelMap")


def test_a_file_that_asks_for_all_the_memory_is_one_line():
    """A cell array of 2^28 cells, in 300 bytes."""
    file = io.BytesIO()
    scipy.io.savemat(file, {"LabelMap": np.array([[1, "a"]], object)})
    content = file.getvalue()
    sizes = content.index(struct.pack("<2i", 1, 2))
    hostile = content[:sizes] + struct.pack("<2i", 1 << 14, 1 << 14) + content[sizes + 8 :]
    with pytest.raises(UserError, match=r"x.mat: cannot be read as a MATLAB file \(Unable to allocate 2"):
        annotations.read_mat(hostile, "x.mat", "LabelMap")


def test_a_process_of_multiprocessing_that_has_read_annotations_ends():
    file = io.BytesIO()
    scipy.io.savemat(file, {"LabelMap": np.eye(2)})
    arguments = file.getvalue(), "x.mat", "LabelMap"
    process = multiprocessing.get_context("spawn").Process(target=annotations.read_mat, args=arguments)
    process.start()
    process.join(60)
    process.kill()
    assert process.exitcode == 0
