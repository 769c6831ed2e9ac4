"""Fetching raw files from where their authors publish them."""

import dataclasses
import hashlib
import pathlib
import tarfile
import urllib.error
import urllib.request
import zlib

import tqdm

from deeplab_tf.errors import UserError
from deeplab_tf.files import write_text, written_aside

_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Archive:
    """A file to fetch.

    Attributes:
        url: where it is.
        checksum: "md5:<hexadecimal>" or "sha256:<hexadecimal>" of its content.
        unpack: whether it is a tar file to be unpacked; others, like zip files, are read as they are.
    """

    url: str
    checksum: str
    unpack: bool = True

    @property
    def filename(self) -> str:
        """Last part of the address."""
        return self.url.rsplit("/", 1)[1]


def fetch(archive: Archive, folder: pathlib.Path) -> None:
    """Downloads an archive into a folder, checks it and unpacks it there, unless that is done already.

    Raises:
        UserError: it cannot be downloaded, or is not what it was.
    """
    target = folder / archive.filename
    done = folder / f".{archive.filename}.done"
    if done.exists():
        return
    if not target.exists():
        with written_aside(target) as aside:
            _download(archive, aside)
    _check(archive, target)
    if archive.unpack:
        try:
            with tarfile.open(target) as tar:
                members = tqdm.tqdm(tar, desc=f"unpacking {archive.filename}", unit=" files")
                tar.extractall(folder, members=members, filter="data")
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise UserError(f"{target}: cannot be unpacked ({error}); remove it and try again") from error
        target.unlink()
    write_text(done, archive.checksum + "\n")


def _download(archive: Archive, path: pathlib.Path) -> None:
    try:
        with urllib.request.urlopen(archive.url, timeout=60) as source, open(path, "wb") as file:
            size = int(source.headers.get("Content-Length") or 0) or None
            with tqdm.tqdm(total=size, desc=archive.filename, unit="B", unit_scale=True) as progress:
                while chunk := source.read(_CHUNK):
                    file.write(chunk)
                    progress.update(len(chunk))
    except (OSError, urllib.error.URLError) as error:
        raise UserError(
            f"{archive.url}: cannot be downloaded ({getattr(error, 'reason', error)}); fetch it by other means into "
            f"{path.parent} and try again"
        ) from error


def _check(archive: Archive, path: pathlib.Path) -> None:
    algorithm, expected = archive.checksum.split(":")
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != expected:
        raise UserError(
            f"{path}: its {algorithm} is {found}, expected {expected}; the download is damaged or the file at "
            f"{archive.url} has changed: remove it and try again"
        )
