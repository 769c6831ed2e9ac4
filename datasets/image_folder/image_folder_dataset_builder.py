"""Data of your own: a folder of images and a folder of masks."""

import functools
import hashlib
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from deeplab_tf.classes import DatasetInfo, voc_palette
from deeplab_tf.data import masks
from deeplab_tf.data.builder import SegmentationBuilder
from deeplab_tf.data.raw import FilePair, pair_files, read_pair, required_folder
from deeplab_tf.errors import UserError

_DEFAULT_VAL_FRACTION = 0.1


class Builder(SegmentationBuilder, skip_registration=True):
    """Images and masks of your own."""

    name = "image_folder"
    OPTIONS = ("class_names", "color_table", "train_list", "val_list", "val_fraction")
    read = staticmethod(read_pair)

    @classmethod
    def config_named(cls, name: str) -> tfds.core.BuilderConfig | None:
        """Any name: users call their data what they like."""
        return tfds.core.BuilderConfig(name=name) if name else None

    def catalogue_info(self) -> DatasetInfo:
        """The classes that the user gave."""
        name, table = self.full_name, self._color_table()
        if table is not None:
            return DatasetInfo(name, table.class_names, table.palette)
        if "class_names" not in self.options:
            raise UserError(
                f"dataset {name!r} needs --class_names: a file with the name of one class a line, the first that of "
                "index 0; or --color_table for colour masks, with lines 'R G B name'"
            )
        class_names = masks.read_class_names(self.options["class_names"])
        return DatasetInfo(name, class_names, voc_palette(len(class_names)))

    def pairs(self) -> dict[str, list[FilePair]]:
        """Pairs of images/ and masks/, split by lists or by fraction."""
        raw = required_folder(self.raw_dir, self.full_name, ("images", "masks"))
        decode = functools.partial(masks.read_mask, table=self._color_table())
        found = pair_files(raw / "images", raw / "masks", decode=decode)
        return {split: [found[name] for name in names] for split, names in self._split(list(found)).items()}

    def check_counts(self, counts: dict[str, np.ndarray]) -> None:
        """Refuses masks that hold nothing but 0 and 255: people who paint them so do not mean to ignore the 255."""
        total = sum(counts.values())
        if set(np.flatnonzero(total)) == {0, 255} and self.catalogue_info().num_classes > 1:
            raise UserError(
                f"{self.raw_dir}/masks: all masks hold only 0 and 255, and 255 means 'no label'; if it is your second "
                "class, give --color_table with the lines '0 0 0 background' and '255 255 255 <its name>'"
            )

    def _color_table(self) -> masks.ColorTable | None:
        path = self.options.get("color_table")
        return None if path is None else masks.read_color_table(path)

    def _split(self, names: list[str]) -> dict[str, list[str]]:
        """Names of the train and val split."""
        lists = {split: self._listed(f"{split}_list", names) for split in ("train", "val")}
        if lists["train"] is None and lists["val"] is None:
            fraction = float(self.options.get("val_fraction", _DEFAULT_VAL_FRACTION))
            if not 0 <= fraction < 1 or (fraction and len(names) < 2):
                raise UserError(
                    f"--val_fraction={fraction} of {len(names)} images leaves nothing to train on; expected at least "
                    "0 and less than 1"
                )
            # By a hash of the name, so that images that are added later leave the others where they were.
            drawn = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
            count = min(len(names) - 1, max(1, round(fraction * len(names)))) if fraction else 0
            lists["val"] = sorted(drawn[:count])
        for split, other in (("train", "val"), ("val", "train")):
            if lists[split] is None:
                lists[split] = sorted(set(names) - set(lists[other]))
        both = sorted(set(lists["train"]) & set(lists["val"]))
        if both:
            raise UserError(f"{self.options['val_list']}: {both[0]!r} is in {self.options['train_list']} as well")
        return {split: members for split, members in lists.items() if members}

    def _listed(self, option: str, names: list[str]) -> list[str] | None:
        """The names in a list file, which may have suffixes."""
        path = self.options.get(option)
        if path is None:
            return None
        known, listed = set(names), []
        for line in masks.read_names(path):
            name = line if line in known else pathlib.PurePosixPath(line).with_suffix("").as_posix()
            if name not in known:
                raise UserError(f"{path}: names {line!r}, which is not in {self.raw_dir}/images")
            listed.append(name)
        return sorted(set(listed))
