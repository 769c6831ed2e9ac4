"""Contents of a data set: its classes, their colours, the ignore label and the sizes of its splits.

A prepared data set is a folder `<data_dir>/<name>[/<configuration>]/<version>` that tensorflow-datasets wrote: TFRecord
files, `dataset_info.json` (the splits) and `metadata.json` (the classes). It is read here as it lies on disk, without
tensorflow-datasets and without the code that built it.
"""

import json
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from deeplab_tf import classes, files
from deeplab_tf.classes import DatasetInfo
from deeplab_tf.errors import UserError

_log = logging.getLogger(__name__)

DEFAULT_DATA_DIR = "~/tensorflow_datasets"
# Of what the builders write. Since 2.0.0 photographs are upright and of 8 bits, JPEG or PNG.
PREPARED_VERSION = "2.0.0"
_COUNTS_FILE = "class_counts.json"


def _known(name: str, class_names: Sequence[str], splits: dict[str, int], palette: Sequence | None = None):
    colors = classes.voc_palette(len(class_names)) if palette is None else np.array(palette, np.uint8)
    return DatasetInfo(name, tuple(class_names), colors, splits=splits)


KNOWN = {
    known.name: known
    for known in (
        _known("shapes", classes.SHAPES, {"train": 400, "val": 100}),
        _known(
            "voc2012",
            classes.VOC,
            {
                "train": 1464,
                "val": 1449,
                "aug": 9118,
                "test": 1456,
                "trainaug": 10582,
                "trainval": 2913,
                "trainvalaug": 12031,
            },
        ),
        _known("pascal_context", classes.PASCAL_CONTEXT, {"train": 4998, "val": 5105}),
        _known("pascal_context/59", classes.PASCAL_CONTEXT[1:], {"train": 4998, "val": 5105}),
        _known("person_part", ("background", *classes.PERSON_PARTS), {"train": 1716, "val": 1817}),
        _known("cityscapes", classes.CITYSCAPES, {"train": 2975, "val": 500, "test": 1525}, classes.CITYSCAPES_PALETTE),
        _known(
            "cityscapes/coarse",
            classes.CITYSCAPES,
            {"train": 2975, "train_extra": 19998, "val": 500},
            classes.CITYSCAPES_PALETTE,
        ),
        # Of 2017; of 2014 where only they are there.
        _known("coco/all", classes.COCO, {"train": 118287, "val": 5000}),
        _known("coco/2014", classes.COCO, {"train": 82783, "val": 40504}),
        # At most so many: images with few labelled pixels are left out.
        _known("coco/things", classes.COCO, {"train": 118287, "val": 5000}),
        _known("coco/ids", classes.COCO_IDS, {"train": 118287, "val": 5000}),
        _known("coco/voc", classes.VOC, {"train": 118287, "val": 5000}),
        _known("cocostuff/164k", classes.COCO_STUFF, {"train": 118287, "val": 5000}),
        _known("cocostuff/10k", classes.COCO_STUFF, {"train": 9000, "test": 1000}),
        _known("gta5", classes.CITYSCAPES, {"train": 24966}, classes.CITYSCAPES_PALETTE),
        _known("synthia", classes.CITYSCAPES, {"train": 9400}, classes.CITYSCAPES_PALETTE),
        _known("bdd100k", classes.CITYSCAPES, {"train": 7000, "val": 1000, "test": 2000}, classes.CITYSCAPES_PALETTE),
        _known("ade20k", classes.ADE20K, {"train": 20210, "val": 2000}, classes.ADE20K_PALETTE),
        _known(
            "mapillary_vistas",
            classes.MAPILLARY,
            {"train": 18000, "val": 2000, "test": 5000},
            classes.MAPILLARY_PALETTE,
        ),
        _known("camvid", classes.CAMVID, {"train": 367, "val": 101}, classes.CAMVID_PALETTE),
    )
}


def info(name: str, data_dir: str | os.PathLike | None = None) -> DatasetInfo:
    """Tells what a data set holds.

    Args:
        name: "shapes", "camvid", "image_folder/mine", ...
        data_dir: where prepared data sets lie. When `name` is prepared there, what is written there is returned;
            without it, the catalogue's own knowledge.

    Raises:
        UserError: `name` is neither prepared in `data_dir` nor known.
    """
    directory = find_prepared(name, data_dir) if data_dir is not None else None
    if directory is not None:
        return read_info(directory)
    if name in KNOWN:
        return KNOWN[name]
    if data_dir is None:
        raise UserError(
            f"dataset {name!r} is not in the catalogue (which has {', '.join(KNOWN)}); for a data set of your own give "
            "the data_dir where it is prepared"
        )
    raise UserError(_not_prepared(name, data_dir))


