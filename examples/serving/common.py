"""The part that the two clients share: command line, photographs, the optional CRF, masks and overlays, errors.

Needs the base install of deeplab_tf, which is small: no TensorFlow.
"""

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
from PIL import Image

from deeplab_tf import classes, pictures
from deeplab_tf.crf import DenseCRF
from deeplab_tf.errors import UserError

# Masks alone, as PNGs; whatever the model was exported with, probabilities among it.
MASKS, ALL_OUTPUTS = "serve_png", "serve_bytes"


class ServerError(Exception):
    """The server, or what it serves, is not what the client needs: no further request makes sense."""


class RequestError(Exception):
    """The server refused this image."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """The server's answer for an image: labels uint8 [H, W], or probabilities float32 [H, W, C]; the other is None."""

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
        paths = pictures.find_images(str(arguments.input))
        names = pictures.distinct_names([pathlib.Path(path.name) for path in paths])
        palette = _palette(arguments.classes)
        crf = None if arguments.crf is None else _crf(arguments.crf)
        ask = connect(arguments)
        progress = tqdm.tqdm(paths, "segment", unit="image", dynamic_ncols=True, leave=False)
        for path, name in zip(progress, names, strict=True):
            try:
                encoded, image = _encoded(path)
                answer = ask(encoded, crf is not None)
                served = answer.labels if crf is None else answer.probabilities
                if served.shape[:2] != image.shape[:2]:
                    sizes = "the answer has {} x {} pixels, the image {} x {}"
                    raise RequestError(sizes.format(*served.shape[:2], *image.shape[:2]))
                labels = served if crf is None else crf(image, served, return_labels=True)
                _write(arguments.output_dir, name, image, labels, palette)
            except RequestError as error:
                failed.append(f"{path}: {error}")
    except (ServerError, UserError) as error:
        sys.exit(f"error: {error}")
    print(f"segmented  {len(paths) - len(failed)} of {len(paths)} images")
    print(f"written    {arguments.output_dir / 'masks'}, {arguments.output_dir / 'overlays'}")
    if failed:
        sys.exit("\n".join(f"error: {line}" for line in failed))


def one_line(message: str) -> str:
    """The first line of a server's message; TensorFlow adds its own stack after that."""
    return (message.strip() or "no reason given").splitlines()[0]


def decoded_mask(png: bytes, error: str) -> np.ndarray:
    """The labels of a mask in PNG, uint8 [H, W]; raises RequestError with the server's words where there is none."""
    if error:
        raise RequestError(f"the server refused it: {error}")
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
    parser.add_argument("--input", required=True, help="a photograph, a folder of them, or a glob")
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
        help="refine here with the dense CRF, with the parameters of this crf.json or the "
        "paper's; for a model exported with probabilities and without a CRF of its own",
    )
    parser.add_argument("--timeout", default=60.0, type=float, help="seconds to wait for an answer (default: 60)")
    return parser


def _encoded(path: pathlib.Path) -> tuple[bytes, np.ndarray]:
    """The bytes to send for a photograph, and its pixels, upright, uint8 [H, W, 3].

    The file itself where the server reads it the same way; else (turned by its EXIF orientation, or of a rarer format)
    a PNG of the pixels. What cannot be read here is sent as it is: it is the server that judges.
    """
    data = path.read_bytes()
    try:
        pixels = pictures.read_photograph(data, str(path))
        if pictures.is_portable(pictures.open_image(data, load=False)):
            return data, pixels
    except UserError:
        return data, np.zeros((0, 0, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue(), pixels


def _palette(path: pathlib.Path | None) -> np.ndarray:
    """Colours of the classes, uint8 [C, 3]: of the export, or VOC's."""
    if path is None:
        return classes.voc_palette(256)
    try:
        return classes.DatasetInfo.from_json(json.loads(path.read_text(encoding="utf-8"))).palette
    except (OSError, ValueError) as error:
        raise ServerError(f"--classes={path}: not the classes.json of an export ({error})") from None


def _crf(path: str) -> DenseCRF:
    try:
        return DenseCRF.load(path) if path else DenseCRF()
    except UserError as error:
        raise ServerError(f"--crf: {error}") from None


def _write(output_dir: pathlib.Path, name: str, image: np.ndarray, labels: np.ndarray, palette: np.ndarray) -> None:
    """masks/<name>.png, with the labels as pixel values, and overlays/<name>.png."""
    pictures.save_mask(output_dir / "masks" / f"{name}.png", labels, palette)
    pictures.save_picture(output_dir / "overlays" / f"{name}.png", pictures.overlay(image, labels, palette))
