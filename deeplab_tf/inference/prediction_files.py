"""The files that `predict` writes for an image, in each format. The CRF's results lie beside the network's."""

import json
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from deeplab_tf import files, pictures
from deeplab_tf.classes import DatasetInfo
from deeplab_tf.counts import NETWORK, STAGES
from deeplab_tf.errors import UserError
from deeplab_tf.inference import coco, polygons
from deeplab_tf.inference.segmenter import Segmentation

# Formats by name: the suffix of their files, which lie in a folder of that name; `coco` is one file for all images.
SUFFIXES = {"masks": ".png", "overlays": ".png", "probabilities": ".npz", "polygons": ".geojson", "coco": ""}


def folder(form: str, stage: str) -> str:
    """The folder of a format, also the stem of a COCO file: the CRF's results lie in `masks_crf` and so on."""
    return form if stage == NETWORK else f"{form}_{stage}"


def check_formats(formats: Collection[str]) -> None:
    """Raises UserError where a format is unknown, or none is given."""
    unknown = [name for name in formats if name not in SUFFIXES]
    if unknown or not formats:
        raise UserError(
            f"--format: found {','.join(unknown) or 'none'}, expected one or more of {', '.join(SUFFIXES)}, "
            "separated by commas"
        )


def paths(name: str, formats: Collection[str], stages: Collection[str]) -> dict[tuple[str, str], pathlib.Path]:
    """Paths of the predictions of an image in the output folder, by (format, stage).

    Args:
        name: of the image among the predictions; may have folders.
        formats: keys of `SUFFIXES`. An overlay shows all stages, `coco` has no file for an image.
        stages: NETWORK, and CRF where there is one.
    """
    return {
        (form, stage): pathlib.Path(folder(form, stage)) / f"{name}{SUFFIXES[form]}"
        for form in formats
        for stage in (stages if form != "overlays" else [NETWORK])
        if form != "coco"
    }


def write(
    output_dir: pathlib.Path,
    name: str,
    image: np.ndarray,
    results: Mapping[str, Segmentation],
    formats: Collection[str],
    info: DatasetInfo,
) -> dict[str, list[dict[str, Any]]]:
    """Writes the predictions of one image.

    masks: indexed PNGs, see `pictures.save_mask`. overlays: the image and the coloured results side by side with a
    legend. probabilities: `.npz` with "probabilities", float16 [H, W, C]; they differ from the network's by less than
    0.0003, and `tools/refine.py` reads them. polygons: GeoJSON, see `polygons.geojson`.

    Args:
        output_dir: see `paths`.
        name: of the image among the predictions.
        image: uint8 [H, W, 3].
        results: by stage, NETWORK and CRF.
        formats: keys of `SUFFIXES`.
        info: the classes.

    Returns:
        where `coco` is one of the formats, `coco.annotations` of each stage, by `folder("coco", stage)`.
    """
    for (form, stage), path in paths(name, formats, results).items():
        path, result = output_dir / path, results[stage]
        if form == "masks":
            pictures.save_mask(path, result.labels, info.palette)
        elif form == "overlays":
            pictures.save_picture(path, _sheet(image, results, info))
        elif form == "probabilities":
            with files.written_aside(path) as aside:
                np.savez(aside, probabilities=result.probabilities.astype(np.float16))
        elif form == "polygons":
            files.write_text(path, json.dumps(polygons.geojson(result.labels, info)) + "\n")
    if "coco" not in formats:
        return {}
    return {
        folder("coco", stage): coco.annotations(result.labels, info.num_classes) for stage, result in results.items()
    }


def _sheet(image: np.ndarray, results: Mapping[str, Segmentation], info: DatasetInfo) -> np.ndarray:
    masks = {STAGES[stage]: result.labels for stage, result in results.items()}
    columns = {title: pictures.overlay(image, mask, info.palette) for title, mask in masks.items()}
    return pictures.panel({"image": image} | columns, info.class_names, info.palette, list(masks.values()))
