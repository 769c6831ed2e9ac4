"""Raw files that may be unpacked or still be in zip files."""

import dataclasses
import functools
import pathlib
import zipfile
import zlib

from deeplab_tf.data.raw import RawFile
from deeplab_tf.errors import UserError

# Bytes of a member of a zip file that are read at most: COCO's annotations are half a gigabyte.
_LARGEST = 2 << 30


@dataclasses.dataclass(frozen=True)
class ZipMember:
    """A file in a zip file; pickles, and may be read in many threads at once."""

    archive: str
    path: str

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.rsplit("/", 1)[-1]

    def read_bytes(self) -> bytes:
        """The whole content."""
        archive = _open_zip(self.archive)
        try:
            size = archive.getinfo(self.path).file_size
            if size > _LARGEST:
                raise UserError(
                    f"{self}: {size / 2**30:.1f} GiB unpacked, more than any image or annotation; remove it"
                )
            return archive.read(self.path)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, MemoryError) as error:
            reason = str(error) or "too large for the memory"
            raise UserError(f"{self}: cannot be read ({reason}); get the archive again") from error

    def __str__(self) -> str:
        return f"{self.archive}/{self.path}"


def files_below(raw: pathlib.Path, folder: str) -> dict[str, RawFile]:
    """The files of a folder that lies in `raw`, in a folder of it, or in the zip files in it.

    Returns:
        by their path in that folder, sorted; empty where there is no such folder.

    Raises:
        UserError: a zip file cannot be read.
    """
    files: dict[str, RawFile] = {}
    for archive in sorted(raw.glob("*.zip")):
        for path in _open_zip(str(archive)).namelist():
            if path.startswith(f"{folder}/") and not path.endswith("/"):
                files[path.removeprefix(f"{folder}/")] = ZipMember(str(archive), path)
    for place in (*sorted(raw.glob(f"*/{folder}")), raw / folder):
        files |= {path.relative_to(place).as_posix(): path for path in place.rglob("*") if path.is_file()}
    return dict(sorted(files.items()))


@functools.lru_cache(maxsize=16)
def _open_zip(archive: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{archive}: cannot be read as a zip file ({error}); get it again") from error
