"""Result of a search for the CRF's parameters: a table, a heat map, and the best."""

import csv
import dataclasses
import io
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplab_tf.crf.dense_crf import DenseCRF
from deeplab_tf.files import write_text, written_aside


def searched(crf: DenseCRF) -> tuple[float, float, float]:
    """The parameters that are searched: w1, sigma_alpha, sigma_beta."""
    return crf.bilateral_weight, crf.bilateral_spatial_std, crf.bilateral_color_std


@dataclasses.dataclass(frozen=True)
class Trial:
    """The mean IoU of one set of parameters."""

    stage: str  # "coarse", "beyond1" to "beyond10", or "fine1" to "fine3"
    crf: DenseCRF
    mean_iou: float


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """The outcome of a search.

    Attributes:
        trials: every set of parameters tried, in the order of the grid.
        without_crf: the mean IoU of the probabilities as they came.
    """

    trials: tuple[Trial, ...]
    without_crf: float

    @property
    def best(self) -> Trial:
        """The trial of the highest mean IoU; the first of equals."""
        return max(self.trials, key=lambda trial: trial.mean_iou)

    def write(self, folder: str | os.PathLike, searched_for: Mapping[str, Any] | None = None) -> None:
        """Writes crf.json (the best parameters), crf_search.csv (all trials) and crf_search.png (a heat map).

        Args:
            folder: for the files.
            searched_for: what the parameters were searched for, in terms of JSON; crf.json says so.
        """
        folder = pathlib.Path(folder)
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["stage", "bilateral_weight", "bilateral_spatial_std", "bilateral_color_std", "mean_iou"])
        for trial in self.trials:
            writer.writerow([trial.stage, *searched(trial.crf), f"{trial.mean_iou:.6f}"])
        write_text(folder / "crf_search.csv", table.getvalue())
        with written_aside(folder / "crf_search.png") as path:
            self._heat_map().savefig(path, dpi=110)
        self.best.crf.save(folder / "crf.json", searched_for)

    def _heat_map(self):
        from matplotlib.figure import Figure

        values = {searched(trial.crf): 100 * trial.mean_iou for trial in self.trials if trial.stage == "coarse"}
        weights, spatial_stds, color_stds = (sorted(set(axis)) for axis in zip(*values, strict=True))
        figure = Figure(figsize=(2 + 2.6 * len(weights), 1.8 + 0.45 * len(spatial_stds)), layout="constrained")
        axes = figure.subplots(1, len(weights), squeeze=False)[0]
        for ax, weight in zip(axes, weights, strict=True):
            grid = np.array([[values[weight, spatial, color] for color in color_stds] for spatial in spatial_stds])
            shown = ax.imshow(grid, cmap="viridis", vmin=min(values.values()), vmax=max(values.values()), aspect="auto")
            ax.set_xticks(range(len(color_stds)), [f"{std:g}" for std in color_stds])
            ax.set_yticks(range(len(spatial_stds)), [f"{std:g}" for std in spatial_stds])
            ax.set_title(f"$w_1$ = {weight:g}")
            ax.set_xlabel(r"$\sigma_\beta$, colour")
            for (row, column), value in np.ndenumerate(grid):
                color = "black" if shown.norm(value) > 0.6 else "white"
                ax.text(column, row, f"{value:.1f}", ha="center", va="center", color=color, fontsize=7)
        axes[0].set_ylabel(r"$\sigma_\alpha$, pixels")
        figure.colorbar(shown, ax=axes, label="mean IoU, %")
        figure.suptitle(f"without CRF {100 * self.without_crf:.2f}, best {100 * self.best.mean_iou:.2f}")
        return figure