def prepared_directory(name: str, data_dir: str | os.PathLike | None = None) -> str:
    """Finds the version directory of a prepared data set.

    Args:
        name: "shapes", "camvid", "image_folder/mine", ...
        data_dir: where prepared data sets lie; None is `~/tensorflow_datasets`.

    Raises:
        UserError: it is not prepared there. The message tells the command that prepares it.
    """
    directory = find_prepared(name, data_dir)
    if directory is None:
        raise UserError(_not_prepared(name, data_dir))
    warn_if_outdated(directory)
    return directory


def warn_if_outdated(directory: str | os.PathLike) -> None:
    """Warns where a data set was prepared by an earlier version, otherwise than it would be today."""
    if _version(directory) < _version(PREPARED_VERSION):
        _log.warning(
            "%s: prepared by an earlier version, which did not turn photographs as their EXIF orientation says and "
            "made 16-bit TIFFs white; if there are any among them, prepare it again with --overwrite",
            directory,
        )


def resolved_data_dir(data_dir: str | os.PathLike | None) -> pathlib.Path:
    """`data_dir` with the default filled in and `~` expanded."""
    return pathlib.Path(data_dir or DEFAULT_DATA_DIR).expanduser()


def check_name(name: str) -> None:
    """Checks that a data set's name is a name, or two with a slash between them: folders in the data_dir.

    Raises:
        UserError: it is not.
    """
    parts = name.split("/")
    if len(parts) > 2 or not all(part.isprintable() and part == part.strip(" .") and part for part in parts):
        raise UserError(
            f"dataset {name!r}: expected a name, or a name and a configuration such as 'image_folder/mine', none of "
            "them empty or beginning with a dot"
        )


def find_prepared(name: str, data_dir: str | os.PathLike | None = None) -> str | None:
    """The newest version directory of `name` under `data_dir`, or None."""
    check_name(name)
    base = resolved_data_dir(data_dir) / name
    versions = [path.parent for path in base.glob("*/dataset_info.json")]
    if not versions:
        return None
    return str(max(versions, key=_version))


def _version(directory: str | os.PathLike) -> tuple[int, ...]:
    return tuple(int(part) for part in pathlib.Path(directory).name.split(".") if part.isdigit())


def read_info(directory: str | os.PathLike) -> DatasetInfo:
    """Reads what a prepared data set holds from its version directory.

    Raises:
        UserError: the directory was not written by `datasets/prepare.py`.
    """
    directory = pathlib.Path(directory)
    metadata = read_metadata(directory)
    splits = json.loads((directory / "dataset_info.json").read_text(encoding="utf-8"))["splits"]
    sizes = {split["name"]: sum(int(length) for length in split["shardLengths"]) for split in splits}
    for union, parts in metadata["unions"].items():
        if all(part in sizes for part in parts):
            sizes[union] = sum(sizes[part] for part in parts)
    return DatasetInfo.from_json(metadata, sizes)


def write_class_counts(directory: str | os.PathLike, counts: Mapping[str, np.ndarray], num_classes: int) -> None:
    """Writes `class_counts.json` beside the records: the number of pixels of each class, by split."""
    by_split = {split: pixels[:num_classes].tolist() for split, pixels in counts.items()}
    files.write_json(pathlib.Path(directory) / _COUNTS_FILE, by_split)


def read_class_counts(directory: str | os.PathLike, split: str) -> list[int] | None:
    """The number of pixels of each class in a split, or in several joined by "+"; None where it was not counted."""
    try:
        content = json.loads((pathlib.Path(directory) / _COUNTS_FILE).read_text(encoding="utf-8"))
        unions = read_metadata(directory)["unions"]
        parts = [part for name in split.split("+") for part in unions.get(name, [name])]
        return np.sum([content[part] for part in parts], axis=0, dtype=np.int64).tolist()
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None


def read_metadata(directory: str | os.PathLike) -> dict:
    """The `metadata.json` of a prepared data set."""
    path = pathlib.Path(directory) / "metadata.json"
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        metadata["class_names"], metadata["unions"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: cannot be read as the metadata of a prepared data set ({error!s:.200}); prepare it with "
            "python datasets/prepare.py"
        ) from error
    return metadata


def _not_prepared(name: str, data_dir: str | os.PathLike | None) -> str:
    return (
        f"dataset {name!r} is not prepared in {resolved_data_dir(data_dir)}; run: python datasets/prepare.py "
        f"--dataset={name} --data_dir={resolved_data_dir(data_dir)}"
        + ("" if name == "shapes" else " --raw_dir=<the raw files>")
    )
