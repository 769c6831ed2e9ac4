"""Fetching raw files from where their authors publish them.

`keras.utils.get_file` would unpack into another folder, write to /tmp where the folder cannot be written, wait without
end for a server, and compare whole checksums only.
"""

import dataclasses
import hashlib
import http.client
import pathlib
import tarfile
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
            download(archive.url, aside, f"; fetch it by other means into {folder} and try again")
    changed = f"the download is damaged or the file at {archive.url} has changed"
    check(target, archive.checksum, f"{changed}: remove it and try again")
    if archive.unpack:
        try:
            with tarfile.open(target) as tar:
                members = tqdm.tqdm(tar, desc=f"unpacking {archive.filename}", unit=" files")
                tar.extractall(folder, members=members, filter="data")
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise UserError(f"{target}: cannot be unpacked ({error!s:.200}); remove it and try again") from error
        target.unlink()
    write_text(done, archive.checksum + "\n")


def download(url: str, path: pathlib.Path, advice: str = "") -> None:
    """Downloads a file, with a progress bar, and checks that it came whole.

    Args:
        url: where it is.
        path: where to write it.
        advice: end of the message if it cannot be had.

    Raises:
        UserError: it cannot be downloaded.
    """
    try:
        with urllib.request.urlopen(url, timeout=60) as source, open(path, "wb") as file:
            size = int(source.headers.get("Content-Length") or 0) or None
            with tqdm.tqdm(total=size, desc=url.rsplit("/", 1)[1], unit="B", unit_scale=True) as progress:
                while chunk := source.read(_CHUNK):
                    file.write(chunk)
                    progress.update(len(chunk))
            if size and file.tell() != size:
                raise OSError(f"it ended after {file.tell()} of {size} bytes")
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{url}: cannot be downloaded ({reason}){advice}") from error


def check(path: pathlib.Path, checksum: str, cause: str) -> None:
    """Refuses a file that is not what it should be.

    Args:
        path: of the file.
        checksum: "md5:" or "sha256:" and hexadecimal digits of its content, the first ones at least; "": not known.
        cause: of a difference, and what to do; the end of the message.

    Raises:
        UserError: its content has another checksum.
    """
    algorithm, _, expected = checksum.partition(":")
    if not expected:
        return
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if not found.startswith(expected):
        raise UserError(f"{path}: its {algorithm} is {found}, expected {expected}; {cause}")
