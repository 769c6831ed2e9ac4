"""Plots of an evaluation as matplotlib figures."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


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


def plain_texts(names: Sequence[str]) -> list[str]:
    """The names escaped for matplotlib: dollars start no formulas, what is not printable becomes "?"."""
    printable = ("".join(letter if letter.isprintable() else "?" for letter in name) for name in names)
    return [name.replace("$", r"\$") for name in printable]


def rendered(figure: Figure) -> np.ndarray:
    """The figure as pixels, uint8 [H, W, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
