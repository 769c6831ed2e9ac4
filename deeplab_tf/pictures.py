"""Pictures on the host: the reader of photographs and of label maps, masks, overlays, panels, contact sheets.

Every command reads photographs with `read_photograph`; `deeplab_tf.data.decoding` is the same as a TensorFlow graph.
"""

import base64
import collections
import glob
import io
import os
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import ExifTags, Image, ImageDraw, ImageFont, PngImagePlugin

from deeplab_tf import files
from deeplab_tf.errors import UserError

# Photographs are found by these, in whatever case. What counts when they are read is the content.
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
MOST_SCANS = 100  # of a JPEG, each of which may go over all pixels in a few bytes; programs write up to 20 or so
LONGEST_SIDE = 65_500  # pixels, of an image: TensorFlow decodes no longer JPEG, and no PNG of a million
OPACITY = 0.6  # of the colours of the classes over a photograph

_ROW, _MARGIN = 18, 4  # height of a line of text and space between pictures, pixels
_CELL, _COLUMNS = 220, 6  # longer side of a picture on a contact sheet, pixels, and pictures in a row
_NO_LABEL = (255, 255, 255)
_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")  # the header of a JPEG's scan
_TURNS = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(file: str | os.PathLike | bytes, source: str = "", load: bool = True) -> Image.Image:
    """Decodes an image file with Pillow.

    Args:
        file: its path, or its content.
        source: its name in messages; default: the path.
        load: whether to decode its pixels, not its header only.

    Raises:
        UserError: it cannot be read.
    """
    source, content = _named_content(file, source)
    try:
        image = Image.open(io.BytesIO(content))
        if max(image.size) > LONGEST_SIDE:  # as a few hundred bytes may claim
            found = f"{image.width} x {image.height} pixels"
            raise UserError(f"{source}: found {found}, expected sides of at most {LONGEST_SIDE}")
        scans = len(_SCAN.findall(content)) if image.format in ("JPEG", "MPO") else 0
        if scans > MOST_SCANS:
            raise UserError(f"{source}: found a JPEG of {scans} scans, expected at most {MOST_SCANS}")
        if load:
            image.load()
    except UserError:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0] or type(error).__name__
        if reason.startswith("cannot identify image file"):
            reason = "not an image, or of an unknown format"
        raise UserError(f"{source}: cannot be read as an image ({reason})") from error
    return image


def _named_content(file: str | os.PathLike | bytes, source: str) -> tuple[str, bytes]:
    """The name for messages, and the content, of a file that is given by its path or its content."""
    if isinstance(file, bytes):
        return source or "an image", file
    try:
        return source or str(file), pathlib.Path(file).read_bytes()
    except OSError as error:
        raise UserError(f"{source or file}: cannot be read as an image ({error.strerror})") from error


def find_images(pattern: str) -> list[pathlib.Path]:
    """The images that an argument or a flag names: one file, all images of a folder, or a glob.

    Raises:
        UserError: there are none.
    """
    path = pathlib.Path(pattern).expanduser()
    if path.is_dir():
        found = [entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES]
    elif path.is_file():
        found = [path]
    else:
        found = [pathlib.Path(name) for name in glob.glob(str(path), recursive=True) if pathlib.Path(name).is_file()]
    if not found:
        raise UserError(f"--input={pattern}: found no image there; expected an image, a folder of images, or a glob")
    return sorted(found)


def read_photograph(file: str | os.PathLike | bytes, source: str = "") -> np.ndarray:
    """Reads a photograph as every part of this project sees it.

    It is turned upright as its EXIF orientation says; of an animation, the first frame is taken. Grey, palette and CMYK
    images become RGB; transparency is left out. Of 16 bits a channel the higher 8 are taken, as TensorFlow does;
    32-bit integers count as 16-bit ones, and floats from 0 to 1 become 0 to 255.

    Args:
        file: its path, or its content.
        source: its name in messages; default: the path.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        UserError: it cannot be read, or holds integers outside 0..65535 or floats outside 0..1.
    """
    source, content = _named_content(file, source)
    turn = _TURNS.get(exif_orientation(open_image(content, source, load=False)))
    image = open_image(content, source)
    is_turned = turn is None or image.format == "TIFF"  # Pillow turns a TIFF as it loads it.
    rgb = _rgb(image, source)
    return np.asarray(rgb if is_turned else rgb.transpose(turn))


def exif_orientation(image: Image.Image) -> int:
    """1, upright, to 8; 1 where the EXIF data before the pixels say otherwise, nothing, or are damaged.

    Pillow's `getexif` takes a turn from XMP data too, and fails where the data are damaged; the served graph does not.
    """
    try:
        tags = getattr(image, "tag_v2", None)  # of a TIFF
        if tags is None:
            tags = Image.Exif()
            tags.load(image.info.get("exif", b""))
        orientation = tags.get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow raises many kinds for damaged data
        return 1
    return orientation if orientation in range(1, 9) else 1


