"""Draws what the CRF does: its two kernels, mean field on a photograph (Fig. 5), labels before and after it (Fig. 6).

python docs/crf_pictures.py --model_dir=runs/camvid --images=CamVid/val --labels=CamVid/valannot --names=0016E5_08045 \
    --class_name=car --output=docs/crf
"""

import pathlib

import numpy as np
import PIL.Image
from absl import app, flags
from matplotlib.figure import Figure

from deeplab_tf import Segmenter
from deeplab_tf.crf import DenseCRF
from deeplab_tf.pictures import overlay

_MODEL_DIR = flags.DEFINE_string("model_dir", None, "A run.", required=True)
_SEARCHED = flags.DEFINE_bool("searched", False, "Take the CRF of the run's crf.json, not the default one.")
_IMAGES = flags.DEFINE_string("images", None, "Folder of photographs.", required=True)
_LABELS = flags.DEFINE_string("labels", None, "Folder of their masks, PNG.", required=True)
_NAMES = flags.DEFINE_list(
    "names", None, "Of photographs, without suffix; mean field is shown on the first.", required=True
)
_CLASS_NAME = flags.DEFINE_string("class_name", None, "The class whose score and belief are shown.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "What the names of the pictures begin with.", required=True)

# Where the kernels are drawn, on this one: (row, column) on the sky, a car, the road.
FRAME = "0016E5_08045"
PIXELS = ((60, 205), (228, 412), (300, 330))


def kernels(image: np.ndarray, crf: DenseCRF) -> Figure:
    """The first kernel between every pixel and three of them, the second between every pixel and one."""
    rows, columns = np.indices(image.shape[:2])
    figure = Figure(figsize=(16, 2.9), layout="constrained")
    axes = figure.subplots(1, 2 + len(PIXELS))
    axes[0].imshow(image)
    axes[0].set_title("photograph, three of its pixels")

    def show(ax, kernel, title, row, column):
        gray = np.repeat(image.mean(-1, keepdims=True) / 255, 3, -1)
        kernel = kernel[..., None]
        ax.imshow(0.45 * gray * (1 - kernel) + np.array([1.0, 0.75, 0.1]) * kernel)
        ax.plot(column, row, "o", ms=9, mfc="none", mec="red", mew=1.5)
        ax.set_title(title)

    for ax, (row, column) in zip(axes[1:-1], PIXELS, strict=True):
        axes[0].plot(column, row, "o", ms=9, mfc="none", mec="red", mew=2)
        distance = (rows - row) ** 2 + (columns - column) ** 2
        color = ((image.astype(float) - image[row, column]) ** 2).sum(-1)
        near = np.exp(-distance / 2 / crf.bilateral_spatial_std**2 - color / 2 / crf.bilateral_color_std**2)
        show(
            ax,
            near,
            rf"$k_1$: {crf.bilateral_spatial_std:g} pixels, {crf.bilateral_color_std:g} RGB units",
            row,
            column,
        )
    show(axes[-1], np.exp(-distance / 2 / crf.spatial_std**2), rf"$k_2$: {crf.spatial_std:g} pixels", row, column)
    for ax in axes:
        ax.set_xticks([])
        ax.set_yticks([])
    return figure


def mean_field(image: np.ndarray, label: np.ndarray, segmenter: Segmenter, crf: DenseCRF, name: str) -> Figure:
    """The labels, and the score and belief maps of one class, iteration by iteration (Fig. 5 of the paper)."""
    palette = segmenter.info.palette
    which = segmenter.info.class_names.index(name)
    probabilities = segmenter.without_crf(image).probabilities
    steps = {"network": (np.log(np.maximum(probabilities, 1e-5)), probabilities)}
    for number, step in enumerate(crf.trace(image, probabilities), start=1):
        if number in (1, 2, crf.iterations):
            steps[f"iteration {number}"] = step
    figure = Figure(figsize=(16, 7.4), layout="constrained")
    axes = figure.subplots(3, 1 + len(steps))
    axes[0, 0].imshow(image)
    axes[0, 0].set_title("photograph")
    axes[1, 0].imshow(overlay(image, label, palette))
    axes[1, 0].set_title("truth")
    axes[2, 0].axis("off")
    for axis, (title, (scores, beliefs)) in zip(axes.T[1:], steps.items(), strict=True):
        axis[0].imshow(overlay(image, beliefs.argmax(-1).astype(np.uint8), palette))
        axis[0].set_title(title)
        axis[1].imshow(scores[..., which], cmap="coolwarm", vmin=-10, vmax=10)
        axis[1].set_title(f"score of '{name}'")
        axis[2].imshow(beliefs[..., which], cmap="gray", vmin=0, vmax=1)
        axis[2].set_title(f"belief in '{name}'")
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    return figure


def before_and_after(pairs, segmenter: Segmenter, crf: DenseCRF) -> Figure:
    """Photographs, their truth, the network's labels and the CRF's, one below the other (Fig. 6)."""
    palette = segmenter.info.palette
    figure = Figure(figsize=(3 * len(pairs), 9.4), layout="constrained")
    rows = figure.subplots(4, len(pairs), squeeze=False)
    for column, (image, label) in zip(rows.T, pairs, strict=True):
        probabilities = segmenter.without_crf(image).probabilities
        labels = (label, probabilities.argmax(-1).astype(np.uint8), crf(image, probabilities, return_labels=True))
        for ax, picture in zip(column, (image, *(overlay(image, mask, palette) for mask in labels)), strict=True):
            ax.imshow(picture)
            ax.set_xticks([])
            ax.set_yticks([])
    for ax, title in zip(rows[:, 0], ("photograph", "truth", "network", "with CRF"), strict=True):
        ax.set_ylabel(title)
    return figure


def main(_) -> None:
    """Draws."""
    pairs = []
    for name in _NAMES.value:
        (path,) = pathlib.Path(_IMAGES.value).glob(f"{name}.*")
        label = np.asarray(PIL.Image.open(pathlib.Path(_LABELS.value) / f"{name}.png"))
        pairs.append((np.asarray(PIL.Image.open(path).convert("RGB")), label))
    segmenter = Segmenter.load(_MODEL_DIR.value, crf=_SEARCHED.value)
    crf = segmenter.crf or DenseCRF()
    figures = {
        "mean_field": mean_field(*pairs[0], segmenter, crf, _CLASS_NAME.value),
        "pictures": before_and_after(pairs, segmenter, crf),
    }
    if _NAMES.value[0] == FRAME:
        figures["kernels"] = kernels(pairs[0][0], crf)
    for name, figure in figures.items():
        figure.savefig(f"{_OUTPUT.value}_{name}.jpg", dpi=90, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    app.run(main)
