"""PASCAL-Part's annotations, and the masks that DeepLab's authors made of them."""

import numpy as np
import pytest
import scipy.io

from deeplab_tf.errors import UserError

SHAPE = (20, 30)


def box(left, right):
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, left:right] = 1
    return mask


def save(path, *things):
    """Writes an annotation as PASCAL-Part does: anno.objects(i).parts(j).{part_name, mask}."""
    part_type, thing_type = [("part_name", object), ("mask", object)], None
    thing_type = [("class", object), ("class_ind", object), ("mask", object), ("parts", object)]
    rows = []
    for name, mask, parts in things:
        cells = np.array([[(part, part_mask) for part, part_mask in parts]], part_type) if parts else np.zeros((0, 0))
        rows.append((name, 15 if name == "person" else 12, mask, cells))
    objects = np.array([rows], thing_type)
    scipy.io.savemat(path, {"anno": {"imname": path.stem, "objects": objects}})


@pytest.fixture
def parts(raw):
    root = "VOCdevkit/VOC2010"
    raw.text(f"{root}/ImageSets/Main/train.txt", "a", "b", "c", "d")
    raw.text(f"{root}/ImageSets/Main/val.txt", "e")
    for name in "abcde":
        raw.image(f"{root}/JPEGImages/{name}.jpg", *SHAPE)
    person = (
        "person",
        box(0, 20),
        [("head", box(0, 5)), ("hair", box(5, 6)), ("neck", box(6, 8)), ("lhand", box(8, 12))],
    )
    legs = ("person", box(15, 28), [("ruleg", box(18, 22)), ("lfoot", box(22, 24)), ("luarm", box(24, 26))])
    dog = ("dog", box(26, 30), [("head", box(26, 28))])
    save(raw.path("Annotations_Part/a.mat"), person, dog, legs)
    save(raw.path("Annotations_Part/b.mat"), dog)
    save(raw.path("Annotations_Part/c.mat"), ("person", box(0, 3), []))
    save(raw.path("Annotations_Part/d.mat"), legs)
    save(raw.path("Annotations_Part/e.mat"), person)
    return raw


def test_parts_are_merged_and_images_without_people_left_out(parts):
    directory = parts.prepare("person_part")
    train = parts.examples(directory, "train")
    assert sorted(train) == ["a.jpg", "d.jpg"] and sorted(parts.examples(directory, "val")) == ["e.jpg"]
    row = [1] * 6 + [2] * 2 + [4] * 4 + [255] * 6 + [5] * 4 + [6] * 2 + [3] * 2 + [255] * 2 + [0] * 2
    np.testing.assert_array_equal(train["a.jpg"]["label"], np.tile(row, (20, 1)))


def test_masks_and_lists_of_the_authors_are_used(parts, grid):
    for name in "abcd":
        parts.mask(f"pascal_person_part/pascal_person_part_gt/{name}.png", grid([0, 1, 6]))
    for split, names in (("train", "ab"), ("val", "c")):
        parts.text(f"pascal_person_part/pascal_person_part_trainval_list/{split}_id.txt", *names)
    directory = parts.prepare("person_part")
    train = parts.examples(directory, "train")
    assert sorted(train) == ["a.jpg", "b.jpg"] and sorted(parts.examples(directory, "val")) == ["c.jpg"]
    np.testing.assert_array_equal(train["a.jpg"]["label"], grid([0, 1, 6]))


def test_mistakes_are_named(parts):
    save(parts.path("Annotations_Part/d.mat"), ("person", box(0, 3), [("wing", box(0, 1))]))
    with pytest.raises(UserError, match="d.mat: a person has the part 'wing'; expected head"):
        parts.prepare("person_part")
    scipy.io.savemat(parts.path("Annotations_Part/d.mat"), {"anno": {"x": 1}})
    with pytest.raises(UserError, match="d.mat: a MATLAB file without anno.objects"):
        parts.prepare("person_part")
    parts.path("Annotations_Part").rename(parts.path("elsewhere"))
    with pytest.raises(UserError, match="has neither Annotations_Part nor pascal_person_part_gt"):
        parts.prepare("person_part")
    assert parts.left_behind() == []
