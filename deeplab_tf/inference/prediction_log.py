"""The record of what `predict` has made, so that it can go on where it was stopped: `predictions.jsonl`.

The first line tells what segmented the images; every further line is an image that is done: its file, its name among
the predictions, its size, the formats written. A line is written when all files of its image are.

Where several processes predict into one folder, each writes a part of the record, `predictions-<number>.jsonl`, of the
same form; the process that started them takes the parts in. So does the next one, if that was stopped.
"""

import hashlib
import json
import pathlib
import uuid
from collections.abc import Iterable
from typing import Any, Self

from deeplab_tf import files
from deeplab_tf.errors import UserError
from deeplab_tf.inference.segmenter import Segmenter

PREDICTIONS_FILE = "predictions.jsonl"


def fingerprint(segmenter: Segmenter) -> str:
    """Changes with everything that the labels depend on: weights, network, scales, mirror, tiles, CRF."""
    digest = hashlib.sha256()
    for variable in segmenter.model.variables:
        digest.update(variable.path.encode())
        digest.update(memoryview(variable.numpy()).cast("B"))
    crf = None if segmenter.crf is None else repr(segmenter.crf)
    tiling = None if segmenter.tiling is None else (segmenter.tiling.size, segmenter.tiling.overlap)
    config = json.dumps(segmenter.model.get_config(), sort_keys=True)
    digest.update(
        repr(
            (config, segmenter.input_scale, segmenter.scales, crf, segmenter.mirror, tiling, segmenter.pad_to)
            + (() if segmenter.align_corners else ("corners not aligned",))
            + (("vertical flip",) if segmenter.vertical_flip else ())
        ).encode()
    )
    return digest.hexdigest()


class PredictionLog:
    """An append-only `predictions.jsonl`; entries of another segmenter are ignored.

    Args:
        output_dir: its folder.
        segmenter: that makes the predictions.
        part: write a part of the record instead.
    """

    def __init__(self, output_dir: pathlib.Path, segmenter: Segmenter, part: bool = False):
        path = output_dir / (f"predictions-{uuid.uuid4().hex}.jsonl" if part else PREDICTIONS_FILE)
        self._folder = output_dir
        self._header = {"segmenter": fingerprint(segmenter), "class_names": list(segmenter.info.class_names)}
        self._records = self._read(path)
        lines = (self._header, *self._records.values())
        files.write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
        self._file = path.open("a", encoding="utf-8")
        if not part:
            self.take_in_parts()

    def _read(self, path: pathlib.Path) -> dict[str, dict[str, Any]]:
        header, *records = _lines(path) or [None]
        return {record["name"]: record for record in records} if header == self._header else {}

    def take_in_parts(self) -> dict[str, dict[str, Any]]:
        """Moves what other processes have written down into this record; returns it, by name."""
        taken = {}
        for path in sorted(self._folder.glob("predictions-*.jsonl")):
            part = self._read(path)
            self._append(part.values())
            taken |= part
            path.unlink()
        self._records |= taken
        return taken

    def _append(self, records: Iterable[dict[str, Any]]) -> None:
        try:
            self._file.write("".join(json.dumps(record) + "\n" for record in records))
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self._file.name}: cannot be written ({error.strerror})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def done(self, name: str, image: pathlib.Path, formats: set[str]) -> dict[str, Any] | None:
        """The record of the image of this name, if it was written in all these formats and is the same file still."""
        record = self._records.get(name)
        if record is None or not formats <= set(record["formats"]) or not image.is_file():
            return None
        return record if record | _state(image) == record else None

    def add(self, name: str, image: pathlib.Path, formats: set[str], **more: Any) -> dict[str, Any]:
        """Writes down that an image is done; returns its record."""
        record = {"name": name, **_state(image), "formats": sorted(formats), **more}
        self._records[name] = record
        self._append([record])
        return record


def _state(image: pathlib.Path) -> dict[str, Any]:
    """Facts that differ when another file is meant, or the file was replaced."""
    status = image.stat()
    return {"input": str(image.resolve()), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def _lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """The whole lines of the file; none if there is no file. Its end is torn when the process was killed."""
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines
