"""A web page on this machine: drop a photograph, see its segmentation, move the parameters of the CRF.

The network runs once for a photograph. Its probabilities are kept for the browser's page, of the last `PAGES` pages,
so that a slider runs the CRF alone. Everything that a page shows is inside it; nothing leaves this machine.
"""

import contextlib
import dataclasses
import html
import io
import json
import os
import pathlib
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from typing import Self

import numpy as np
from PIL import Image

from deeplab_tf import pictures
from deeplab_tf.classes import DatasetInfo, voc_palette
from deeplab_tf.crf import DenseCRF
from deeplab_tf.errors import UserError
from deeplab_tf.inference.segmenter import Segmentation, Segmenter

# Before Gradio is imported: it reports to its authors by default, and keeps a history in the browser.
os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_RUN_HISTORY="False")
import gradio  # noqa: E402

HOST = "127.0.0.1"
PAGES = 8  # whose photographs are kept
_KEPT_FILES = 600  # seconds that Gradio keeps a file it was sent

# Parameters of the CRF: label, least and most value, step. A slider is longer where the run's own value lies outside.
_SLIDERS = {
    "bilateral_weight": ("bilateral weight w1", 0, 20, 0.25),
    "bilateral_spatial_std": ("bilateral reach σα, px", 1, 200, 1),
    "bilateral_color_std": ("bilateral colours σβ", 1, 40, 0.5),
    "spatial_weight": ("spatial weight w2", 0, 20, 0.25),
    "spatial_std": ("spatial reach σγ, px", 0.5, 20, 0.5),
    "iterations": ("iterations", 0, 20, 1),
}
_CSS = """
.deeplab figure { margin: 0; } .deeplab img { width: 100%; display: block; } .deeplab figcaption { font-weight: 600; }
.deeplab .small { display: grid; grid-template-columns: repeat(3, 1fr); gap: .8rem; margin: .8rem 0; }
.deeplab .legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: .6rem 0; }
.deeplab .swatch { display: inline-block; width: .9em; height: .9em; border: 1px solid #555; margin-right: .4em; }
.deeplab .files a { margin-right: 1.5rem; text-decoration: underline; }
"""
_EMPTY = '<div class="deeplab">Drop a photograph on the left.</div>'


@dataclasses.dataclass(frozen=True, eq=False)
class Photograph:
    """A photograph and the result of the network.

    Attributes:
        name: of its file.
        height: of the file's image, pixels.
        width: likewise.
        image: uint8 [h, w, 3], RGB, at the size that the page works on.
        unrefined: the network's result, of the size of `image`.
    """

    name: str
    height: int
    width: int
    image: np.ndarray
    unrefined: Segmentation

    @classmethod
    def segmented(cls, path: str | os.PathLike, segmenter: Segmenter, longer_side: int) -> Self:
        """Reads a photograph, scales it down where its longer side is longer than that, and runs the network on it.

        Raises:
            UserError: it cannot be read.
        """
        name = pathlib.Path(path).name
        image = pictures.read_photograph(path, name)
        height, width = image.shape[:2]
        scale = longer_side / max(height, width)
        if scale < 1:
            size = max(1, round(scale * width)), max(1, round(scale * height))
            image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        unrefined = Segmentation(segmenter.without_crf(image).probabilities)  # the probabilities and nothing else
        return cls(name, height, width, image, unrefined)

    def refined(self, crf: DenseCRF | None) -> Segmentation:
        """The network's result, refined by a CRF; None: as it is."""
        return Segmentation(crf(self.image, self.unrefined.probabilities)) if crf else self.unrefined


def render(photograph: Photograph, info: DatasetInfo, crf: DenseCRF | None) -> str:
    """The result as HTML: overlay, photograph, labels and confidence, the classes that occur, files to download.

    The mask is an indexed PNG of the size of the photograph's file.

    Args:
        photograph: segmented.
        info: names and colours of the classes.
        crf: refines the result first; None: it is shown as the network gives it.
    """
    result = photograph.refined(crf)
    height, width = photograph.image.shape[:2]
    labels, confidence = result.labels, result.probabilities.max(axis=-1)
    small = {
        "Photograph": photograph.image,
        "Labels": pictures.full_palette(info.palette)[labels],
        "Confidence": np.rint(255 * confidence).astype(np.uint8),
    }
    share = np.bincount(labels.ravel(), minlength=info.num_classes) / labels.size
    legend = "".join(
        f'<span><span class="swatch" style="background: rgb({",".join(map(str, info.palette[label]))})"></span>'
        f"{html.escape(info.class_names[label])} {_percent(share[label])}</span>"
        for label in np.argsort(-share, kind="stable")[: np.count_nonzero(share)]
    )
    size = f"{photograph.width} x {photograph.height}"
    if (photograph.height, photograph.width) != (height, width):
        size += f", worked on at {width} x {height}; predict.py works at full size"
    full_size = Image.fromarray(labels).resize((photograph.width, photograph.height), Image.Resampling.NEAREST)
    mask = pictures.encode_mask(np.asarray(full_size), info.palette)
    links = _link("Mask (PNG)", f"{pathlib.Path(photograph.name).stem}.png", mask, "image/png")
    if crf:
        links += _link(
            "crf.json of these sliders", "crf.json", json.dumps(crf.parameters, indent=2).encode(), "text/json"
        )
    return (
        f'<div class="deeplab">{_figure("Overlay", pictures.overlay(photograph.image, labels, info.palette))}'
        f'<div class="legend">{legend}</div><div class="files">{links}</div>'
        f'<div class="small">{"".join(_figure(title, picture) for title, picture in small.items())}</div>'
        f"<div>{html.escape(photograph.name)}: {size}</div></div>"
    )


