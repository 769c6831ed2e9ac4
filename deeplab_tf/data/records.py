"""Random access to TFRecord files.

A TFRecord file is a sequence of [length uint64][checksum uint32][data][checksum uint32], without an index. One pass
over the lengths (it skips the data) gives one; from then on any example can be read on its own. So the order of
training is drawn over the whole set instead of a window of it, a run resumes at any step at once, and each host of
many reads its own examples alone. Nothing is held in memory: the operating system keeps what it has read as long as
there is room.
"""

import copy
import os
import pathlib
import re
import struct
from collections.abc import Collection, Sequence
from concurrent import futures

import numpy as np
import tensorflow as tf

from deeplab_tf.errors import UserError

_HEADER, _FOOTER = 12, 4
# TFDS: shapes-train.tfrecord-00000-of-00001. The classic DeepLab scripts: train-00000-of-00010.tfrecord.
_NAMES = (
    re.compile(r"(?:.+-)?(?P<split>[^-]+)\.tfrecords?-(?P<shard>\d+)-of-(?P<shards>\d+)"),
    re.compile(r"(?:.+-)?(?P<split>[^-]+)-(?P<shard>\d+)-of-(?P<shards>\d+)\.tfrecords?"),
)


def record_files(directory: str | os.PathLike) -> dict[str, list[str]]:
    """The TFRecord files of each split in a directory, in the order of their shards.

    Raises:
        UserError: the directory holds no record files, or shards are missing.
    """
    directory = pathlib.Path(directory)
    found: dict[str, dict[int, str]] = {}
    expected: dict[str, int] = {}
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        match = next(filter(None, (name.fullmatch(path.name) for name in _NAMES)), None)
        if match:
            found.setdefault(match["split"], {})[int(match["shard"])] = str(path)
            expected[match["split"]] = int(match["shards"])
    if not found:
        raise UserError(f"{directory}: no TFRecord files; expected a directory that datasets/prepare.py wrote")
    for split, shards in found.items():
        missing = sorted(set(range(expected[split])) - set(shards))
        if missing:
            raise UserError(
                f"{directory}: split {split!r} should have {expected[split]} record files, number {missing[0]} is "
                "missing; prepare the data set again"
            )
    return {split: [shards[shard] for shard in sorted(shards)] for split, shards in found.items()}


class Records:
    """The serialised examples in some TFRecord files, by number."""

    def __init__(self, paths: list[str]):
        """Indexes the files.

        Args:
            paths: TFRecord files, uncompressed.

        Raises:
            UserError: a file is not a TFRecord file, or is cut short.
        """
        self._paths = paths
        with futures.ThreadPoolExecutor(8) as pool:
            offsets = list(pool.map(_offsets, paths))
        self._files = np.repeat(np.arange(len(paths)), [len(part) for part in offsets])
        self._offsets = np.concatenate(offsets)

    def __len__(self) -> int:
        return len(self._offsets)

    def numbers_of(self, paths: Collection[str]) -> np.ndarray:
        """The numbers of the records in some of the files: int64, ascending."""
        return np.flatnonzero(np.isin(self._files, [self._paths.index(path) for path in paths]))

    def chosen(self, numbers: Sequence[int]) -> "Records":
        """Only the records with these numbers, in this order."""
        chosen = copy.copy(self)
        chosen._files, chosen._offsets = (part[np.asarray(numbers, np.int64)] for part in (self._files, self._offsets))
        return chosen

    def read(self, numbers: tf.data.Dataset) -> tf.data.Dataset:
        """The serialised examples with these numbers, int64, in their order. Their checksums are verified."""
        paths, files, offsets = (tf.constant(part) for part in (self._paths, self._files, self._offsets))

        def one(number):
            # A dataset of the rest of the file, of which one record is taken. Without a buffer, no more is read.
            rest = tf.raw_ops.TFRecordDatasetV2(
                filenames=[paths[files[number]]], compression_type="", buffer_size=0, byte_offsets=[offsets[number]]
            )
            return tf.data.experimental.from_variant(rest, tf.TensorSpec([], tf.string)).take(1)

        read = numbers.flat_map(one)
        count = numbers.cardinality()
        return read.apply(tf.data.experimental.assert_cardinality(count)) if count >= 0 else read


def _offsets(path: str) -> np.ndarray:
    """The offset of each record: int64 [records]."""
    offsets, offset = [], 0
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        while offset < size:
            header = os.pread(file.fileno(), _HEADER, offset)
            length = struct.unpack("<Q", header[:8])[0] if len(header) == _HEADER else size
            if offset + _HEADER + length + _FOOTER > size:
                raise UserError(
                    f"{path}: not a whole, uncompressed TFRecord file (record {len(offsets)} ends beyond the file); "
                    "prepare the data set again"
                )
            offsets.append(offset)
            offset += _HEADER + length + _FOOTER
    return np.array(offsets, np.int64)
