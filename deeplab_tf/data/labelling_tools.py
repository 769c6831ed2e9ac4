"""Annotations as labelling tools write them, drawn as class indices.

    LabelMe   one .json beside each image; drawn by Pillow as LabelMe's own `shapes_to_label` does, later over earlier
    COCO      one .json for many images, of Roboflow, CVAT, Label Studio: polygons and run lengths; drawn by
              pycocotools, small objects over large ones ("iscrowd" is not looked at: CVAT sets it for all that was
              painted with a brush)
    CVAT      annotations.xml, "CVAT for images": polygons, boxes and ellipses, drawn by pycocotools as in CVAT, and
              masks; in the order of z_order

Pixels outside all shapes are of the background.
"""

import base64
import dataclasses
import json
import math
import os
import pathlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from deeplab_tf import pictures
from deeplab_tf.data.annotations import draw_segmentations
from deeplab_tf.data.builder import Example
from deeplab_tf.data.masks import Mask
from deeplab_tf.data.raw import RawFile, content
from deeplab_tf.errors import UserError

_LINE_WIDTH, _POINT_RADIUS = 10, 5  # LabelMe's, pixels
_ELLIPSE_CORNERS = 90
_KEPT = ("points", "mask")  # of LabelMe's shapes


@dataclasses.dataclass(frozen=True)
class Shape:
    """A shape that a person drew.

    Attributes:
        label: name of its class.
        kind: "segmentation" (COCO's), "run_lengths" (CVAT's), or a kind of LabelMe's ("polygon", "circle", ...).
        data: of "segmentation" as in COCO; of "run_lengths" (left, top, width, height, [zeros, ones, zeros, ...]); of
            others their points, [[x, y], ...], and LabelMe's "mask", a PNG in base 64.
    """

    label: str
    kind: str
    data: Any


@dataclasses.dataclass(frozen=True)
class DrawnImage:
    """An image and the shapes that were drawn on it.

    Attributes:
        name: of the image, unique in the data set.
        image: its file.
        size: height and width, pixels, as the tool saw them; None: it does not say.
        shapes: in the order in which they are drawn.
        source: the annotation file.
        small_on_top: whether smaller shapes are drawn over larger ones, whatever their order.
        indices: the class index of each label, 255 for none; given by `classified`.
        outside: the index of pixels outside all shapes.
        problem: what is wrong, if that is known before the image is read.
    """

    name: str
    image: RawFile
    size: tuple[int, int] | None
    shapes: tuple[Shape, ...]
    source: str
    small_on_top: bool = False
    indices: Mapping[str, int] = dataclasses.field(default_factory=dict)
    outside: int = 0
    problem: str = ""

    def classified(self, index_of: Callable[[str], int | None], outside: int, advice: Callable[[str], str]):
        """The image with the class index of each of its labels.

        Args:
            index_of: gives the index of a label, or None where it has none, which is a problem.
            outside: the index of pixels outside all shapes.
            advice: says of such a label what to do.
        """
        indices = {shape.label: index_of(shape.label) for shape in self.shapes}
        unknown = next((label for label, index in indices.items() if index is None), None)
        problem = self.problem or (f"{self.source}: the label {advice(unknown)}" if unknown is not None else "")
        return dataclasses.replace(self, indices=indices, outside=outside, problem=problem)

    @property
    def classes(self) -> set[int]:
        """The indices of its labels."""
        return set(self.indices.values())


class _Embedded:
    """The image inside a LabelMe file, where there is none beside it."""

    def __init__(self, path: pathlib.Path):
        self._path, self.name = path, path.name

    def __str__(self) -> str:
        return str(self._path)

    def read_bytes(self) -> bytes:
        """The image file."""
        try:
            return base64.b64decode(json.loads(self._path.read_bytes())["imageData"])
        except (ValueError, TypeError, KeyError) as error:
            raise OSError(f"its imageData is damaged: {error}") from error


