"""Refining the results of any network that lie in folders: images and maps in, masks out, on all cores."""

import collections
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import tqdm
from PIL import Image

from deeplab_tf import beam
from deeplab_tf.crf import map_files
from deeplab_tf.crf.dense_crf import DenseCRF
from deeplab_tf.crf.map_files import MapReader
from deeplab_tf.errors import UserError
from deeplab_tf.files import written_aside
from deeplab_tf.parallel import available_cores, in_order
from deeplab_tf.pictures import find_images, read_labels, read_photograph, save_mask

FORMATS = {"masks": ".png", "probabilities": ".npz"}
# The entry of a result that says what it was made from.
_MADE_FROM = "made_from"


@dataclasses.dataclass(frozen=True)
class Refined:
    """Result of `refine_many`.

    Attributes:
        output_dir: folder of the results.
        written: number of images refined.
        done_before: number of images left out because an earlier call had refined them.
        left_out: one line for each image that could not be refined.
    """

    output_dir: pathlib.Path
    written: int
    done_before: int
    left_out: tuple[str, ...]


def refine_many(
    images: str | os.PathLike | Sequence[pathlib.Path],
    map_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    crf: DenseCRF | None = None,
    reader: MapReader | None = None,
    *,
    formats: Collection[str] = ("masks",),
    cores: int | None = None,
    beam_pipeline_options: str | None = None,
) -> Refined:
    """Refines the maps of any number of images, one image on each core, and writes a mask for each.

    In memory are no more than twice as many images as cores. A result is written aside and renamed, and says what it
    was made from: what is there from the same image, map and settings is not made again, so a call that was stopped
    goes on where it was. What cannot be refined is left out.

    Args:
        images: a folder, a glob or paths; turned upright where their EXIF orientation says so.
        map_dir: for every image a map of the same stem, `.npy`, `.npz` or `.png`.
        output_dir: gets `<stem>.png`, indexed, and `<stem>.npz`; another folder than those of the inputs.
        crf: the CRF; default: `DenseCRF()`.
        reader: tells how maps are read; where it does not know the number of classes of label maps, it is the largest
            label in the folder plus one.
        formats: one or both of masks, probabilities ("probabilities", float16 [H, W, K], and for activation maps
            "classes", uint8 [K], the label of each channel).
        cores: to use at most; default: all. A few images share them.
        beam_pipeline_options: refine on Apache Beam, for more than one machine; its options, separated by commas:
            "runner=DirectRunner,direct_num_workers=4". All workers must see the folders.

    Raises:
        UserError: a folder is missing or empty, no image has a map, or a setting does not hold.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise UserError(f"--format={','.join(unknown)}: expected {' or '.join(FORMATS)}")
    options = None if beam_pipeline_options is None else beam.pipeline_options(beam_pipeline_options)
    images = find_images(os.fspath(images)) if isinstance(images, str | os.PathLike) else list(images)
    map_dir, output_dir = pathlib.Path(map_dir).expanduser(), pathlib.Path(output_dir).expanduser()
    if output_dir.resolve() in {map_dir.resolve(), *(path.parent.resolve() for path in images)}:
        raise UserError(f"{output_dir}: the masks would be written among the inputs; expected another folder")
    pairs, left_out = pair_maps(images, map_dir)
    cores = cores or available_cores()
    reader = _with_number_of_classes(reader or MapReader(), [path for _, path in pairs], cores)

    job = _Job(crf or DenseCRF(), reader, tuple(formats), output_dir)
    waiting = [pair for pair in pairs if not job.is_done(*pair)]
    workers = max(1, min(cores, len(waiting)))
    job = dataclasses.replace(job, crf=dataclasses.replace(job.crf, threads=max(1, cores // workers)))
    outcomes = _on_beam(job, waiting, options) if options else in_order(lambda pair: job(*pair), waiting, workers)
    for outcome in tqdm.tqdm(outcomes, "refine", len(waiting), unit="image", dynamic_ncols=True, leave=False):
        if outcome:
            left_out.append(outcome)
    failed = len(left_out) - (len(images) - len(pairs))
    return Refined(output_dir, len(waiting) - failed, len(pairs) - len(waiting), tuple(left_out))


def pair_maps(
    images: Sequence[pathlib.Path], map_dir: pathlib.Path
) -> tuple[list[tuple[pathlib.Path, pathlib.Path]], list[str]]:
    """Finds the map of each image.

    Returns:
        (image, map) for all that have exactly one, and a line for each other image.

    Raises:
        UserError: the folder is missing, or no image has a map.
    """
    if not map_dir.is_dir():
        raise UserError(f"{map_dir}: no such folder")
    found = collections.defaultdict(list)
    for path in sorted(map_dir.iterdir()):
        if path.suffix.lower() in map_files.SUFFIXES and not path.name.startswith("."):
            found[path.stem].append(path)
    same_stem = collections.Counter(path.stem for path in images)
    pairs, left_out = [], []
    for image in images:
        candidates = found[image.stem]
        if same_stem[image.stem] > 1:
            left_out.append(f"{image}: another image has the stem {image.stem}; expected one of each stem")
        elif len(candidates) > 1:
            names = " and ".join(path.name for path in candidates)
            left_out.append(f"{image}: {map_dir} holds {names}; expected one of each stem")
        elif not candidates:
            left_out.append(
                f"{image}: has no map in {map_dir}; expected {image.stem} and {' or '.join(map_files.SUFFIXES)}"
            )
        else:
            pairs.append((image, candidates[0]))
    if not pairs:
        raise UserError(left_out[0] + (f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""))
    return pairs, left_out


@dataclasses.dataclass(frozen=True)
class _Job:
    """The work on every image; also sent to the workers of Apache Beam."""

    crf: DenseCRF
    reader: MapReader
    formats: tuple[str, ...]
    output_dir: pathlib.Path

    def __call__(self, image_path: pathlib.Path, map_path: pathlib.Path) -> str:
        """Refines one image; returns "", or a line that says why it could not be refined."""
        try:
            image = read_photograph(image_path)
            probabilities, classes, palette = self.reader.read(map_path, image.shape[:2])
            if np.ndim(probabilities) == 3 and probabilities.shape[-1] > 256:
                raise UserError(f"has {probabilities.shape[-1]} classes; a mask holds 256 at most")
            only_labels = self.formats == ("masks",)
            refined = self.crf(image, probabilities, return_labels=only_labels)
            made_from = self._made_from(image_path, map_path)
            if "probabilities" in self.formats:
                self._write_probabilities(map_path.stem, refined, classes, made_from)
            if "masks" in self.formats:
                labels = refined if only_labels else refined.argmax(axis=-1).astype(np.uint8)
                labels = labels if classes is None else classes[labels]
                save_mask(self._path(map_path.stem, "masks"), labels, palette, {_MADE_FROM: made_from})
        except UserError as error:
            known = any(str(path) in str(error) for path in (image_path, map_path))
            return str(error) if known else f"{map_path}: {error}"
        except OSError as error:
            raise UserError(f"{self.output_dir}: cannot be written ({error.strerror or error})") from error
        except MemoryError:
            return f"{map_path}: not enough memory for this image; fewer --cores need less"
        return ""

    def is_done(self, image_path: pathlib.Path, map_path: pathlib.Path) -> bool:
        """Whether all results are there, from the same image, map and settings."""
        paths = [self._path(map_path.stem, name) for name in self.formats]
        if not all(path.is_file() for path in paths):
            return False
        made_from = self._made_from(image_path, map_path)
        return all(_read_made_from(path) == made_from for path in paths)

    def _path(self, stem: str, name: str) -> pathlib.Path:
        return self.output_dir / f"{stem}{FORMATS[name]}"

    def _write_probabilities(self, stem: str, probabilities: np.ndarray, classes, made_from: str) -> None:
        arrays = {"probabilities": probabilities.astype(np.float16), _MADE_FROM: np.array(made_from)}
        if classes is not None:
            arrays["classes"] = classes
        with written_aside(self._path(stem, "probabilities")) as aside:
            np.savez(aside, **arrays)

    def _made_from(self, *paths: pathlib.Path) -> str:
        """Changes with the settings, and with the inputs."""
        states = [(path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
        return hashlib.sha256(json.dumps([self._settings, states]).encode()).hexdigest()[:32]

    @functools.cached_property
    def _settings(self) -> str:
        return repr((dataclasses.replace(self.crf, threads=None), self.reader))


def _read_made_from(path: pathlib.Path) -> str | None:
    """The entry of a result that says what it was made from; None for another file."""
    try:
        if path.suffix == ".npz":
            with np.load(path) as content:
                return str(content[_MADE_FROM])
        with Image.open(path) as mask:
            return mask.text.get(_MADE_FROM)
    except Exception:  # damaged in any way: to be made again
        return None


def _with_number_of_classes(reader: MapReader, paths: list[pathlib.Path], cores: int) -> MapReader:
    """The reader, with a number of classes for label maps; those that cannot be read are reported in their turn."""
    label_maps = [path for path in paths if path.suffix.lower() == ".png"]
    if reader.num_classes is not None or not label_maps:
        return reader

    def largest(path: pathlib.Path) -> int:
        try:
            labels, _ = read_labels(path)
        except UserError:
            return 1
        return int(labels[labels != reader.ignore_label].max(initial=1))

    labels = in_order(largest, label_maps, cores)
    progress = tqdm.tqdm(labels, "count classes", len(label_maps), unit="map", dynamic_ncols=True, leave=False)
    return dataclasses.replace(reader, num_classes=max(progress) + 1)


def _on_beam(job: _Job, pairs: list[tuple[pathlib.Path, pathlib.Path]], options) -> Iterator[str]:
    """Does the job for all pairs on Apache Beam; yields what it returned, in any order."""
    import apache_beam

    job.output_dir.mkdir(parents=True, exist_ok=True)
    job = dataclasses.replace(job, output_dir=job.output_dir.resolve())
    absolute = [(str(image.resolve()), str(map_path.resolve())) for image, map_path in pairs]
    with tempfile.TemporaryDirectory(prefix=".beam-", dir=job.output_dir) as folder:
        with apache_beam.Pipeline(options=options) as pipeline:
            (
                pipeline
                | apache_beam.Create(absolute)
                | apache_beam.Reshuffle()
                | apache_beam.Map(_job_on_paths, job=job)
                | apache_beam.io.WriteToText(os.path.join(folder, "outcomes"))
            )
        for path in sorted(pathlib.Path(folder).glob("outcomes*")):
            yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())


def _job_on_paths(pair: tuple[str, str], job: _Job) -> str:
    return json.dumps(job(*map(pathlib.Path, pair)))
