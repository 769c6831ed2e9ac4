"""Files that are either whole or not there: written aside, then renamed."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
from collections.abc import Iterator
from typing import Any

from deeplab_tf.errors import UserError


def process_name() -> str:
    """The host and the number of this process, for names of files that no other process uses."""
    return f"{re.sub('[^A-Za-z0-9_-]', '-', socket.gethostname())[:40]}-{os.getpid()}"


@contextlib.contextmanager
def written_aside(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path` and renames it to `path` when the block ends without an error.

    Args:
        path: the file to write; its folder is made if needed.

    Yields:
        a path with the same suffix, in the same folder, to write to. It is removed when the block raises.

    Raises:
        UserError: the folder or the file cannot be written, or the disk is full.
    """
    path = pathlib.Path(path)
    aside = path.with_name(f".{path.stem[:100]}.{process_name()}.part{path.suffix}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield aside
            os.replace(aside, path)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Within the block, the errors of Python and TensorFlow where they cannot write become one line.

    Raises:
        UserError: `path` cannot be written, or the disk is full.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = _reason(error) or (_reason(error.__cause__) if error.__cause__ else "")  # tensorflow-datasets wraps it
        if not reason:
            raise
        raise UserError(f"{path}: cannot be written ({reason})") from error


def _reason(error: BaseException) -> str:
    """Why something could not be written, as Python or TensorFlow say it; empty for another kind of error."""
    if isinstance(error, OSError):
        return error.strerror or str(error).splitlines()[0]
    if type(error).__module__.startswith("tensorflow.python.framework.errors"):
        return str(error).splitlines()[0].rpartition("; ")[2][:200]
    return ""


def check_room(path: str | os.PathLike, size: int) -> None:
    """Refuses to write a file for which its disk has no room, where a failure half-way would be worse (HDF5's).

    Args:
        path: of the file; its folder exists.
        size: bytes.

    Raises:
        UserError: the disk has less.
    """
    free = shutil.disk_usage(pathlib.Path(path).parent).free
    if free < size:
        raise UserError(f"{path}: cannot be written (needs {size / 1e6:.1f} MB, the disk has {free / 1e6:.1f} left)")


def remove_remains(folder: str | os.PathLike) -> None:
    """Removes from a folder the unfinished files and folders of processes of this host that were killed."""
    host, _, _ = process_name().rpartition("-")
    remains = re.compile(rf"\..*[.-]{re.escape(host)}-(\d+)[.-].*part(\..*)?")
    for path in pathlib.Path(folder).glob(".*"):
        match = remains.fullmatch(path.name)
        if match and not _is_running(int(match[1])):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # of another user
    return True


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
