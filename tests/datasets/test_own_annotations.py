"""Data of the user's own as labelling tools write them, class maps, folders of every layout, and the split."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_masks

from deeplab_tf import data
from deeplab_tf.data.catalogue import read_class_counts
from deeplab_tf.errors import UserError

NAME = "image_folder/mine"
HEIGHT, WIDTH = 20, 30
TRIANGLE, SQUARE = [[2, 3], [20, 4], [8, 18]], [[10, 5], [26, 5], [26, 15], [10, 15]]


def flat(points):
    return [coordinate for point in points for coordinate in point]


def by_pillow(points, *, value=1, under=None):
    canvas = Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8) if under is None else under)
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in points], outline=value, fill=value)
    return np.array(canvas)


def by_pycocotools(points):
    code = coco_masks.merge(coco_masks.frPyObjects([flat(points)], HEIGHT, WIDTH))
    return coco_masks.decode(code).astype(bool)


def encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def labelme(raw, name, *shapes, image=True, **further):
    """A LabelMe file, with its image beside it; shapes are (label, points) or dictionaries."""
    entries = [s if isinstance(s, dict) else {"label": s[0], "points": s[1], "shape_type": "polygon"} for s in shapes]
    stem = name.rpartition("/")[2]
    if image:
        raw.image(f"{name}.jpg", HEIGHT, WIDTH)
    content = {"version": "5.4", "shapes": entries, "imagePath": f"{stem}.jpg", "imageData": None}
    content |= {"imageHeight": HEIGHT, "imageWidth": WIDTH} | further
    raw.path(f"{name}.json").write_text(json.dumps(content))


def coco(raw, path, images, annotations, categories):
    """A COCO file: images {number: name}; annotations (image, category, segmentation)."""
    content = {
        "images": [{"id": i, "file_name": name, "height": HEIGHT, "width": WIDTH} for i, name in images.items()],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": 0}
            for i, (image, category, segmentation) in enumerate(annotations)
        ],
        "categories": [{"id": i, "name": name, "supercategory": "things"} for i, name in categories.items()],
    }
    raw.path(path).write_text(json.dumps(content))


def label(raw, name, **options):
    directory = raw.prepare(NAME, val_fraction=0, overwrite=True, **options)
    return raw.examples(directory, "train")[name]["label"]


def test_labelme_is_drawn_by_pillow_later_over_earlier(raw):
    labelme(raw, "day/a", ("leaf", TRIANGLE), ("fruit", SQUARE), ("__ignore__", [[0, 0], [3, 0], [0, 3]]))
    found = label(raw, "day/a.jpg")
    expected = by_pillow(SQUARE, value=1, under=by_pillow(TRIANGLE, value=2))
    expected = by_pillow([[0, 0], [3, 0], [0, 3]], value=255, under=expected)
    np.testing.assert_array_equal(found, expected)
    assert data.info(NAME, raw.data_dir).class_names == ("background", "fruit", "leaf")


def test_the_other_shapes_of_labelme(raw):
    pixels = np.random.default_rng(0).random((6, 9)) < 0.5
    shapes = [
        {"label": "a", "points": [[20, 15], [4, 2]], "shape_type": "rectangle"},
        {"label": "b", "points": [[10, 10], [10, 14]], "shape_type": "circle"},
        {"label": "c", "points": [[18, 9], [26, 14]], "shape_type": "mask", "mask": encoded(pixels)},
    ]
    labelme(raw, "a", *shapes, imageHeight=None, imageWidth=None)
    canvas = Image.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(canvas).rectangle((4, 2, 20, 15), fill=1)
    ImageDraw.Draw(canvas).ellipse((6, 6, 14, 14), fill=2)
    expected = np.array(canvas)
    expected[9:15, 18:27][pixels] = 3
    np.testing.assert_array_equal(label(raw, "a.jpg"), expected)


def test_a_picture_inside_a_labelme_file_and_pictures_without_one(raw, capsys):
    inside = encoded(np.full((HEIGHT, WIDTH, 3), 9, np.uint8))
    labelme(raw, "a", ("leaf", TRIANGLE), image=False, imageData=inside, imagePath="..\\far\\a.png")
    labelme(raw, "b", ("leaf", SQUARE))
    raw.image("c.jpg")
    directory = raw.prepare(NAME, val_fraction=0)
    examples = raw.examples(directory, "train")
    assert sorted(examples) == ["a.png", "b.jpg"] and (examples["a.png"]["image"] == 9).all()
    assert "1 images have no annotation and are left out" in capsys.readouterr().err


def test_coco_is_drawn_by_pycocotools_small_over_large(raw):
    """As Roboflow lays it out: pictures beside the file, in folders that name the split."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[15:, 3:9] = 1
    code = coco_masks.encode(np.asfortranarray(mask))
    run_lengths = {"size": [HEIGHT, WIDTH], "counts": code["counts"].decode()}
    for folder in ("train", "valid"):
        raw.image(f"{folder}/a.jpg", HEIGHT, WIDTH)
        raw.image(f"{folder}/empty.jpg", HEIGHT, WIDTH)
        things = [(7, 3, [flat(TRIANGLE)]), (7, 2, [flat(SQUARE)]), (7, 3, run_lengths)]
        names = {0: "fruits", 2: "pear", 3: "apple"}  # the first is a heading that Roboflow adds
        coco(raw, f"{folder}/_annotations.coco.json", {7: "a.jpg", 8: "empty.jpg"}, things, names)
    directory = raw.prepare(NAME)
    info = data.info(NAME, raw.data_dir)
    assert (info.class_names, info.splits) == (("background", "pear", "apple"), {"train": 2, "val": 2})
    triangle, square = by_pycocotools(TRIANGLE), by_pycocotools(SQUARE)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    for pixels, index in sorted([(triangle, 2), (square, 1)], key=lambda pair: -pair[0].sum()):
        expected[pixels] = index
    expected[mask > 0] = 2
    examples = raw.examples(directory, "val")
    np.testing.assert_array_equal(examples["valid/a.jpg"]["label"], expected)
    assert not examples["valid/empty.jpg"]["label"].any()


