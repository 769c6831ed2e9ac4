"""The base class of all data sets' builders: checking pairs of image and mask, and writing them as TFRecords.

A builder of a data set says which pairs there are (`pairs`) and how one is read (`read`). The rest is the same for all:
pairs are read and checked on all cores, a bounded number at a time, and written by tensorflow-datasets: shards by size,
under a temporary name until all is done, with the classes beside them.
"""

import collections
import dataclasses
import functools
import io
import itertools
import os
import pathlib
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
import tqdm
from PIL import Image

from deeplab_tf import pictures
from deeplab_tf.classes import DatasetInfo
from deeplab_tf.data.catalogue import PREPARED_VERSION
from deeplab_tf.data.decoding import decode_image
from deeplab_tf.data.download import Archive
from deeplab_tf.data.finding import find_builder
from deeplab_tf.data.masks import Mask, check_indices
from deeplab_tf.errors import UserError

_SKIPPED = "skipped-"


@dataclasses.dataclass(frozen=True)
class Example:
    """An image and its mask as read from the raw files, not checked yet.

    Attributes:
        filename: of the image; goes into `image/filename`.
        image: bytes of the image file.
        mask: its mask; None where the data set has none (a test split).
        source: the image's file, for messages.
        mask_source: the mask's file, for messages.
    """

    filename: str
    image: bytes
    mask: Mask | None
    source: str
    mask_source: str = ""


class SegmentationBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes pairs of image and mask with the Model Garden's feature names.

    A subclass has `name`, `catalogue_info` and `pairs`, and sets `read`.

    Attributes:
        CONFIGS: names of its configurations beside the plain one.
        OPTIONS: names of the options that it takes.
        DOWNLOADS: where its raw files are to be had, if anyone may have them.
        read: turns one of the items of `pairs` into an Example, or into None to leave it out. Runs in many threads at
            once, or in Beam's workers.
    """

    VERSION = tfds.core.Version(PREPARED_VERSION)
    code_path = None  # tensorflow-datasets would look there for checksums; and fails where no package is installed
    CONFIGS: tuple[str, ...] = ()
    OPTIONS: tuple[str, ...] = ()
    DOWNLOADS: tuple[Archive, ...] = ()
    read: Callable[[Any], Example | None]

    def __init__(
        self,
        *,
        raw_dir: str | None = None,
        on_error: str = "stop",
        options: dict | None = None,
        provenance: dict | None = None,
        on_beam: bool = False,
        **kwargs,
    ):
        """Makes a builder.

        Args:
            raw_dir: folder of the raw files.
            on_error: "stop" at the first bad raw file, or "skip" it.
            options: of this data set.
            provenance: what it is made from; goes into its metadata.
            on_beam: whether Apache Beam converts, instead of threads.
            **kwargs: tensorflow-datasets' own: data_dir, config, version.
        """
        self.raw_dir, self.on_error, self.options = raw_dir, on_error, options or {}
        self._provenance, self._on_beam = provenance or {}, on_beam
        self.skipped: list[str] = []
        self.notes: list[str] = []  # what the user should know about the finished data set
        self.counts: dict[str, np.ndarray] = {}
        super().__init__(**kwargs)

    @classmethod
    def config_named(cls, name: str) -> tfds.core.BuilderConfig | None:
        """The configuration for what follows the slash in a data set's name, which may be nothing.

        Raises:
            UserError: there is no such configuration.
        """
        if name and name not in cls.CONFIGS:
            there_are = f"it has {', '.join(cls.CONFIGS)}" if cls.CONFIGS else "it has none"
            raise UserError(f"dataset {cls.name!r} has no configuration {name!r}; {there_are}")
        return tfds.core.BuilderConfig(name=name) if name else None

    @property
    def full_name(self) -> str:
        """Name of the data set, with its configuration where it has one."""
        return f"{self.name}/{self.builder_config.name}" if self.builder_config else self.name

    def catalogue_info(self) -> DatasetInfo:
        """Name, classes and palette."""
        raise NotImplementedError

    def pairs(self) -> dict[str, Sequence[Any]]:
        """For each split its pairs, as `read` takes them; a pair may have a `problem` that is known already."""
        raise NotImplementedError

    def check_counts(self, counts: dict[str, np.ndarray]) -> None:
        """Checks the finished data set by the number of pixels of each value, int64 [256], in each split."""

    def unions(self) -> dict[str, tuple[str, ...]]:
        """Splits that are not stored because they are others put together."""
        return {}

    def _info(self) -> tfds.core.DatasetInfo:
        metadata = {
            **self.catalogue_info().to_json(),
            "unions": {name: list(parts) for name, parts in self.unions().items()},
            **self._provenance,
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__class__.__doc__,
            features=_features(),
            metadata=tfds.core.MetadataDict(metadata),
        )

    def _log_download_bytes(self) -> None:
        """Nothing: tensorflow-datasets' own words are about downloads."""

    def _log_download_done(self) -> None:
        """Nothing: the command line says what was made."""

    def _split_generators(self, dl_manager):
        splits = self.pairs()
        if self.on_error == "stop":
            for pair in itertools.chain.from_iterable(splits.values()):
                if getattr(pair, "problem", ""):
                    raise UserError(pair.problem)
        generate = self._on_beam_workers if self._on_beam else self._generate_examples
        return {split: generate(split, pairs) for split, pairs in splits.items()}

    def _generate_examples(self, split: str, pairs: Sequence[Any]) -> Iterator[tuple[str, dict]]:
        progress = tqdm.tqdm(total=len(pairs), desc=f"{self.name} {split}", unit=" images")
        num_classes, read = self.catalogue_info().num_classes, type(self).read
        convert = functools.partial(_converted, read=read, num_classes=num_classes)
        counts = self.counts[split] = np.zeros(256, np.int64)
        is_empty = True
        with progress:
            for result in _in_order(convert, pairs, on_all_cores=os.cpu_count() or 1):
                progress.update()
                try:
                    converted = result()
                except UserError as error:
                    if self.on_error != "skip":
                        raise
                    self.skipped.append(str(error))
                else:
                    if converted is not None:
                        features, pixels = converted
                        counts += pixels
                        is_empty = False
                        yield features["image"]["filename"], features

        if is_empty:
            why = f"; the first of {len(self.skipped)} left out: {self.skipped[0]}" if self.skipped else ""
            raise UserError(f"dataset {self.full_name!r}: no examples are left for the split {split!r}{why}")

    def _on_beam_workers(self, split: str, pairs: Sequence[Any]):
        """The same as a Beam transform; what is wrong with bad pairs goes to text files beside the records."""
        import apache_beam as beam

        convert = functools.partial(_tagged, name=self.name, num_classes=self.catalogue_info().num_classes)
        # Pickled here, since pairs are of types of the builder's module, which a worker must load first.
        pickled = [pickle.dumps(pair) for pair in pairs]
        skipped_file = os.path.join(self.data_dir, f"{_SKIPPED}{split}")

        @beam.ptransform_fn
        def examples(pipeline):
            converted = pipeline | beam.Create(pickled) | beam.Reshuffle() | beam.FlatMap(convert).with_outputs()
            _ = converted.skipped | beam.io.WriteToText(skipped_file, shard_name_template="")
            return converted.examples

        return examples()

    def _process_pipeline_result(self, pipeline_result) -> None:
        for path in sorted(pathlib.Path(self.data_dir).glob(f"{_SKIPPED}*")):
            self.skipped.extend(path.read_text(encoding="utf-8").splitlines())
            path.unlink()
        if self.skipped and self.on_error == "stop":
            others = f" ({len(self.skipped) - 1} more are bad)" if len(self.skipped) > 1 else ""
            raise UserError(self.skipped[0] + others)


def _tagged(pickled: bytes, name: str, num_classes: int) -> Iterator[Any]:
    """Converts a pair of the data set `name` for Beam: an example, or the line that says what is wrong with it."""
    from apache_beam.pvalue import TaggedOutput

    read = find_builder(name).read
    try:
        converted = _converted(pickle.loads(pickled), read, num_classes)
    except UserError as error:
        yield TaggedOutput("skipped", str(error))
    else:
        if converted is not None:
            yield TaggedOutput("examples", (converted[0]["image"]["filename"], converted[0]))


def _converted(pair: Any, read: Callable[[Any], Example | None], num_classes: int) -> tuple[dict, np.ndarray] | None:
    """The features and counts of a pair; None where it is to be left out."""
    example = read(pair)
    return None if example is None else check_example(example, num_classes)