def read_drawn(image: DrawnImage) -> Example:
    """Draws the shapes of an image.

    Raises:
        UserError: a label has no class, a shape cannot be drawn, or a file cannot be read.
    """
    if image.problem:
        raise UserError(image.problem)
    encoded, source = content(image.image), f"{image.source}: {image.image.name}"
    height, width = _upright_size(encoded, str(image.image))
    if image.size not in (None, (height, width)):
        raise UserError(
            f"{source}: annotated at {image.size[1]}x{image.size[0]} pixels, the image has {width}x{height} (upright, "
            "as its EXIF orientation says); they must be equal"
        )
    drawn = draw_shapes(image.shapes, height, width, source)
    pairs = list(zip(image.shapes, drawn, strict=True))
    if image.small_on_top:
        pairs.sort(key=lambda pair: -np.count_nonzero(pair[1]))
    indices = np.full((height, width), image.outside, np.uint8)
    for shape, pixels in pairs:
        indices[pixels] = image.indices[shape.label]
    return Example(image.name, encoded, Mask(indices), str(image.image), image.source)


def draw_shapes(shapes: tuple[Shape, ...], height: int, width: int, source: str) -> list[np.ndarray]:
    """The pixels of each shape, bool [height, width] each.

    Args:
        shapes: in any order.
        height: of the image, pixels.
        width: likewise.
        source: the file and image, for messages.

    Raises:
        UserError: one cannot be drawn.
    """
    segmentations = [shape.data for shape in shapes if shape.kind == "segmentation"]
    drawn = iter(draw_segmentations(segmentations, height, width, source) if segmentations else ())
    draw = {"segmentation": lambda data: next(drawn), "run_lengths": lambda data: _run_lengths(data, height, width)}
    found = []
    for shape in shapes:
        try:
            one = draw.get(shape.kind, lambda data, kind=shape.kind: _labelme_shape(kind, data, height, width))
            found.append(one(shape.data))
        except (ValueError, TypeError, KeyError, IndexError, OSError, OverflowError) as error:
            raise UserError(
                f"{source}: a {shape.kind} of {shape.label!r:.100} cannot be drawn ({error!s:.200})"
            ) from error
    return found