@pytest.mark.parametrize("name", ["photo.jpg", "images/photo.jpg", "upload/7/photo.jpg"])
def test_pictures_of_coco_are_found_beside_in_images_or_anywhere(raw, name):
    raw.image("images/photo.jpg" if "upload" in name else f"images/{name}", HEIGHT, WIDTH)
    coco(raw, "annotations/instances_default.json", {1: name}, [(1, 1, [flat(SQUARE)])], {1: "x"})
    directory = raw.prepare(NAME, val_fraction=0)
    (example,) = raw.examples(directory, "train").values()
    np.testing.assert_array_equal(example["label"], by_pycocotools(SQUARE))


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><labels>
<label><name>road</name></label><label><name>car</name></label><label><name>unused</name></label>
</labels></task></meta>
<image id="0" name="sub/a.png" width="30" height="20">
  <polygon label="car" source="manual" points="10.0,5.0;26.0,5.0;26.0,15.0;10.0,15.0" z_order="2"></polygon>
  <polygon label="road" source="manual" points="2.0,3.0;20.0,4.0;8.0,18.0" z_order="1"></polygon>
  <mask label="road" source="manual" rle="2, 3, 1, 2" left="20" top="16" width="4" height="2" z_order="3"></mask>
  <box label="car" xtl="0" ytl="17" xbr="5" ybr="20" z_order="4"></box>
  <tag label="car"></tag>