def check_example(example: Example, num_classes: int) -> tuple[dict, np.ndarray]:
    """Checks an example.

    Returns:
        its features, and the number of pixels of each value of its mask, int64 [256].

    Raises:
        UserError: the image cannot be decoded, the mask has another size, or holds a value that is not a class.
    """
    image, image_format, height, width = prepared_photograph(example.image, example.source)
    if example.mask is None:
        mask, counts = b"", np.zeros(256, np.int64)
    else:
        if example.mask.indices.shape != (height, width):
            raise UserError(_size_differs(example, height, width))
        counts = check_indices(example.mask.indices, num_classes, example.mask_source)
        mask = example.mask.encoded()
    features = {
        "image": {
            "encoded": image,
            "format": image_format,
            "filename": example.filename,
            "height": height,
            "width": width,
            "segmentation": {"class": {"encoded": mask, "format": "png"}},
        }
    }
    return features, counts


def _features() -> tfds.features.FeaturesDict:
    """The Model Garden's features; nested names serialise joined by "/"."""
    text = lambda doc: tfds.features.Tensor(shape=(), dtype=tf.string, doc=doc)  # noqa: E731
    number = lambda doc: tfds.features.Tensor(shape=(), dtype=tf.int64, doc=doc)  # noqa: E731
    return tfds.features.FeaturesDict(
        {
            "image": {
                "encoded": text("The image file, upright."),
                "format": text("'jpeg' or 'png'."),
                "filename": text("Name of the image file."),
                "height": number("Pixels."),
                "width": number("Pixels."),
                "segmentation": {
                    "class": {
                        "encoded": text("PNG of one 8-bit channel: the class of each pixel, 255 for no label."),
                        "format": text("'png'."),
                    }
                },
            }
        }
    )


def prepared_photograph(data: bytes, source: str) -> tuple[bytes, str, int, int]:
    """A photograph as it is stored: bytes that every decoder turns into the pixels of `pictures.read_photograph`.

    JPEGs and PNGs that are upright keep their bytes. A JPEG that its EXIF orientation turns is turned and encoded again
    (quality 95, no subsampling of colours); everything else becomes PNG.

    Returns:
        the file, its format ("jpeg" or "png"), height and width.

    Raises:
        UserError: it cannot be decoded, or holds numbers that are not colours.
    """
    picture = pictures.open_image(data, source, load=False)
    is_jpeg = picture.format in ("JPEG", "MPO")  # MPO: a JPEG with further pictures behind it
    if pictures.is_portable(picture):
        try:
            with tf.device("CPU"):
                height, width, _ = decode_image(data).shape
        except (tf.errors.InvalidArgumentError, ValueError) as error:
            pictures.open_image(data, source)  # says what is wrong with it
            raise UserError(f"{source}: cannot be decoded by TensorFlow; replace or remove it") from error
        return data, "jpeg" if is_jpeg else "png", height, width
    pixels = pictures.read_photograph(data, source)
    file = io.BytesIO()
    if is_jpeg:
        Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0)
    else:
        Image.fromarray(pixels).save(file, "PNG", compress_level=3)
    return file.getvalue(), "jpeg" if is_jpeg else "png", *pixels.shape[:2]


def _size_differs(example: Example, height: int, width: int) -> str:
    mask_height, mask_width = example.mask.indices.shape
    message = (
        f"{example.mask_source}: the mask is {mask_width}x{mask_height} pixels, its image {example.source} "
        f"{width}x{height}; they must be equal"
    )
    stored = pictures.open_image(example.image, example.source, load=False)
    orientation = pictures.exif_orientation(stored)
    if orientation != 1 and (mask_width, mask_height) == stored.size:
        message += (
            f" (the photograph is turned by its EXIF orientation {orientation}, the mask fits it unturned: turn the "
            "mask, or remove the orientation from the photograph)"
        )
    return message


def _in_order(function: Callable, items: Iterable, on_all_cores: int) -> Iterator[Callable[[], Any]]:
    """Calls `function` on each item in threads, four for each core under way at most, and yields results in order.

    Each result is a function that returns it or raises what `function` raised.
    """
    with futures.ThreadPoolExecutor(on_all_cores) as pool:
        items = iter(items)
        pending = collections.deque(pool.submit(function, item) for item in itertools.islice(items, 4 * on_all_cores))
        try:
            while pending:
                result = pending.popleft().result
                pending.extend(pool.submit(function, item) for item in itertools.islice(items, 1))
                yield result
        finally:
            for future in pending:
                future.cancel()
