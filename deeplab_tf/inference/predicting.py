"""Prediction on the user's own photographs: masks, overlays, probabilities, polygons and COCO annotations on disk."""

import contextlib
import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tqdm

from deeplab_tf import beam, files
from deeplab_tf.counts import CRF, NETWORK
from deeplab_tf.errors import UserError
from deeplab_tf.inference import coco, prediction_files
from deeplab_tf.inference.prediction_log import PredictionLog
from deeplab_tf.inference.segmenter import Segmentation, Segmenter
from deeplab_tf.inference.stream import segment_stream
from deeplab_tf.pictures import distinct_names, read_photograph
from deeplab_tf.stopping import StopRequest

# Images that a worker of Apache Beam gets at a time: a part of the record each.
_IMAGES_OF_A_PART = 64


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Result of `predict`.

    Attributes:
        output_dir: see `predict`.
        images: number of images segmented.
        done_before: number of images that an earlier call had done.
        unreadable: one line for each file that could not be read.
        seconds: that it took.
        stopped: whether Ctrl-C or SIGTERM ended it early.
    """

    output_dir: pathlib.Path
    images: int
    done_before: int
    unreadable: list[str]
    seconds: float
    stopped: bool


def predict(
    segmenter: Segmenter,
    inputs: Sequence[pathlib.Path],
    output_dir: str | pathlib.Path,
    formats: Collection[str] = ("masks", "overlays"),
    *,
    beam_pipeline_options: str | None = None,
) -> Predictions:
    """Segments photographs and writes what is asked for of each; goes on where an earlier call was stopped.

    In the output folder each format has a folder of its own, `masks/` and so on, with a file for each image, named as
    the image and in folders like its own; COCO's annotations are one file, `coco.json`, written when all images are
    done. What the CRF makes of it lies beside that, in `masks_crf/`, `coco_crf.json` and so on; the overlays show both.
    `predictions.jsonl` lists what is done: such images are left out next time, unless they, the segmenter or its CRF
    have changed since. SIGTERM or Ctrl-C ends it after the images under way; a second Ctrl-C at once.

    Args:
        segmenter: with `info`.
        inputs: image files; two of the same stem are told apart by their suffix.
        output_dir: gets the predictions.
        formats: one or more of masks, overlays, probabilities, polygons, coco; see `prediction_files.write`.
        beam_pipeline_options: predict on Apache Beam, for more than one machine; its options, separated by commas:
            "runner=DirectRunner,direct_num_workers=4". Each worker loads the segmenter, which must come from
            `Segmenter.load`, and sees the same folders.

    Raises:
        UserError: a format is unknown, there are no images, or the folder cannot be written.
    """
    prediction_files.check_formats(formats)
    options = None if beam_pipeline_options is None else beam.pipeline_options(beam_pipeline_options)
    if options and segmenter.loader is None:
        raise UserError("--beam_pipeline_options: the workers load the segmenter; expected one of Segmenter.load")
    started = time.monotonic()
    output_dir, formats = pathlib.Path(output_dir).expanduser(), set(formats)
    if not inputs:
        raise UserError("inputs: found none, expected at least one image")
    inputs = list({path.parent.resolve() / path.name: path for path in inputs}.values())
    relative = _below_common_folder(inputs)
    named = dict(zip(distinct_names(relative), inputs, strict=True))
    stages = [NETWORK] if segmenter.crf is None else [NETWORK, CRF]
    request = StopRequest()
    unreadable = []

    written_to = {
        name: [output_dir / path for path in prediction_files.paths(name, formats, stages).values()] for name in named
    }
    for folder in {output_dir, *(path.parent for paths in written_to.values() for path in paths)}:
        files.remove_remains(folder)
    with PredictionLog(output_dir, segmenter) as log, request.listening():
        done = {name for name, path in named.items() if log.is_done(name, path, formats)}
        done -= {name for name, paths in written_to.items() if not all(path.is_file() for path in paths)}
        waiting = {name: path for name, path in named.items() if name not in done}
        if options:
            _predict_on_beam(segmenter, waiting, output_dir, formats, options)
            made = log.take_in_parts() & waiting.keys()
            unreadable += [line for name, path in waiting.items() if name not in made for line in _fault(path)]
        else:
            names = _predict_here(segmenter, waiting, output_dir, formats, log, unreadable, request.signal_number)
            progress = tqdm.tqdm(names, "predict", len(waiting), unit="image", dynamic_ncols=True, leave=False)
            with contextlib.closing(names):
                made = set(progress)
        stopped = bool(request.signal_number())
        if "coco" in formats and not stopped:
            file_names = {
                name: str(path) for name, path in zip(named, relative, strict=True) if name in done or name in made
            }
            for key in (prediction_files.folder("coco", stage) for stage in stages):
                with coco.written(output_dir / f"{key}.json", key, segmenter.info) as add:
                    for name, file_name in file_names.items():
                        add(log.record(name) | {"file_name": file_name})
    seconds = time.monotonic() - started
    return Predictions(output_dir, len(made), len(done), unreadable, seconds, stopped)


def _predict_here(
    segmenter: Segmenter,
    waiting: Mapping[str, pathlib.Path],
    output_dir: pathlib.Path,
    formats: Collection[str],
    log: PredictionLog,
    unreadable: list[str],
    stopped: Callable[[], int] = lambda: 0,
) -> Iterator[str]:
    """Predicts images, by name, in this process, until it is `stopped`; yields the name of each that is written.

    A line for each image that is not readable is added to `unreadable`.
    """

    def readable() -> Iterator[tuple[str, np.ndarray]]:
        for name, path in waiting.items():
            if stopped():
                return
            try:
                yield name, read_photograph(path)
            except UserError as error:
                unreadable.append(str(error))

    def write(name: str, image: np.ndarray, results: dict[str, Segmentation]) -> dict[str, Any]:
        annotations = prediction_files.write(output_dir, name, image, results, formats, segmenter.info)
        return {"name": name, "height": image.shape[0], "width": image.shape[1], **annotations}

    with contextlib.closing(segment_stream(segmenter, readable(), write)) as written:
        for record in written:
            name = record.pop("name")
            log.add(name, waiting[name], formats, **record)
            yield name


def _predict_on_beam(segmenter, waiting, output_dir, formats, options) -> None:
    """Predicts images, by name, on the workers of Apache Beam; they write parts of the record."""
    import apache_beam

    class Predict(apache_beam.DoFn):
        """Predicts some images at a time, with a segmenter of its own."""

        def setup(self):
            self.segmenter = load()

        def process(self, named):
            with PredictionLog(folder, self.segmenter, part=True) as log:
                paths = {name: pathlib.Path(path) for name, path in named}
                for _ in _predict_here(self.segmenter, paths, folder, formats, log, []):
                    pass

    load, folder = segmenter.loader, output_dir.resolve()
    with apache_beam.Pipeline(options=options) as pipeline:
        (
            pipeline
            | apache_beam.Create([(name, str(path.resolve())) for name, path in waiting.items()])
            | apache_beam.Reshuffle()
            | apache_beam.BatchElements(min_batch_size=_IMAGES_OF_A_PART, max_batch_size=_IMAGES_OF_A_PART)
            | apache_beam.ParDo(Predict())
        )


def _fault(path: pathlib.Path) -> list[str]:
    """The line that says why an image is not readable; none if it is."""
    try:
        read_photograph(path)
    except UserError as error:
        return [str(error)]
    return []


def _below_common_folder(inputs: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """The paths relative to the folder that all have in common."""
    folders = [path.parent.resolve() for path in inputs]
    common = os.path.commonpath(folders)
    return [folder.relative_to(common) / path.name for folder, path in zip(folders, inputs, strict=True)]
