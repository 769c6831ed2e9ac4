"""The record of what `predict` has made, so that it can go on where it was stopped: `predictions.jsonl`.

The first line tells what segmented the images; every further line is an image that is done: its file, its name among
the predictions, its size, the formats written. A line is written when all files of its image are.

Where several processes predict into one folder, each writes a part of the record, `predictions-<number>.jsonl`, of the
same form; the process that started them takes the parts in. So does the next one, if that was stopped.
"""

import contextlib
import json
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any, Self

from deeplab_tf import files
from deeplab_tf.errors import UserError
from deeplab_tf.inference.segmenter import Segmenter

PREDICTIONS_FILE = "predictions.jsonl"


class PredictionLog:
    """An append-only `predictions.jsonl`; entries of another segmenter are ignored.

    The records stay on the disk, as those with annotations may be many; in memory is the place of each.

    Args:
        output_dir: its folder.
        segmenter: that makes the predictions.
        part: write a part of the record instead.
    """

    def __init__(self, output_dir: pathlib.Path, segmenter: Segmenter, part: bool = False):
        path = output_dir / (f"predictions-{uuid.uuid4().hex}.jsonl" if part else PREDICTIONS_FILE)
        self._folder = output_dir
        made_with = segmenter.settings | {"crf": repr(segmenter.crf)}  # and how it is computed: its `class_threshold`
        self._header = {"segmenter": made_with, "class_names": list(segmenter.info.class_names)}
        self._places: dict[str, int] = {}  # of the line of each image
        before = {record["name"]: place for place, record in _records(path, self._header)}
        with files.written_aside(path) as aside, aside.open("wb") as file:
            file.write(_line(self._header))
            for name, place in before.items():
                self._places[name] = file.tell()
                file.write(_line(_record_at(path, place)))
        self._file = path.open("a+b")
        if not part:
            self.take_in_parts()

    def take_in_parts(self) -> set[str]:
        """Moves what other processes have written down into this record; returns the names of the images."""
        taken = set()
        for path in sorted(self._folder.glob("predictions-*.jsonl")):
            for _, record in _records(path, self._header):
                self._append(record)
                taken.add(record["name"])
            path.unlink()
        return taken

    def _append(self, record: dict[str, Any]) -> None:
        try:
            self._places[record["name"]] = self._file.seek(0, os.SEEK_END)
            self._file.write(_line(record))
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self._file.name}: cannot be written ({error.strerror})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def record(self, name: str) -> dict[str, Any]:
        """The record of an image."""
        self._file.seek(self._places[name])
        return json.loads(self._file.readline())

    def is_done(self, name: str, image: pathlib.Path, formats: set[str]) -> bool:
        """Whether the image of this name was written in all these formats, and is the same file still."""
        if name not in self._places or not image.is_file():
            return False
        record = self.record(name)
        return formats <= set(record["formats"]) and record | _state(image) == record

    def add(self, name: str, image: pathlib.Path, formats: set[str], **more: Any) -> None:
        """Writes down that an image is done."""
        self._append({"name": name, **_state(image), "formats": sorted(formats), **more})


def _state(image: pathlib.Path) -> dict[str, Any]:
    """Facts that differ when another file is meant, or the file was replaced."""
    status = image.stat()
    return {"input": str(image.resolve()), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def _records(path: pathlib.Path, header: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The places and records of the whole lines of a file with this header; none of another file.

    The end of the file is torn when the process was killed.
    """
    place = 0
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                return
            if place == 0 and record != header:
                return
            if place > 0:
                if not (isinstance(record, dict) and {"name", "formats"} <= record.keys()):
                    return
                yield place, record
            place += len(line)


def _record_at(path: pathlib.Path, place: int) -> dict[str, Any]:
    with path.open("rb") as file:
        file.seek(place)
        return json.loads(file.readline())


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"
