"""Charts of an evaluation: for a report, each an SVG image, and for TensorBoard."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from deeplab_tf.counts import CRF, NETWORK, STAGES
from deeplab_tf.evaluation.evaluating import Evaluation
from deeplab_tf.pictures import data_uri

_BEFORE, _AFTER = "#8aa4c8", "#d9703b"


def class_bars(evaluation: Evaluation) -> str:
    """Bars of the IoU of each class, before and after the CRF."""
    stages = [
        (f"{name} {100 * matrix.mean_iou:.1f}", matrix.iou, color)
        for (name, matrix), color in zip(evaluation.stages.items(), (_BEFORE, _AFTER), strict=False)
    ]
    count = len(evaluation.class_names)
    figure = Figure(figsize=(5.5, 0.9 + 0.22 * count * max(1.2, len(stages) * 0.8)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(stages)
    for i, (name, values, color) in enumerate(stages):
        places = np.arange(count) + (i - (len(stages) - 1) / 2) * height
        axes.barh(places, 100 * np.nan_to_num(values), height, color=color, label=name)
    axes.set_yticks(np.arange(count), plain_texts(evaluation.class_names), fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="IoU, %")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(title="mean IoU", fontsize=8, title_fontsize=8)
    return _svg(figure)


def confusion_matrix(evaluation: Evaluation) -> str:
    """For each true class the share of its pixels that got each label, after the last step."""
    return _svg(confusion_figure(evaluation.final.counts, evaluation.class_names))


def confusion_figure(counts: np.ndarray, class_names: Sequence[str]) -> Figure:
    """A confusion matrix as an image: each row, a true class, adds up to 100 %.

    Args:
        counts: [C, C], pixels by true class (rows) and predicted class (columns).
        class_names: C names.
    """
    size = 2.0 + 0.32 * len(class_names)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot()
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    names = plain_texts(class_names)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for row, column in np.argwhere(shares >= 1):
        color = "white" if shares[row, column] > 50 else "black"
        axes.text(column, row, f"{shares[row, column]:.0f}", ha="center", va="center", fontsize=7, color=color)
    axes.set_title("share of the pixels of each true class, %", fontsize=9)
    return figure


def trimap_curve(evaluation: Evaluation) -> str:
    """Mean IoU against the width of the band around boundaries, before and after the CRF."""
    return _svg(trimap_figure({"": evaluation.as_json()["trimap"]}))


def trimap_figure(runs: Mapping[str, Mapping[str, Sequence]]) -> Figure:
    """Curves of the quality near boundaries in one chart, as in Fig. 10b.

    Args:
        runs: by the name of a run, the "trimap" of its `Evaluation.as_json`: "widths" in pixels, and the mean IoU in
            the bands of these widths, in [0, 1], after "network" and after "crf". A run has one colour, the network
            alone a dashed line; a single run has a colour for each stage.
    """
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for i, (run, curves) in enumerate(runs.items()):
        for stage, own_color in ((NETWORK, _BEFORE), (CRF, _AFTER)):
            if stage in curves:
                axes.plot(
                    curves["widths"],
                    100 * np.array(curves[stage], float),
                    "o--" if len(runs) > 1 and stage == NETWORK else "o-",
                    color=f"C{i}" if len(runs) > 1 else own_color,
                    markersize=4,
                    label=" ".join(plain_texts([run, STAGES[stage]])).strip(),
                )
    axes.set(xlabel="width of the band around boundaries, pixels", ylabel="mean IoU, %", xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def crf_gain(evaluation: Evaluation) -> str:
    """Bars of what the CRF adds to the IoU of each class, in percentage points."""
    gain = 100 * (evaluation.crf.iou - evaluation.network.iou)
    order = np.argsort(-np.nan_to_num(gain))
    figure = Figure(figsize=(5.5, 0.9 + 0.24 * len(gain)), layout="constrained")
    axes = figure.subplots()
    colors = [_AFTER if gain[i] >= 0 else _BEFORE for i in order]
    axes.barh(np.arange(len(gain)), np.nan_to_num(gain[order]), color=colors)
    axes.set_yticks(np.arange(len(gain)), plain_texts([evaluation.class_names[i] for i in order]), fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(xlabel="IoU with CRF minus IoU without, percentage points")
    axes.grid(axis="x", alpha=0.3)
    return _svg(figure)


def plain_texts(names: Sequence[str]) -> list[str]:
    """The names escaped for matplotlib: dollars start no formulas, what is not printable becomes "?"."""
    printable = ("".join(letter if letter.isprintable() else "?" for letter in name) for name in names)
    return [name.replace("$", r"\$") for name in printable]


def render(figure: Figure) -> np.ndarray:
    """The figure as pixels, uint8 [H, W, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _svg(figure: Figure) -> str:
    """The figure as a data URI."""
    file = io.BytesIO()
    figure.savefig(file, format="svg")
    return data_uri(file.getvalue(), "image/svg+xml")
