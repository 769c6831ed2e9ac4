"""Photographs of every mode and orientation that people have, as files."""

import io

import numpy as np
from PIL import ExifTags, Image


def photograph(height: int = 40, width: int = 57) -> Image.Image:
    """A smooth picture without symmetry."""
    y, x = np.mgrid[:height, :width]
    channels = [255 * y // height, 255 * x // width, 255 * (x + y) // (height + width)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def encoded(image: Image.Image, kind: str, orientation: int = 0, **options) -> bytes:
    """The picture as a file; with an EXIF orientation where that is not 0."""
    if orientation:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        options["exif"] = exif
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _transparent(mode: str) -> Image.Image:
    picture = photograph().convert(mode)
    picture.putalpha(photograph().convert("L"))
    return picture


def _deep() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1 << 16, (40, 57)).astype(np.uint16)


_PALETTE = photograph().quantize(64)
# What TensorFlow decodes.
DECODABLE = {
    "png": encoded(photograph(), "PNG"),
    "png grey": encoded(photograph().convert("L"), "PNG"),
    "png palette": encoded(_PALETTE, "PNG"),
    "png 4 bits": encoded(photograph().quantize(16), "PNG", bits=4),
    "png 1 bit": encoded(photograph().convert("1"), "PNG"),
    "png rgba": encoded(_transparent("RGBA"), "PNG"),
    "png grey and alpha": encoded(_transparent("LA"), "PNG"),
    "png transparent palette": encoded(_PALETTE, "PNG", transparency=3),
    "png 16 bits": encoded(Image.fromarray(_deep()), "PNG"),
    "bmp": encoded(photograph(), "BMP"),
    "bmp grey": encoded(photograph().convert("L"), "BMP"),
    "bmp palette": encoded(_PALETTE, "BMP"),
    "bmp 32 bits": encoded(_transparent("RGBA"), "BMP"),
    "gif": encoded(_PALETTE, "GIF"),
    "gif transparent": encoded(_PALETTE, "GIF", transparency=5),
    "gif animated": encoded(_PALETTE, "GIF", save_all=True, append_images=[_PALETTE.rotate(180)]),
    "webp": encoded(photograph(), "WEBP", quality=80),
    "webp lossless": encoded(photograph(), "WEBP", lossless=True),
    "webp rgba": encoded(_transparent("RGBA"), "WEBP", lossless=True),
    "webp animated": encoded(photograph(), "WEBP", lossless=True, save_all=True, append_images=[_PALETTE]),
    "webp animated lossy": encoded(photograph(), "WEBP", save_all=True, append_images=[photograph().rotate(90)]),
    "webp animated rgba": encoded(_transparent("RGBA"), "WEBP", lossless=True, save_all=True, append_images=[_PALETTE]),
    "jpeg": encoded(photograph(), "JPEG", quality=95, subsampling=0),
    "jpeg subsampled": encoded(photograph(), "JPEG", quality=75, subsampling=2),
    "jpeg progressive": encoded(photograph(), "JPEG", progressive=True),
    "jpeg grey": encoded(photograph().convert("L"), "JPEG"),
    "jpeg cmyk": encoded(photograph().convert("CMYK"), "JPEG"),
}
# What only Pillow reads.
OTHERS = {
    "tiff": encoded(photograph(), "TIFF"),
    "tiff cmyk": encoded(photograph().convert("CMYK"), "TIFF"),
    "tiff 16 bits": encoded(Image.fromarray(_deep()), "TIFF"),
    "tiff 32 bits": encoded(Image.fromarray(_deep().astype(np.int32)), "TIFF"),
    "tiff float": encoded(Image.fromarray((_deep() / 65535).astype(np.float32)), "TIFF"),
    "bmp 1 bit": encoded(photograph().convert("1"), "BMP"),
    "ppm": encoded(photograph(), "PPM"),
}


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan, of a few bytes, comes `count` times more; each goes over all pixels."""
    file = encoded(photograph().convert("L"), "JPEG", progressive=True)
    start, end = file.rindex(b"\xff\xda"), len(file) - 2
    return file[:end] + count * file[start:end] + file[end:]
