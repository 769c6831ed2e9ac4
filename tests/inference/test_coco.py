"""COCO annotations against pycocotools."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from deeplab_tf.data import info
from deeplab_tf.inference import coco


@settings(max_examples=200)
@given(arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.booleans()))
def test_pycocotools_decodes_what_is_encoded(mask):
    code = json.loads(json.dumps(coco.encode(mask)))
    np.testing.assert_array_equal(coco_mask.decode(code), mask)


def test_a_dataset_is_read_by_pycocotools(camvid_dir, tmp_path):
    classes = info("camvid")
    truth = [np.asarray(Image.open(path)) for path in sorted((camvid_dir / "valannot").iterdir())[:2]]
    images = [
        {"file_name": f"{i}.png", "height": 360, "width": 480, "x": coco.annotations(labels, classes.num_classes)}
        for i, labels in enumerate(truth)
    ]
    path = tmp_path / "coco.json"
    with coco.written(path, "x", classes) as add:
        for image in images:
            add(image)
    read = COCO(str(path))
    assert [category["name"] for category in read.loadCats(read.getCatIds())] == list(classes.class_names)
    for image_id, labels in zip(read.getImgIds(), truth, strict=True):
        drawn = np.full_like(labels, classes.num_classes)  # CamVid's unlabelled pixels are 11
        for annotation in read.loadAnns(read.getAnnIds(image_id)):
            mask = read.annToMask(annotation).astype(bool)
            drawn[mask] = annotation["category_id"]
            assert annotation["area"] == mask.sum() == coco_mask.area(annotation["segmentation"])
            assert annotation["bbox"] == coco_mask.toBbox(annotation["segmentation"]).tolist()
        np.testing.assert_array_equal(drawn, labels)
