"""Files that are either whole or not there: written aside, then renamed."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from deeplab_tf.errors import UserError


@contextlib.contextmanager
def written_aside(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path` and renames it to `path` when the block ends without an error.

    Args:
        path: the file to write; its folder is made if needed.

    Yields:
        a path with the same suffix, in the same folder, to write to. It is removed when the block raises.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes `text` to `path` as UTF-8, whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` to `path` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def check_folder(path: str | os.PathLike, name: str) -> None:
    """Refuses a folder that cannot be made or written, before any work is done for it.

    Args:
        path: of the folder, which need not exist; `~` is expanded.
        name: of the flag or argument, for the message.

    Raises:
        UserError: a part of the path is a file, or may not be written.
    """
    path = pathlib.Path(path).expanduser()
    try:
        existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    except OSError as error:
        raise UserError(f"{name}={path}: {error.strerror}") from None
    if not existing.is_dir():
        raise UserError(f"{name}={path}: {existing} is a file, expected a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{name}={path}: {existing} cannot be written")
