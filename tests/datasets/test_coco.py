"""COCO's instance annotations."""

import json
import zipfile

import numpy as np
import pytest

from deeplab_tf import classes, data
from deeplab_tf.errors import UserError

PERSON, DOG, KITE, TV = 1, 18, 38, 72


def rectangle(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


def annotation(number, image, category, segmentation, area, crowd=0):
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation, "area": area,
            "iscrowd": crowd, "bbox": [0, 0, 1, 1]}  # fmt: skip


@pytest.fixture
def coco(raw):
    """Images of 40 x 60: a large dog under a small kite and beside a crowd; a small tv; a kite alone."""
    crowd = np.zeros((40, 60), np.uint8)
    crowd[:, 50:] = 1
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[2], crowd.T.ravel(), [2]]))))
    annotations = [
        annotation(1, 7, KITE, rectangle(5, 5, 15, 15), 100),
        annotation(2, 7, DOG, rectangle(0, 0, 40, 40), 1600),
        annotation(3, 7, PERSON, {"counts": runs.tolist(), "size": [40, 60]}, 400, crowd=1),
        annotation(4, 8, TV, rectangle(0, 0, 20, 20), 400),
        annotation(5, 9, KITE, rectangle(0, 0, 50, 30), 1500),
    ]
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "height": 40, "width": 60} for n in (7, 8, 9, 10)]
    content = {"images": images, "annotations": annotations, "categories": []}
    for split in ("train", "val"):
        raw.text(f"annotations/instances_{split}2017.json", json.dumps(content))
        for image in images:
            raw.image(f"{split}2017/{image['file_name']}", 40, 60)
    return raw


def test_things_are_drawn_small_over_large_and_crowds_ignored(coco):
    directory = coco.prepare("coco/things")
    examples = coco.examples(directory, "train")
    assert sorted(examples) == ["000000000007.jpg", "000000000009.jpg"]  # 8 has too few pixels, 10 none
    names = data.info("coco/things", coco.data_dir).class_names
    expected = np.zeros((40, 60), np.uint8)
    expected[:, :40] = names.index("dog")
    expected[5:15, 5:15] = names.index("kite")
    expected[:, 50:] = 255
    np.testing.assert_array_equal(examples["000000000007.jpg"]["label"], expected)
    assert len(names) == 81


def test_the_classes_of_voc_are_a_configuration(coco):
    directory = coco.prepare("coco/voc")
    ((name, example),) = coco.examples(directory, "val").items()
    assert name == "000000000007.jpg"
    assert set(np.unique(example["label"])) == {0, classes.VOC.index("dog"), 255}
    assert data.info("coco/voc", coco.data_dir).class_names == classes.VOC


def test_all_images_are_a_configuration(coco):
    examples = coco.examples(coco.prepare("coco/all"), "val")
    assert sorted(examples) == [f"{number:012d}.jpg" for number in (7, 8, 9, 10)]
    assert not examples["000000000010.jpg"]["label"].any()
    labels = {int(value) for example in examples.values() for value in np.unique(example["label"])}
    assert labels == {0, 255} | {classes.COCO.index(name) for name in ("dog", "kite", "tv")}


def test_the_images_of_2014_are_a_configuration_and_never_those_of_2017(coco):
    with pytest.raises(UserError, match="has no annotations/instances_train2014.json, unpacked"):
        coco.prepare("coco/2014")
    content = json.loads(coco.path("annotations/instances_val2017.json").read_text())
    content["images"] = content["images"][1:]
    for split in ("train", "val"):
        coco.text(f"annotations/instances_{split}2014.json", json.dumps(content))
        for image in content["images"]:
            coco.image(f"{split}2014/{image['file_name']}", 40, 60)
    examples = coco.examples(coco.prepare("coco/2014"), "val")
    assert sorted(examples) == [f"{number:012d}.jpg" for number in (8, 9, 10)]
    assert data.info("coco/2014", coco.data_dir).class_names == classes.COCO


def test_category_numbers_are_a_configuration(coco):
    examples = coco.examples(coco.prepare("coco/ids"), "train")
    assert set(np.unique(examples["000000000007.jpg"]["label"])) == {0, DOG, KITE, 255}
    names = data.info("coco/ids", coco.data_dir).class_names
    assert len(names) == 91 and names[TV] == "tv" and sum(name.startswith("unused") for name in names) == 10


def test_every_class_of_voc_has_one_of_coco():
    assert sorted(classes.VOC_OF_COCO.values()) == list(range(1, 21))
    names = {classes.VOC[index]: classes.COCO_THINGS[number] for number, index in classes.VOC_OF_COCO.items()}
    same = {name for name, other in names.items() if name == other}
    assert len(same) == 14 and names["sofa"] == "couch" and names["tvmonitor"] == "tv"
    assert len(classes.COCO_THINGS) == 80 and max(classes.COCO_THINGS) == 90


