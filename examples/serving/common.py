"""What the two clients share: reading photographs, the optional CRF, writing masks and overlays, errors."""

import argparse
import base64
import dataclasses
import io
import json
import pathlib
import sys
from collections.abc import Callable

import numpy as np
import tqdm
from PIL import Image, ImageOps

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
SIGNATURE = "serve_bytes"


class ServerError(Exception):
    """The server, or what it serves, is not what the client needs: no further request makes sense."""


class RequestError(Exception):
    """The server refused this image."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the server said of an image: labels uint8 [H, W], or probabilities float32 [H, W, C]; the other is None."""

    labels: np.ndarray | None = None
    probabilities: np.ndarray | None = None


def run(
    description: str, address: str, connect: Callable[[argparse.Namespace], Callable[[bytes, bool], Answer]]
) -> None:
    """A client's command line: sends every photograph, writes what comes back; exit status 1 if something went wrong.

    Args:
        description: for --help.
        address: default of --server.
        connect: from the arguments to a function that asks the server: (encoded image, whether probabilities are wanted
            instead of labels) -> answer. It raises ServerError or RequestError.
    """
    arguments = _parser(description, address).parse_args()
    failed = []
    try:
        paths = _photographs(arguments.input)
        palette = _palette(arguments.classes)
        crf = None if arguments.crf is None else _crf(arguments.crf)
        ask = connect(arguments)
        for path in tqdm.tqdm(paths, "segment", unit="image", dynamic_ncols=True, leave=False):
            try:
                encoded, image = _encoded(path)
                answer = ask(encoded, crf is not None)
                served = answer.labels if crf is None else answer.probabilities
                if served.shape[:2] != image.shape[:2]:
                    sizes = "the answer has {} x {} pixels, the image {} x {}"
                    raise RequestError(sizes.format(*served.shape[:2], *image.shape[:2]))
                labels = served if crf is None else crf(image, served, return_labels=True)
                _write(arguments.output_dir, path.stem, image, labels, palette)
            except RequestError as error:
                failed.append(f"{path}: {error}")
    except ServerError as error:
        sys.exit(f"error: {error}")
    print(f"segmented  {len(paths) - len(failed)} of {len(paths)} images")
    print(f"written    {arguments.output_dir / 'masks'}, {arguments.output_dir / 'overlays'}")
    if failed:
        sys.exit("\n".join(f"error: {line}" for line in failed))


def one_line(message: str) -> str:
    """The first line of a server's message; TensorFlow adds its own stack after that."""
    return (message.strip() or "no reason given").splitlines()[0]


def decoded_mask(png: bytes) -> np.ndarray:
    """The labels of a mask in PNG, uint8 [H, W]."""
    return np.asarray(Image.open(io.BytesIO(png)))


def base64_text(data: bytes) -> str:
    """Bytes as JSON can hold them."""
    return base64.b64encode(data).decode("ascii")


def base64_bytes(text: str) -> bytes:
    """Its inverse."""
    return base64.b64decode(text)


def _parser(description: str, address: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--input", required=True, type=pathlib.Path, help="a photograph, or a folder of them")
    parser.add_argument(
        "--output_dir", default="served", type=pathlib.Path, help="gets masks/ and overlays/ (default: served)"
    )
    parser.add_argument("--server", default=address, help=f"host and port of TF Serving (default: {address})")
    parser.add_argument("--model", default="deeplab", help="name under which the model is served (default: deeplab)")
    parser.add_argument(
        "--classes",
        type=pathlib.Path,
        help="the export's assets.extra/classes.json, for its colours (default: those of PASCAL VOC)",
    )
    parser.add_argument(
        "--crf",
        nargs="?",
        const="",
        metavar="CRF_JSON",
        help="refine here with the dense CRF of the package deeplab_tf, with the parameters of this crf.json or the "
        "paper's; for a model exported with probabilities and without a CRF of its own",
    )
    parser.add_argument("--timeout", default=60.0, type=float, help="seconds to wait for an answer (default: 60)")
    return parser


def _photographs(path: pathlib.Path) -> list[pathlib.Path]:
    if path.is_dir():
        found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES)
    else:
        found = [path] if path.is_file() else []
    if not found:
        raise ServerError(f"--input={path}: found no image there, expected one or a folder of them")
    return found


def _encoded(path: pathlib.Path) -> tuple[bytes, np.ndarray]:
    """What to send of a photograph, and its pixels, upright, uint8 [H, W, 3].

    The file itself where the server reads it the same way; else (turned by its EXIF orientation, or of a rarer format)
    a PNG of the pixels. What Pillow cannot read is sent as it is: it is the server that judges.
    """
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as picture:
            plain = picture.format in ("JPEG", "PNG") and picture.mode in ("RGB", "L")
            plain = plain and picture.getexif().get(0x0112, 1) == 1
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return data, np.zeros((0, 0, 3), np.uint8)
    if not plain:
        buffer = io.BytesIO()
        upright.save(buffer, "PNG")
        data = buffer.getvalue()
    return data, np.asarray(upright)


def _palette(classes: pathlib.Path | None) -> np.ndarray:
    """256 colours, uint8 [256, 3]: VOC's, where the bits of the label are spread over red, green and blue."""
    labels = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        palette |= (((labels[:, np.newaxis] >> (3 * bit + np.arange(3))) & 1) << (7 - bit)).astype(np.uint8)
    if classes is not None:
        try:
            colors = np.array(json.loads(classes.read_text(encoding="utf-8"))["palette"], np.uint8)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ServerError(f"--classes={classes}: no classes.json of an export ({error})") from None
        palette[: len(colors)] = colors
    return palette


def _crf(path: str):
    try:
        from deeplab_tf.crf import DenseCRF
        from deeplab_tf.errors import UserError
    except ImportError:
        raise ServerError("--crf needs the package deeplab_tf: pip install -e . in its repository") from None
    try:
        return DenseCRF.load(path) if path else DenseCRF()
    except UserError as error:
        raise ServerError(f"--crf: {error}") from None


def _write(output_dir: pathlib.Path, stem: str, image: np.ndarray, labels: np.ndarray, palette: np.ndarray) -> None:
    """masks/<stem>.png, with the labels as pixel values, and overlays/<stem>.png."""
    mask = Image.fromarray(labels)
    mask.putpalette(palette.tobytes())
    overlay = Image.blend(Image.fromarray(image), Image.fromarray(palette[labels]), 0.6)
    for folder, picture in (("masks", mask), ("overlays", overlay)):
        (output_dir / folder).mkdir(parents=True, exist_ok=True)
        picture.save(output_dir / folder / f"{stem}.png")
