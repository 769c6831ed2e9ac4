"""Raw files that may be unpacked or still be in zip files."""

import dataclasses
import functools
import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

from deeplab_tf.data.raw import FilePair, RawFile
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
    """The files of a folder that lies in `raw`, in a folder of it, or likewise in the zip files in `raw`.

    Returns:
        by their path in that folder, sorted; empty where there is no such folder.

    Raises:
        UserError: a zip file cannot be read.
    """
    files: dict[str, RawFile] = {}
    for archive in sorted(raw.glob("*.zip")):
        for path in _open_zip(str(archive)).namelist():
            before, found, name = f"/{path}".partition(f"/{folder}/")
            if found and before.count("/") <= 1 and name and not name.endswith("/"):
                files[name] = ZipMember(str(archive), path)
    for place in (*sorted(raw.glob(f"*/{folder}")), raw / folder):
        files |= {path.relative_to(place).as_posix(): path for path in place.rglob("*") if path.is_file()}
    return dict(sorted(files.items()))


def pairs_below(raw: pathlib.Path, images: tuple[str, str], masks: tuple[str, str], **kwargs: Any) -> list[FilePair]:
    """Pairs the images of a folder with the masks of another, see `files_below`, by their paths without endings.

    Args:
        raw: where the folders are.
        images: a folder, and the end of its images' names that the masks' do not have: ("images", ".jpg").
        masks: likewise.
        **kwargs: FilePair's.

    Returns:
        pairs in the order of their paths; also those of which one file is missing, with that as their problem. A pair
        has the name of its image. Empty where there are no images or no masks.
    """
    found_images, found_masks = (_ending_in(ending, files_below(raw, folder)) for folder, ending in (images, masks))
    if not found_images or not found_masks:
        return []
    pairs = []
    for path in sorted({*found_images, *found_masks}):
        image, mask = found_images.get(path), found_masks.get(path)
        problem = ""
        if mask is None:
            problem = f"{image}: its mask is missing; expected {masks[0]}/{path}{masks[1]}"
        elif image is None:
            problem = f"{mask}: its image is missing; expected {images[0]}/{path}{images[1]}"
        name = f"{path.rsplit('/', 1)[-1]}{images[1]}"
        pairs.append(FilePair(name, image or mask, mask or image, problem=problem, **kwargs))
    return pairs


def required_pairs(
    dataset: str, raw: pathlib.Path, images: tuple[str, str], masks: tuple[str, str], **kwargs: Any
) -> list[FilePair]:
    """`pairs_below` for folders that a data set cannot be without.

    Raises:
        UserError: there are no images or no masks.
    """
    pairs = pairs_below(raw, images, masks, **kwargs)
    if not pairs:
        raise UserError(
            f"--raw_dir={raw}: has no {'/*'.join(images)} and {'/*'.join(masks)}, unpacked or in zip files; datasets/"
            f"{dataset}/README.md tells where to get them"
        )
    return pairs


def images_below(raw: pathlib.Path, folder: str, ending: str) -> list[FilePair]:
    """The images of a folder, see `files_below`, that have no masks."""
    return [FilePair(file.name, file, None) for file in _ending_in(ending, files_below(raw, folder)).values()]


def _ending_in(ending: str, files: Mapping[str, RawFile]) -> dict[str, RawFile]:
    """The files whose paths end so, by their paths without it."""
    return {path.removesuffix(ending): file for path, file in files.items() if path.endswith(ending)}


@functools.lru_cache(maxsize=64)
def _open_zip(archive: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{archive}: cannot be read as a zip file ({error!s:.200}); get it again") from error