def test_zip_files_are_read_as_they_are(coco):
    for folder, name in (("annotations", "annotations_trainval2017"), ("train2017",) * 2, ("val2017",) * 2):
        with zipfile.ZipFile(coco.path(f"{name}.zip"), "w") as archive:
            for path in sorted((coco.folder / folder).iterdir()):
                archive.write(path, f"{folder}/{path.name}")
                path.unlink()
    coco.prepare("coco/things")
    assert data.info("coco/things", coco.data_dir).splits == {"train": 2, "val": 2}


def test_mistakes_are_named(coco):
    with pytest.raises(UserError, match="'coco' comes as 'coco/things' .* or 'coco/voc'"):
        coco.prepare("coco")
    coco.path("train2017/000000000007.jpg").unlink()
    with pytest.raises(UserError, match="000000000007.jpg: this image of .*instances_train2017.json is missing"):
        coco.prepare("coco/voc")
    content = json.loads(coco.path("annotations/instances_val2017.json").read_text())
    content["annotations"][1]["segmentation"] = {"counts": "x"}
    coco.text("annotations/instances_val2017.json", json.dumps(content))
    with pytest.raises(
        UserError, match="instances_val2017.json: 000000000007.jpg: found neither polygons nor a run-length code"
    ):
        coco.prepare("coco/things", on_error="stop") if coco.image("train2017/000000000007.jpg", 40, 60) else None
    coco.text("annotations/instances_train2017.json", "{")
    with pytest.raises(UserError, match="instances_train2017.json: cannot be read as COCO's instance annotations"):
        coco.prepare("coco/voc")
    coco.path("annotations/instances_train2017.json").unlink()
    with pytest.raises(UserError, match="has no annotations/instances_train2017.json"):
        coco.prepare("coco/voc")
    assert coco.left_behind() == []


def change(coco, edit):
    for split in ("train", "val"):
        path = coco.path(f"annotations/instances_{split}2017.json")
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))


def test_objects_without_an_area_are_drawn_by_their_size(coco):
    before = coco.examples(coco.prepare("coco/things"), "train")
    change(coco, lambda content: [thing.pop("area") for thing in content["annotations"][1:]])
    after = coco.examples(coco.prepare("coco/things", overwrite=True), "train")
    for name, example in before.items():
        np.testing.assert_array_equal(after[name]["label"], example["label"])
    change(coco, lambda content: [thing.update(area=10**400) for thing in content["annotations"]])
    after = coco.examples(coco.prepare("coco/things", overwrite=True), "train")
    for name, example in before.items():
        np.testing.assert_array_equal(after[name]["label"], example["label"])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content["images"][0].update(height=10**6, width=10**6), "found a size of 1000000 x 1000000"),
        (lambda content: content["images"][0].update(height=-5), "found a size of -5 x 60"),
        (lambda content: content["images"][0].update(height=65500, width=65500), "expected that of the image .* 40 x"),
        (lambda content: content["images"][0].update(height="40"), "found a size of '40' x 60 pixels, expected"),
        (lambda content: content["images"][0].update(file_name=None), "None: this image of .* is missing"),
        (lambda content: content["annotations"][0].update(image_id=[]), "cannot be read as COCO's instance annot"),
        (
            lambda content: content["annotations"][0].update(segmentation=[[1, 1, 5, 5, 1e30, 1]]),
            "found a polygon that",
        ),
        (lambda content: content["annotations"].insert(0, 7), "cannot be read as COCO's instance annotations"),
        (lambda content: content.update(images=7), "cannot be read as COCO's instance annotations"),
    ],
)
def test_hostile_annotations_are_one_line(coco, edit, message):
    change(coco, edit)
    with pytest.raises(UserError, match=message) as raised:
        coco.prepare("coco/things")
    assert "\n" not in str(raised.value) and coco.left_behind() == []


def test_annotations_of_nothing_but_brackets_are_one_line(coco):
    coco.text("annotations/instances_train2017.json", "[" * 200_000)
    with pytest.raises(UserError, match="cannot be read as COCO's instance annotations"):
        coco.prepare("coco/things")


@pytest.mark.slow
def test_beam_in_other_processes_knows_the_types_of_the_builder(coco):
    pytest.importorskip("apache_beam")
    options = "runner=DirectRunner,direct_num_workers=2,direct_running_mode=multi_processing"
    on_beam = coco.examples(coco.prepare("coco/things", beam_pipeline_options=options), "train")
    plain = coco.examples(coco.prepare("coco/things", overwrite=True), "train")
    assert sorted(on_beam) == sorted(plain)
    for name, example in plain.items():
        np.testing.assert_array_equal(on_beam[name]["label"], example["label"])