def _figure(title: str, picture: np.ndarray) -> str:
    """A picture, uint8 [h, w, 3] or [h, w], under its title."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    address = pictures.data_uri(file.getvalue(), "image/png")
    return f'<figure><figcaption>{title}</figcaption><img src="{address}" alt="{title}" decoding="sync"></figure>'


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%" if share >= 0.0005 else "&lt;0.1%"


def _link(text: str, name: str, content: bytes, media_type: str) -> str:
    return f'<a download="{html.escape(name)}" href="{pictures.data_uri(content, media_type)}">{text}</a>'


def build(segmenter: Segmenter, longer_side: int = 640) -> gradio.Blocks:
    """The page.

    Args:
        segmenter: its CRF, or else the default one, is where the sliders start. A parameter that is no single number
            (anisotropic widths) has no slider and stays.
        longer_side: pixels; larger photographs are worked on at this size.
    """
    start = segmenter.crf or DenseCRF()
    names = segmenter.class_names
    info = segmenter.info or DatasetInfo("", names, voc_palette(len(names)))
    movable = {name: value for name in _SLIDERS if not isinstance(value := getattr(start, name), tuple)}

    def segment(path: str, last: Photograph | None) -> tuple[Photograph | None, None]:
        try:
            return Photograph.segmented(path, segmenter, longer_side), None
        except UserError as error:
            gradio.Warning(html.escape(str(error)))
            return last, None

    def draw(photograph: Photograph | None, refines: bool, *values: float) -> str:
        if photograph is None:
            return _EMPTY
        crf = dataclasses.replace(start, **dict(zip(movable, values, strict=True)))
        return render(photograph, info, crf if refines else None)

    with gradio.Blocks(
        title=segmenter.model_dir.name if segmenter.model_dir else "deeplab_tf",
        analytics_enabled=False,
        delete_cache=(_KEPT_FILES, _KEPT_FILES),
    ) as blocks:
        kept = gradio.State()
        with gradio.Row():
            with gradio.Column(scale=1, min_width=300):
                drop = gradio.File(label="Photograph", file_types=["image"], height=140)
                refines = gradio.Checkbox(True, label="Refine with the dense CRF")
                sliders = [_slider(name, value) for name, value in movable.items()]
                reset = gradio.Button("Back to the run's values", size="sm")
            with gradio.Column(scale=3):
                shown = gradio.HTML(_EMPTY)
        drawing = {"fn": draw, "inputs": [kept, refines, *sliders], "outputs": shown}
        drop.upload(segment, [drop, kept], [kept, drop]).success(**drawing)
        reset.click(lambda: list(movable.values()), None, sliders).success(**drawing)
        # While one drawing is under way, of the moves since only the last is drawn.
        moves = [control.input for control in (refines, *sliders)]
        gradio.on(moves, **drawing, trigger_mode="always_last", show_progress="hidden")
    return blocks


def _slider(name: str, value: float) -> gradio.Slider:
    label, least, most, step = _SLIDERS[name]
    return gradio.Slider(min(least, value), max(most, value), value, step=step, label=label, elem_id=name)


def check_port(port: int) -> None:
    """Refuses a port of this machine that cannot be listened on.

    Raises:
        UserError: it is in use, or only the system may use it.
    """
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, port))
        except OSError as error:
            raise UserError(f"--port={port}: cannot be used ({error.strerror}); give another, 1024 to 65535") from error


@contextlib.contextmanager
def served(segmenter: Segmenter, port: int = 7860, longer_side: int = 640) -> Iterator[str]:
    """Within the block the page can be opened; yields its address.

    Args:
        segmenter: as for `build`.
        port: of this machine.
        longer_side: as for `build`.

    Raises:
        UserError: the port cannot be used.
    """
    check_port(port)
    image = np.zeros((33, 33, 3), np.uint8)  # what is compiled at a first call is compiled now
    (segmenter.crf or DenseCRF())(image, segmenter.without_crf(image).probabilities)
    for name in ("no_proxy", "NO_PROXY"):  # Gradio calls its own server.
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), HOST)))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        blocks = build(segmenter, longer_side)
        theme = gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
        _, address, _ = blocks.launch(
            server_name=HOST,
            server_port=port,
            theme=theme,
            css=_CSS,
            quiet=True,
            share=False,
            inline=False,
            ssr_mode=False,
            footer_links=[],
            prevent_thread_lock=True,
            state_session_capacity=PAGES,
        )
        try:
            yield address
        finally:
            blocks.close(verbose=False)


def serve(segmenter: Segmenter, port: int = 7860, longer_side: int = 640) -> None:
    """Serves the page until Ctrl-C or SIGTERM, see `served`."""
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell's background job starts with it ignored
        signal.signal(number, signal.default_int_handler)
    with served(segmenter, port, longer_side) as address, contextlib.suppress(KeyboardInterrupt):
        print(f"page       {address} (Ctrl-C ends it)", flush=True)
        threading.Event().wait()