def _labelme_shape(kind: str, data: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """The pixels of one of LabelMe's shapes, as `labelme.utils.shape_to_mask` gives them."""
    points = [(float(x), float(y)) for x, y in data["points"]]
    side = max(height, width)
    if not all(math.isfinite(value) and -side <= value <= 2 * side for point in points for value in point):
        raise ValueError("it is not near the image")
    expected = {"circle": 2, "rectangle": 2, "line": 2, "point": 1, "oriented_rectangle": 4, "mask": 2}.get(kind)
    if len(points) != expected if expected else len(points) < (2 if kind == "linestrip" else 3):
        raise ValueError(f"found {len(points)} points, expected {expected or 'at least 3'}")
    if kind == "mask":
        (x1, y1), (x2, y2) = np.array(points).astype(int)
        painted = pictures.open_image(base64.b64decode(data["mask"]), "its mask", load=False)
        if painted.size != (x2 + 1 - x1, y2 + 1 - y1) or min(x1, y1) < 0 or x2 >= width or y2 >= height:
            raise ValueError("its mask is not as large as its box, or the box is not within the image")
        pixels = np.zeros((height, width), bool)
        pixels[y1 : y2 + 1, x1 : x2 + 1] = np.asarray(painted, bool)
        return pixels
    canvas = Image.new("L", (width, height))
    pencil = ImageDraw.Draw(canvas)
    if kind in ("polygon", "oriented_rectangle"):
        pencil.polygon(points, outline=1, fill=1)
    elif kind == "rectangle":
        corners = np.array(points)
        pencil.rectangle((*corners.min(0), *corners.max(0)), outline=1, fill=1)
    elif kind in ("circle", "point"):
        (x, y), radius = points[0], _POINT_RADIUS if kind == "point" else math.dist(*points)
        pencil.ellipse((x - radius, y - radius, x + radius, y + radius), outline=1, fill=1)
    elif kind in ("line", "linestrip"):
        pencil.line(points, fill=1, width=_LINE_WIDTH)
    else:
        raise ValueError("expected a polygon, rectangle, circle, line, linestrip, point or mask")
    return np.asarray(canvas, bool)


def _run_lengths(data: tuple, height: int, width: int) -> np.ndarray:
    """CVAT's masks: run lengths of zeros and ones in turn, row by row of a box."""
    left, top, box_width, box_height, lengths = data
    if min(left, top, box_width, box_height, *lengths, 0) < 0 or left + box_width > width or top + box_height > height:
        raise ValueError("it is not within the image")
    if sum(lengths) != box_width * box_height:
        raise ValueError("its run lengths do not add up")
    box = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(box_height, box_width)
    pixels = np.zeros((height, width), bool)
    pixels[top : top + box_height, left : left + box_width] = box
    return pixels


def _upright_size(encoded: bytes, source: str) -> tuple[int, int]:
    picture = pictures.open_image(encoded, source, load=False)
    return picture.size if pictures.exif_orientation(picture) > 4 else picture.size[::-1]


def read_annotations(folder: pathlib.Path) -> tuple[list[DrawnImage], list[str], list[str]]:
    """All annotated images in a folder and in folders in it.

    Returns:
        the images; their labels, in the order of the tool's own list of classes where it has one; the kinds of files
        found: "LabelMe", "COCO", "CVAT".

    Raises:
        UserError: an annotation file is damaged.
    """
    files = _Files(folder)
    images: dict[str, list[DrawnImage]] = {}
    names: list[str] = []
    for path in sorted(folder.rglob("*.json")) + sorted(folder.rglob("*.xml")):
        kind, found, labels = _read_file(path, files)
        images.setdefault(kind, []).extend(found)
        names += labels
    images.pop("", None)
    drawn = [image for of_kind in images.values() for image in of_kind]
    occur = {shape.label for image in drawn for shape in image.shapes}
    return drawn, [*(name for name in dict.fromkeys(names) if name in occur), *sorted(occur - set(names))], list(images)


def _read_file(path: pathlib.Path, files: "_Files") -> tuple[str, list[DrawnImage], list[str]]:
    """The kind of an annotation file ("" for another file), its images, and its list of classes."""
    if path.name.startswith("."):
        return "", [], []
    try:
        if path.suffix == ".xml":
            root = ElementTree.fromstring(content(path))
            labels = [name.text or "" for name in root.iterfind(".//labels/label/name")]
            is_ours = root.tag == "annotations" and root.find("image") is not None
            return ("CVAT", list(_of_cvat(root, path, files)), labels) if is_ours else ("", [], [])
        parsed = json.loads(content(path))
        if isinstance(parsed, dict) and "shapes" in parsed and "imagePath" in parsed:
            return "LabelMe", [_of_labelme(parsed, path, files)], []
        if isinstance(parsed, dict) and {"images", "annotations", "categories"} <= parsed.keys():
            categories = {entry["id"]: str(entry["name"]) for entry in parsed["categories"]}
            return "COCO", list(_of_coco(parsed, categories, path, files)), [categories[i] for i in sorted(categories)]
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OSError,
        RecursionError,
        ElementTree.ParseError,
    ) as error:
        reason = repr(error)[:120]
        raise UserError(f"{path}: cannot be read as annotations of LabelMe, COCO or CVAT ({reason})") from error
    return "", [], []


def _of_labelme(parsed: dict, path: pathlib.Path, files: "_Files") -> DrawnImage:
    shapes = tuple(
        Shape(
            str(shape["label"]),
            str(shape.get("shape_type") or "polygon"),
            {k: shape.get(k) for k in ("points", "mask")},
        )
        for shape in parsed["shapes"]
    )
    named = pathlib.PurePosixPath(str(parsed["imagePath"]).replace("\\", "/"))
    image = files.find(path.parent, str(named)) or files.find(path.parent, path.stem, any_suffix=True)
    problem = "" if image or parsed.get("imageData") else f"{path}: its image {named.name} is missing"
    sides = parsed.get("imageHeight"), parsed.get("imageWidth")
    size = sides if None not in sides else None
    name = files.name(image or path.with_suffix(named.suffix or ".png"))
    return DrawnImage(name, image or _Embedded(path), size, shapes, str(path), problem=problem)