def is_portable(image: Image.Image) -> bool:
    """Whether its file is an upright JPEG or PNG, of which every decoder gives the pixels of `read_photograph`."""
    return image.format in ("JPEG", "MPO", "PNG") and exif_orientation(image) == 1


def distinct_names(paths: Sequence[pathlib.Path]) -> list[str]:
    """Names for the results of images: their paths without suffix; with it where two would be called the same."""
    names = [path.with_suffix("").as_posix() for path in paths]
    while len(set(names)) < len(names):  # more than once: a.jpg may be a path with suffix, or a.jpg.png without
        count = collections.Counter(names)
        names = [name if count[name] == 1 else path.as_posix() for name, path in zip(names, paths, strict=True)]
    return names


def _rgb(image: Image.Image, source: str) -> Image.Image:
    """An opened photograph in RGB of 8 bits; see `read_photograph`."""
    if image.format == "GIF":  # what TensorFlow makes of its transparent pixels
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)  # I;16B has another byte order
        _check_range(values, 0, 65535, source)
        image = Image.fromarray((values >> 8).astype(np.uint8))
    elif image.mode == "F":
        values = np.asarray(image)
        _check_range(values, 0.0, 1.0, source)
        image = Image.fromarray(np.rint(255 * values).astype(np.uint8))
    return image.convert("RGB")


def _check_range(values: np.ndarray, low: float, high: float, source: str) -> None:
    if not low <= values.min() <= values.max() <= high:  # also where one is NaN
        kind = "integers" if values.dtype.kind == "i" else "floats"
        raise UserError(
            f"{source}: found {kind} from {values.min():.6g} to {values.max():.6g}, expected {low:g} to {high:g}; "
            "scale them, or save the image with 8 bits a channel"
        )


def read_labels(
    file: str | os.PathLike | bytes, source: str = "", hint: str = ""
) -> tuple[np.ndarray, list[int] | None]:
    """Reads a label map: an image whose pixel values, grey or of a palette, are class indices.

    Args:
        file: its path, or its content.
        source: its name in messages; default: the path.
        hint: what to do about a colour mask, for the message.

    Returns:
        uint8 [H, W], and the colours of its palette, [R, G, B, R, ...], or None where it has none.

    Raises:
        UserError: it cannot be read, is in colours, has values above 255, or is compressed with loss.
    """
    image, source = open_image(file, source), source or str(file)
    check_lossless(image, source)
    if image.mode in ("L", "P", "1"):
        return np.asarray(image).astype(np.uint8), image.getpalette() if image.mode == "P" else None
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 255:
            wrong = values.min() if values.min() < 0 else values.max()
            raise UserError(f"{source}: the mask holds the value {wrong}; class indices are 0 to 255")
        return values.astype(np.uint8), None
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")), -1, 0)
    if (red == green).all() and (green == blue).all():
        return red, None
    raise UserError(f"{source}: a colour mask ({image.mode}); expected class indices (grey or palette){hint}")


def check_lossless(image: Image.Image, source: str) -> None:
    """Refuses masks in formats that change labels.

    Raises:
        UserError: it is one.
    """
    compression = image.info.get("compression", "")
    if image.format in ("JPEG", "MPO") or "jpeg" in str(compression):
        raise UserError(
            f"{source}: the mask is compressed as JPEG, which changes labels; make it again, as PNG, from its source"
        )


def full_palette(palette: np.ndarray) -> np.ndarray:
    """256 colours, uint8 [256, 3]: those of the classes, then white for what is not a class."""
    full = np.full((256, 3), _NO_LABEL, np.uint8)
    full[: len(palette)] = palette
    return full


def encode_mask(labels: np.ndarray, palette: np.ndarray, text: Mapping[str, str] | None = None) -> bytes:
    """Labels as an indexed PNG, as VOC's masks are: the pixel values are the labels, the palette colours them.

    Args:
        labels: uint8 [H, W].
        palette: uint8 [C, 3], RGB.
        text: further entries of the file, by keyword; `Image.open(path).text` reads them.

    Returns:
        the content of the file.
    """
    picture = Image.fromarray(labels)
    picture.putpalette(full_palette(palette).tobytes())
    entries = PngImagePlugin.PngInfo()
    for keyword, value in (text or {}).items():
        entries.add_text(keyword, value)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True, pnginfo=entries)
    return file.getvalue()


def save_mask(
    path: str | pathlib.Path, labels: np.ndarray, palette: np.ndarray, text: Mapping[str, str] | None = None
) -> None:
    """Writes labels as the indexed PNG of `encode_mask`, which see for the arguments."""
    with files.written_aside(path) as aside:
        aside.write_bytes(encode_mask(labels, palette, text))


