"""A report that people read: one HTML page with everything inside (Fig. 6, 10, 11-14)."""

import io
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from deeplab_tf import files, pictures
from deeplab_tf.counts import CRF, NETWORK, STAGES, mean_iou
from deeplab_tf.evaluation import charts
from deeplab_tf.evaluation.evaluating import Evaluation
from deeplab_tf.evaluation.tables import all_means
from deeplab_tf.inference.segmenter import Segmenter

REPORT_FILE = "index.html"

# Width to which larger pictures are reduced, pixels.
_PICTURE_WIDTH = 480


def write_report(
    report_dir: str | pathlib.Path,
    evaluation: Evaluation,
    segmenter: Segmenter,
    examples: Iterable[Mapping[str, Any]],
    *,
    title: str,
    settings: Mapping[str, Any] | None = None,
    pictures_each: int = 4,
) -> pathlib.Path:
    """Writes `index.html`: summary, charts, and the best, median and worst images.

    The page refers to nothing outside itself. Its tables sort by a click on a column's head.

    Args:
        report_dir: folder for the page.
        evaluation: what to report, with trimap curves.
        segmenter: the one that was evaluated; segments the shown images again.
        examples: the ones that were evaluated, in the same order, as for `evaluate`.
        title: heads the page.
        settings: further entries of the summary, by name, beside the network and `evaluation.made_with`.
        pictures_each: how many of the best, of the median and of the worst images are shown.

    Returns:
        the path of the page.
    """
    chosen = choose_images(mean_iou(evaluation.image_counts.final), pictures_each)
    shown = {
        "IoU by class": charts.class_bars(evaluation),
        "Confusion matrix, %": charts.confusion_matrix(evaluation),
    }
    if evaluation.network_trimap is not None:
        shown["Trimap curve: quality near boundaries"] = charts.trimap_curve(evaluation)
    if evaluation.crf is not None:
        shown["What the CRF adds"] = charts.crf_gain(evaluation)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deeplab_tf.evaluation", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: "" if np.isnan(value) else f"{100 * value:.2f}"
    page = environment.get_template("report.html").render(
        title=title,
        settings=_summary(evaluation, segmenter) | dict(settings or {}),
        stages=evaluation.stages,
        columns=evaluation.columns(),
        means=all_means(evaluation.columns(), evaluation.class_names, evaluation.subsets),
        summaries={name: matrix.summary() for name, matrix in evaluation.stages.items()},
        classes=list(zip(evaluation.class_names, segmenter.info.palette.tolist(), strict=True)),
        truth_share=evaluation.network.counts.sum(axis=1) / max(1, evaluation.network.counts.sum()),
        charts=shown,
        rows=_image_rows(evaluation, segmenter, examples, chosen),
    )
    path = pathlib.Path(report_dir).expanduser() / REPORT_FILE
    files.write_text(path, page.encode(errors="replace").decode())  # a lone surrogate, as of a name that is not UTF-8
    return path


def _summary(evaluation: Evaluation, segmenter: Segmenter) -> dict[str, str]:
    """The way in which an evaluation was made, by name; options that are off are left out."""
    model = segmenter.model
    network = f"{model.backbone}, {model.head}, output stride {model.output_stride}"
    made_with = {name: _as_text(value) for name, value in evaluation.made_with.items() if value not in (None, False)}
    measured = {"images": str(evaluation.images), "seconds": f"{evaluation.seconds:.1f}"}
    measured |= evaluation.intervals_as_text()
    return {"network": network} | {name.replace("_", " "): text for name, text in made_with.items()} | measured


def _as_text(value: Any) -> str:
    """A value of `Evaluation.made_with` on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_as_text(entry)}" for name, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_as_text, value))
    return f"{value:g}" if isinstance(value, float) else "yes" if value is True else str(value)


def choose_images(scores: np.ndarray, each: int) -> dict[int, str]:
    """The best, the median and the worst images.

    Args:
        scores: mean IoU of each image, float64 [N]; NaN where an image has no labelled pixel, which is not shown.
        each: how many of each kind; fewer where there are not so many images.

    Returns:
        index -> "worst", "median" or "best", every image once, in ascending order of score.
    """
    order = np.argsort(scores, kind="stable")[: np.count_nonzero(~np.isnan(scores))]
    each = min(each, max(1, len(order) // 3))
    middle = max(0, (len(order) - each) // 2)
    chosen = {}
    for kind, part in (("best", order[-each:]), ("worst", order[:each]), ("median", order[middle : middle + each])):
        for index in part:
            chosen.setdefault(int(index), kind)
    return {int(index): chosen[int(index)] for index in order if int(index) in chosen}


def _image_rows(
    evaluation: Evaluation, segmenter: Segmenter, examples: Iterable[Mapping[str, Any]], chosen: Mapping[int, str]
) -> list[dict[str, Any]]:
    """The pictures of each chosen image, in the order of `chosen`."""
    scores = {STAGES[NETWORK]: mean_iou(evaluation.image_counts.network)}
    if evaluation.crf is not None:
        scores[STAGES[CRF]] = mean_iou(evaluation.image_counts.crf)
    palette, rows, last = segmenter.info.palette, {}, max(chosen, default=-1)
    for index, example in enumerate(examples):
        if index in chosen:
            image, truth = np.asarray(example["image"]), np.asarray(example["label"])
            unrefined = segmenter.without_crf(image)
            masks = {"truth": truth, STAGES[NETWORK]: unrefined.labels}
            if evaluation.crf is not None:
                masks[STAGES[CRF]] = segmenter.refined(image, unrefined).labels
            views = {"input": image} | {name: pictures.overlay(image, mask, palette) for name, mask in masks.items()}
            rows[index] = {
                "filename": evaluation.image_counts.filenames[index],
                "kind": chosen[index],
                "scores": {name: values[index] for name, values in scores.items()},
                "pictures": {name: _jpeg(view) for name, view in views.items()},
            }
        if index >= last:
            break
    return [rows[index] for index in chosen]


def _jpeg(picture: np.ndarray) -> str:
    """uint8 [H, W, 3] as a data URI."""
    image = Image.fromarray(picture)
    if image.width > _PICTURE_WIDTH:
        image = image.resize((_PICTURE_WIDTH, round(image.height * _PICTURE_WIDTH / image.width)), Image.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return pictures.data_uri(file.getvalue(), "image/jpeg")