def _of_coco(parsed: dict, categories: dict, path: pathlib.Path, files: "_Files") -> Iterator[DrawnImage]:
    shapes: dict[Any, list[Shape]] = {}
    for entry in parsed["annotations"]:
        shape = Shape(categories[entry["category_id"]], "segmentation", entry.get("segmentation"))
        shapes.setdefault(entry["image_id"], []).append(shape)
    for entry in parsed["images"]:
        size = (entry["height"], entry["width"])
        yield files.drawn(path, str(entry["file_name"]), size, shapes.get(entry["id"], []), small_on_top=True)


def _of_cvat(root: ElementTree.Element, path: pathlib.Path, files: "_Files") -> Iterator[DrawnImage]:
    for image in root.iterfind("image"):
        elements = sorted((e for e in image if "label" in e.attrib), key=lambda e: int(e.get("z_order", 0)))
        shapes = [_cvat_shape(element) for element in elements if element.tag != "tag"]
        size = (int(image.attrib["height"]), int(image.attrib["width"]))
        yield files.drawn(path, image.attrib["name"], size, shapes)


def _cvat_shape(element: ElementTree.Element) -> Shape:
    label, values = element.attrib["label"], element.attrib
    number = lambda *names: [float(values[name]) for name in names]  # noqa: E731
    if element.tag == "mask":
        box = [int(values[name]) for name in ("left", "top", "width", "height")]
        return Shape(label, "run_lengths", (*box, [int(length) for length in values["rle"].split(",")]))
    if element.tag == "polygon":
        return Shape(label, "segmentation", [[float(value) for value in re.split("[,;]", values["points"])]])
    if element.tag == "box":
        x1, y1, x2, y2 = number("xtl", "ytl", "xbr", "ybr")
        return Shape(label, "segmentation", [[x1, y1, x2, y1, x2, y2, x1, y2]])
    if element.tag == "ellipse":
        x, y, rx, ry = number("cx", "cy", "rx", "ry")
        angles = 2 * np.pi * np.arange(_ELLIPSE_CORNERS) / _ELLIPSE_CORNERS
        corners = np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=-1)
        return Shape(label, "segmentation", [corners.ravel().tolist()])
    return Shape(label, element.tag, {"points": []})  # a polyline or points: refused when drawn, as it has no area


class _Files:
    """The image files below a folder, found by what annotation files call them."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._by_name: dict[str, list[pathlib.Path]] = {}
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in pictures.SUFFIXES:
                self._by_name.setdefault(path.name, []).append(path)

    def find(self, base: pathlib.Path, name: str, any_suffix: bool = False) -> pathlib.Path | None:
        """The file that a name means: beside `base`, in images/ there or beside that, else the only one called so."""
        if any_suffix:
            beside = (base / f"{name}{suffix}" for suffix in sorted(pictures.SUFFIXES))
            return next((path for path in beside if path.is_file()), None)
        inside = pathlib.PurePosixPath(name)
        if not inside.is_absolute() and ".." not in inside.parts:
            for place in (base, base / "images", base.parent / "images", base.parent):
                if (place / inside).is_file():
                    return place / inside
        called = self._by_name.get(inside.name, [])
        ends = [path for path in called if path.as_posix().endswith(f"/{name}")]
        return ends[0] if len(ends) == 1 else called[0] if len(called) == 1 else None

    def name(self, path: pathlib.Path) -> str:
        """The path below the folder."""
        return pathlib.PurePath(os.path.relpath(path, self._folder)).as_posix()

    def drawn(self, source: pathlib.Path, name: str, size: tuple, shapes: list[Shape], **kwargs: Any) -> DrawnImage:
        """The image that an annotation file of many calls `name`."""
        image = self.find(source.parent, name)
        problem = "" if image else f"{source}: its image {name} is missing; expected it beside that file or in images/"
        path = image or source.parent / pathlib.PurePath(name).name
        return DrawnImage(self.name(path), path, size, tuple(shapes), str(source), problem=problem, **kwargs)