</image></annotations>"""


def test_cvat_polygons_masks_and_boxes_by_z_order(raw):
    raw.image("images/sub/a.png", HEIGHT, WIDTH)
    raw.text("annotations.xml", CVAT)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[by_pycocotools(TRIANGLE)] = 1
    expected[by_pycocotools(SQUARE)] = 2
    expected[16, 22:24] = expected[17, 20] = expected[17, 22:24] = 1
    expected[by_pycocotools([[0, 17], [5, 17], [5, 20], [0, 20]])] = 2
    np.testing.assert_array_equal(label(raw, "images/sub/a.png"), expected)
    assert data.info(NAME, raw.data_dir).class_names == ("background", "road", "car")


def test_class_names_of_polygons_choose_the_order_and_what_is_outside(raw):
    labelme(raw, "a", ("leaf", TRIANGLE))
    names = raw.text("names.txt", "leaf", "_background_")
    assert set(np.unique(label(raw, "a.jpg", class_names=names))) == {0, 1}
    names = raw.text("names.txt", "leaf")
    np.testing.assert_array_equal(label(raw, "a.jpg", class_names=names) == 0, by_pillow(TRIANGLE) > 0)
    assert set(np.unique(label(raw, "a.jpg", class_names=names))) == {0, 255}


@pytest.mark.parametrize("as_json", [False, True])
def test_a_class_map_merges_drops_and_reorders_polygons(raw, as_json):
    labelme(raw, "a", ("car", TRIANGLE), ("truck", SQUARE), ("sky", [[0, 0], [29, 0], [29, 2], [0, 2]]))
    lines = ["# mine", "vehicle = car, truck", "background", "ignore = *"]
    if as_json:
        lines = [json.dumps({"vehicle": ["car", "truck"], "background": ["background"], "ignore": ["*"]})]
    found = label(raw, "a.jpg", class_map=raw.text("map", *lines))
    vehicle = by_pillow(SQUARE, under=by_pillow(TRIANGLE))
    expected = by_pillow([[0, 0], [29, 0], [29, 2], [0, 2]], value=255, under=1 - vehicle)
    np.testing.assert_array_equal(found, expected)
    assert data.info(NAME, raw.data_dir).class_names == ("vehicle", "background")


@pytest.fixture
def folder(raw, grid):
    """Twenty pairs: class 2 is in two of them."""
    for n in range(20):
        raw.image(f"images/p{n}.jpg", seed=n)
        raw.mask(f"masks/p{n}.png", grid([0, 1, 2] if n in (3, 11) else [0, 1]))
    raw.names = raw.text("classes.txt", "ground", "red", "leaf")
    return raw


def test_a_class_map_of_masks_by_names_colours_and_values(folder, grid):
    merged = folder.text("map.txt", "plant = leaf, red", "ignore = ground")
    np.testing.assert_array_equal(
        label(folder, "p3.jpg", class_names=folder.names, class_map=merged), grid([255, 0, 0])
    )
    by_value = folder.text("values.txt", "leaf = 2", "rest = *")
    np.testing.assert_array_equal(label(folder, "p3.jpg", class_map=by_value), grid([1, 1, 0]))
    table = folder.text("colors.txt", "0 0 0 ground", "1 1 1 red", "2 2 2 leaf")
    np.testing.assert_array_equal(label(folder, "p3.jpg", color_table=table, class_map=merged), grid([255, 0, 0]))


def test_binary_masks_are_accepted_when_asked(folder, grid):
    for n in range(20):
        folder.mask(f"masks/p{n}.png", grid([0, 255]))
    found = label(folder, "p3.jpg", class_map=folder.text("map.txt", "background = 0", "fruit = 255"))
    np.testing.assert_array_equal(found, grid([0, 1]))
    assert data.info(NAME, folder.data_dir).class_names == ("background", "fruit")


def test_another_ignore_label(folder, grid):
    folder.mask("masks/p3.png", grid([0, 1, 11, 255]))
    found = label(folder, "p3.jpg", class_names=folder.names, ignore_label=11)
    np.testing.assert_array_equal(found, grid([0, 1, 255, 255]))


def test_a_changed_class_map_is_prepared_anew_or_refused(folder):
    path = folder.text("map.txt", "a = 0, 1, 2")
    folder.prepare(NAME, class_map=path)
    folder.text("map.txt", "a = 0, 1", "b = 2")
    with pytest.raises(UserError, match="with another --class_map; prepare it again with --overwrite"):
        folder.prepare(NAME, class_map=path)
    folder.prepare(NAME, class_map=path, overwrite=True)
    assert data.info(NAME, folder.data_dir).class_names == ("a", "b")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["plant = leaf, red"],
            "the class 'ground' is not in .*map.txt; add it to a class there, or 'ignore = ground'",
        ),
        (["plant = leaf, tree"], "map.txt: found the old class 'tree', expected one of ground, red, leaf"),
        (["a = leaf", "b = leaf, *"], "map.txt:2: 'leaf' is part of two classes"),
        (["a = leaf", "a = *"], "map.txt:2: the class 'a' occurs twice"),
        (["ignore = *"], "map.txt: no classes"),
        (["a ="], "map.txt:1: expected 'new class = old class, old class'"),
        (['{"a": "leaf"}'], 'map.txt: expected JSON as {"new class"'),
        (["{"], "map.txt: expected JSON"),
    ],
)
def test_a_bad_class_map_is_named(folder, lines, message):
    with pytest.raises(UserError, match=message) as raised:
        folder.prepare(NAME, class_names=folder.names, class_map=folder.text("map.txt", *lines))
    assert "\n" not in str(raised.value)


def test_a_value_that_the_class_map_does_not_name(folder):
    path = folder.text("map.txt", "a = 0", "b = 1")
    with pytest.raises(UserError, match="masks/p3.png: 200 pixels of the mask have the value 2, which --class_map"):
        folder.prepare(NAME, class_map=path)


BAD_DRAWINGS = {
    "a label without a class": (
        lambda raw: labelme(raw, "a", ("leef", TRIANGLE)),
        r"a.json: the label 'leef' is not in .*names.txt; add it there, or give --class_map",
    ),
    "no image": (lambda raw: labelme(raw, "a", ("leaf", TRIANGLE), image=False), "a.json: its image a.jpg is missing"),
    "two points": (
        lambda raw: labelme(raw, "a", ("leaf", TRIANGLE[:2])),
        r"a.json: a.jpg: a polygon of 'leaf' cannot be drawn \(found 2 points",
    ),
    "far away": (lambda raw: labelme(raw, "a", ("leaf", [[0, 0], [1e30, 0], [0, 9]])), "it is not near the image"),
    "not a number": (lambda raw: labelme(raw, "a", ("leaf", [[0, 0], ["x", 0], [0, 9]])), "could not convert"),
    "another size": (
        lambda raw: labelme(raw, "a", ("leaf", TRIANGLE), imageWidth=31),
        "a.json: a.jpg: annotated at 31x20 pixels, the image has 30x20",
    ),
    "not JSON": (lambda raw: raw.text("a.json", "{"), "a.json: cannot be read as annotations of LabelMe, COCO or CVAT"),
    "deep": (lambda raw: raw.text("a.json", "[" * 200_000), "a.json: cannot be read as annotations"),
    "a name too long for a file": (
        lambda raw: labelme(raw, "a", ("leaf", TRIANGLE), imagePath="n" * 300),
        r"a.json: cannot be read as annotations of LabelMe, COCO or CVAT \(OSError",
    ),
    "XML of no known encoding": (
        lambda raw: raw.text("a.xml", '<?xml version="1.0" encoding="upf-8"?><annotations/>'),
        "a.xml: cannot be read as annotations",
    ),
    "no polygon": (
        lambda raw: (raw.image("a.jpg"), coco(raw, "a.json", {1: "a.jpg"}, [(1, 1, [])], {1: "leaf"})),
        "a.json: a.jpg: found no polygon in a segmentation",
    ),
    "a polyline": (
        lambda raw: (
            raw.image("a.png"),
            raw.text("a.xml", CVAT.replace("sub/a.png", "a.png").replace("polygon", "polyline").replace("car", "leaf")),
        ),
        "a.xml: a.png: a polyline of .* cannot be drawn",
    ),
}


@pytest.mark.parametrize("case", BAD_DRAWINGS)
def test_a_bad_annotation_is_one_line_that_names_the_file(raw, case):
    spoil, message = BAD_DRAWINGS[case]
    labelme(raw, "b", ("leaf", SQUARE))
    spoil(raw)
    names = raw.text("names.txt", "background", "leaf", "road", "car")
    with pytest.raises(UserError, match=message) as raised:
        raw.prepare(NAME, class_names=names, val_fraction=0)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("Images/{}.jpg", "Masks/{}.png"),
        ("JPEGImages/{}.jpg", "SegmentationClass/{}.png"),
        ("images/{}.jpg", "masks/{}_mask.png"),
        ("img/{}.jpg", "labels/{}-seg.png"),
        ("{}.jpg", "{}_mask.png"),
        ("2024/may/images/{}.jpg", "2024/may/masks/{}.png"),
    ],
)
def test_layouts_that_people_have(raw, grid, images, masks):
    for n in range(4):
        raw.image(images.format(f"p{n}"), seed=n)
        raw.mask(masks.format(f"p{n}"), grid([0, 1]) if n else grid([1]))
    directory = raw.prepare(NAME, class_names=raw.text("../classes.txt", "a", "b"), val_fraction=0)
    examples = raw.examples(directory, "train")
    prefix = "2024/may/" if "2024" in images else ""
    assert sorted(examples) == [f"{prefix}p{n}.jpg" for n in range(4)]
    assert (examples[f"{prefix}p0.jpg"]["label"] == 1).all()


def test_several_folders(raw, grid, tmp_path):
    for place in ("monday", "tuesday"):
        raw.image(f"{place}/images/p.jpg")
        raw.mask(f"{place}/masks/p.png", grid([0, 1]))
    both = f"{raw.folder}/monday,{raw.folder}/tuesday"
    names = raw.text("classes.txt", "a", "b")
    directory = data.prepare(NAME, raw.data_dir, both, class_names=names, val_fraction=0)
    assert sorted(raw.examples(directory, "train")) == ["monday/p.jpg", "tuesday/p.jpg"]
    assert data.prepare(NAME, raw.data_dir, both, class_names=names) == directory
    with pytest.raises(UserError, match="is prepared already"):
        data.prepare(NAME, raw.data_dir, f"{raw.folder}/monday", class_names=names)


def test_a_folder_of_something_else_says_what_is_expected(raw):
    raw.text("notes.txt", "hello")
    raw.text("other.json", "[1, 2]")
    with pytest.raises(UserError, match="found notes.txt, other.json in it, expected images/ and masks/, LabelMe"):
        raw.prepare(NAME, class_names=raw.text("../classes.txt", "a"))


def test_the_split_has_rare_classes_and_is_told(folder, capsys):
    val = set(folder.examples(folder.prepare(NAME, class_names=folder.names), "val"))
    assert len(val) == 2 and len(val & {"p3.jpg", "p11.jpg"}) == 1
    assert "2 of 20 images are drawn to validate on, by their classes" in capsys.readouterr().err
    again = folder.prepare(NAME, class_names=folder.names, overwrite=True)
    assert set(folder.examples(again, "val")) == val
    others = [
        set(folder.examples(folder.prepare(NAME, class_names=folder.names, split_seed=s, overwrite=True), "val"))
        for s in (1, 2, 3)
    ]
    assert any(other != val for other in others)


def test_folders_name_the_split_unless_a_fraction_is_given(raw, grid, capsys):
    for n, place in enumerate(["train", "train", "train", "val", "test"]):
        raw.image(f"images/{place}/p{n}.jpg")
        raw.mask(f"masks/{place}/p{n}.png", grid([0, 1]))
    names = raw.text("classes.txt", "a", "b")
    raw.prepare(NAME, class_names=names)
    assert data.info(NAME, raw.data_dir).splits == {"test": 1, "train": 3, "val": 1}
    assert "split by the folders called" in capsys.readouterr().err
    raw.prepare(NAME, class_names=names, val_fraction=0.4, overwrite=True)
    assert data.info(NAME, raw.data_dir).splits == {"train": 3, "val": 2}


def test_smoothed_masks_are_refused_by_their_likely_cause(folder, grid):
    mask = Image.fromarray(grid([0, 200], 200, 300)).rotate(20, fillcolor=0)
    smooth = np.asarray(mask.resize((30, 20), Image.Resampling.LANCZOS))
    folder.mask("masks/p4.png", smooth)
    folder.text("classes.txt", *(f"c{n}" for n in range(250)))
    with pytest.raises(UserError, match="p4.png: the values .* the mask looks like an anti-aliased picture"):
        folder.prepare(NAME, class_names=folder.names)
    table = folder.text("colors.txt", "0 0 0 a", "1 1 1 b", "2 2 2 c", "200 200 200 d")
    with pytest.raises(UserError, match="p4.png: the colour .* more: an anti-aliased picture"):
        folder.prepare(NAME, color_table=table)


def test_classes_that_no_training_mask_holds_are_told(folder, capsys):
    directory = folder.prepare(NAME, class_names=folder.text("more.txt", "ground", "red", "leaf", "unicorn"))
    assert "no training mask holds unicorn" in capsys.readouterr().err
    counts = read_class_counts(directory, "train+val")
    assert counts[3] == 0 and sum(counts) == 20 * 600 and read_class_counts(directory, "nix") is None


def test_a_label_map_of_cvat_is_a_colour_table(folder, grid):
    """Of its export "Segmentation mask 1.1"."""
    lines = ["# label:color_rgb:parts:actions", "background:0,0,0::", "leaf:250,50,83::", "red one:1,2,3::"]
    colors = np.array([[0, 0, 0], [250, 50, 83], [1, 2, 3]], np.uint8)
    for n in range(20):
        folder.mask(f"masks/p{n}.png", colors[grid([0, 1, 2])])
    table = folder.text("labelmap.txt", *lines)
    np.testing.assert_array_equal(label(folder, "p0.jpg", color_table=table), grid([0, 1, 2]))
    assert data.info(NAME, folder.data_dir).class_names == ("background", "leaf", "red one")
