"""Names of the files in the folder of a run (`model_dir`)."""

import pathlib
from typing import NamedTuple

CONFIG_FILE = "config.flags"
CHECKPOINTS = "checkpoints"
BEST = "best"
BEST_FILE = "best.json"
DESCRIPTION_FILE = "segmenter.json"
CRF_FILE = "crf.json"


class EvaluationFiles(NamedTuple):
    """Names of the files of one evaluation: figures (JSON), counts by image (.npz), and a folder of pictures."""

    figures: str
    image_counts: str
    overlays: str


def evaluation_files(name: str = "") -> EvaluationFiles:
    """`evaluation.json`, `evaluation_images.npz` and `overlays`; of the name "best" `evaluation_best.json` etc."""
    suffix = f"_{name}" if name else ""
    return EvaluationFiles(f"evaluation{suffix}.json", f"evaluation{suffix}_images.npz", f"overlays{suffix}")


def evaluation_name(checkpoint: str = "latest", limit: int | None = None) -> str:
    """The name of an evaluation: "" for the latest checkpoint on all images, else "best", "first7" or "best_first7"."""
    return "_".join(([checkpoint] if checkpoint != "latest" else []) + ([f"first{limit}"] if limit else []))


def image_counts_beside(figures: pathlib.Path) -> pathlib.Path:
    """The counts by image that were written with an `evaluation*.json`."""
    return figures.with_name(f"{figures.stem}_images.npz")
