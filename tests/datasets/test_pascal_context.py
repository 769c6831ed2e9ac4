"""PASCAL-Context's label maps."""

import numpy as np
import pytest
import scipy.io

from deeplab_tf import classes, data
from deeplab_tf.errors import UserError

# 2 aeroplane, 9 bag, 258 motorbike, 284 person, 458 wood; 1 and 459 are none of the 59.
LABELS = [2, 9, 258, 284, 458, 1, 459]


@pytest.fixture
def context(raw, grid):
    for split, name in (("train", "2008_000002"), ("val", "2008_000003")):
        raw.text(f"VOCdevkit/VOC2010/ImageSets/Main/{split}.txt", name)
        raw.image(f"VOCdevkit/VOC2010/JPEGImages/{name}.jpg", 20, 28)
        labels = np.array(LABELS, np.uint16)[np.tile(np.arange(28) // 4, (20, 1))]
        scipy.io.savemat(raw.path(f"trainval/{name}.mat"), {"LabelMap": labels})
    return raw


@pytest.mark.parametrize(
    ("name", "expected"),
    [("pascal_context", [1, 2, 34, 37, 59, 0, 0]), ("pascal_context/59", [0, 1, 33, 36, 58, 255, 255])],
)
def test_classes_are_merged(context, name, expected):
    directory = context.prepare(name)
    (example,) = context.examples(directory, "val").values()
    np.testing.assert_array_equal(example["label"], np.repeat([expected], 20, 0).repeat(4, 1))
    info = data.info(name, context.data_dir)
    names = ["aeroplane", "bag", "motorbike", "person", "wood"]
    assert [info.class_names[index] for index in expected[:5]] == names
    assert info.num_classes == (60 if name == "pascal_context" else 59)


def test_the_table_is_in_order():
    """The classes are the alphabetical ones, and so are the numbers of the 459."""
    names, numbers = list(classes.PASCAL_CONTEXT_IDS), list(classes.PASCAL_CONTEXT_IDS.values())
    assert names == sorted(names) and numbers == sorted(numbers) and len(names) == 59
    assert numbers[0] >= 1 and numbers[-1] <= 459


def test_the_names_of_the_files_are_checked(context):
    lines = [f"{number}: {name}" for name, number in classes.PASCAL_CONTEXT_IDS.items()]
    context.text("labels.txt", *lines)
    context.prepare("pascal_context")
    context.text("labels.txt", *lines[:-1], "458: steel")
    with pytest.raises(UserError, match="labels.txt: number 458 is 'steel', expected 'wood'"):
        context.prepare("pascal_context", overwrite=True)


def test_mistakes_are_named(context):
    with pytest.raises(UserError, match="'pascal_context' has no configuration '33'; it has 59"):
        context.prepare("pascal_context/33")
    scipy.io.savemat(context.path("trainval/2008_000002.mat"), {"LabelMap": np.full((20, 28), 460, np.uint16)})
    with pytest.raises(UserError, match="2008_000002.mat: holds the label 460; expected at most 459"):
        context.prepare("pascal_context")
    context.path("trainval/2008_000002.mat").unlink()
    with pytest.raises(UserError, match="2008_000002.mat: does not exist, but .*Main/train.txt names it"):
        context.prepare("pascal_context")
    context.path("trainval").rename(context.path("elsewhere"))
    with pytest.raises(UserError, match="has no folder trainval of label maps"):
        context.prepare("pascal_context")
    assert context.left_behind() == []