def data_uri(content: bytes, media_type: str) -> str:
    """A file as an address that holds all of it, for a web page that needs nothing else."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def save_picture(path: str | pathlib.Path, picture: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] as the file format that the suffix of `path` names."""
    with files.written_aside(path) as aside:
        Image.fromarray(picture).save(aside)


def overlay(image: np.ndarray, labels: np.ndarray, palette: np.ndarray, opacity: float = OPACITY) -> np.ndarray:
    """The image with the colour of each pixel's class laid over it.

    Args:
        image: uint8 [H, W, 3], RGB.
        labels: uint8 [H, W]; what is not a class of the palette stays uncoloured.
        palette: uint8 [C, 3], RGB.
        opacity: of the colours, in [0, 1].

    Returns:
        uint8 [H, W, 3].
    """
    photograph = Image.fromarray(image)
    colored = Image.blend(photograph, Image.fromarray(full_palette(palette)[labels]), opacity)
    photograph.paste(colored, mask=Image.fromarray(labels < len(palette)))
    return np.asarray(photograph)


def panel(
    columns: Mapping[str, np.ndarray], class_names: Sequence[str], palette: np.ndarray, labels: Sequence[np.ndarray]
) -> np.ndarray:
    """Pictures side by side under their titles, with a legend of the classes that occur.

    Args:
        columns: title -> uint8 [H, W, 3], all of one size.
        class_names: C names.
        palette: uint8 [C, 3], RGB.
        labels: the masks shown, uint8 [H, W] each; the legend names their classes.

    Returns:
        uint8 [h, w, 3].
    """
    height, width = next(iter(columns.values())).shape[:2]
    occurs = np.unique(np.concatenate([np.unique(mask) for mask in labels])).tolist()
    entries = [(class_names[label], palette[label]) for label in occurs if label < len(class_names)]
    total_width = len(columns) * (width + _MARGIN) - _MARGIN
    legend = _legend(entries, total_width)
    sheet = Image.new("RGB", (total_width, _ROW + height + _MARGIN + legend.height), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (title, picture) in enumerate(columns.items()):
        left = i * (width + _MARGIN)
        draw.text((left + 2, 1), title, "black", _font())
        sheet.paste(Image.fromarray(picture), (left, _ROW))
    sheet.paste(legend, (0, _ROW + height + _MARGIN))
    return np.asarray(sheet)


def contact_sheet(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], class_names: Sequence[str], palette: np.ndarray
) -> np.ndarray:
    """Many images beside themselves with their masks laid over them: shows at a glance whether a data set is right.

    Args:
        pairs: image uint8 [H, W, 3] and mask uint8 [H, W] of each example; pixels without a label are shown white.
        class_names: C names.
        palette: uint8 [C, 3], RGB.

    Returns:
        uint8 [h, w, 3].
    """
    colors = full_palette(palette)
    cells = [_cell(picture) for image, mask in pairs for picture in (image, overlay(image, mask, colors))]
    rows = [cells[first : first + _COLUMNS] for first in range(0, len(cells), _COLUMNS)]
    tops = np.cumsum([0] + [max(cell.height for cell in row) + _MARGIN for row in rows]).tolist()
    entries = [(f"{index} {name}", palette[index]) for index, name in enumerate(class_names)]
    legend = _legend([*entries, ("no label", _NO_LABEL)], _COLUMNS * (_CELL + _MARGIN))
    sheet = Image.new("RGB", (legend.width, tops[-1] + legend.height), "white")
    for row, top in zip(rows, tops, strict=False):
        for column, cell in enumerate(row):
            sheet.paste(cell, (column * (_CELL + _MARGIN), top))
    sheet.paste(legend, (0, tops[-1]))
    return np.asarray(sheet)


def _cell(picture: np.ndarray) -> Image.Image:
    """The picture with its longer side as long as a cell's."""
    scale = _CELL / max(picture.shape)
    size = [max(1, round(side * scale)) for side in picture.shape[1::-1]]
    return Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)


def _legend(entries: Sequence[tuple[str, Sequence[int]]], width: int) -> Image.Image:
    """The names of some classes, each beside its colour, in columns."""
    column_width = 24 + max((int(_font().getlength(name)) for name, _ in entries), default=0) + 2 * _MARGIN
    per_row = max(1, width // column_width)
    legend = Image.new("RGB", (width, _ROW * -(-len(entries) // per_row)), "white")
    draw = ImageDraw.Draw(legend)
    for place, (name, color) in enumerate(entries):
        left, top = place % per_row * column_width, place // per_row * _ROW
        draw.rectangle((left, top + 2, left + 14, top + 14), tuple(map(int, color)), "black")
        draw.text((left + 20, top), name, "black", _font())
    return legend


def _font() -> ImageFont.ImageFont:
    return ImageFont.load_default(size=12)
