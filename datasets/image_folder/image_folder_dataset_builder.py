"""Data of your own: images and masks in folders, or polygons as labelling tools write them."""

import dataclasses
import functools
import os
import pathlib
from concurrent import futures
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from deeplab_tf.classes import IGNORE_LABEL, DatasetInfo, voc_palette
from deeplab_tf.data import class_map, masks, validation_draw
from deeplab_tf.data.builder import Example, SegmentationBuilder
from deeplab_tf.data.finding import raw_folders
from deeplab_tf.data.labelling_tools import DrawnImage, read_annotations, read_drawn
from deeplab_tf.data.raw import FilePair, content, is_image, pair_files, pair_folders, read_pair
from deeplab_tf.errors import UserError

_DEFAULT_VAL_FRACTION = 0.1
_LAYOUTS = (
    "images/ and masks/, LabelMe .json beside images, a COCO .json, or annotations.xml of CVAT "
    "(datasets/image_folder/README.md)"
)


def _read(item: FilePair | DrawnImage) -> Example:
    return read_drawn(item) if isinstance(item, DrawnImage) else read_pair(item)


class Builder(SegmentationBuilder, skip_registration=True):
    """Images and masks, or polygons, of your own."""

    name = "image_folder"
    OPTIONS = (
        *("class_names", "color_table", "class_map", "ignore_label"),
        *("train_list", "val_list", "val_fraction", "split_seed"),
    )
    read = staticmethod(_read)

    @classmethod
    def config_named(cls, name: str) -> tfds.core.BuilderConfig | None:
        """Any name: users call their data what they like."""
        return tfds.core.BuilderConfig(name=name) if name else None

    def catalogue_info(self) -> DatasetInfo:
        """The classes that the user gave, or those of the polygons."""
        class_names, palette = self._classes
        return DatasetInfo(self.full_name, class_names, palette)

    def pairs(self) -> dict[str, list[FilePair | DrawnImage]]:
        """Pairs of image and mask, or images and polygons, split by lists, by folders or by classes."""
        items = self._found
        for _, images, _, kinds in self._annotations:
            self.notes.append(f"{len(images)} images with annotations of {' and '.join(kinds)}")
        if unannotated := self._unannotated():
            self.notes.append(f"{unannotated} images have no annotation and are left out")
        return {split: [items[name] for name in names] for split, names in self._split(items).items()}

    def check_counts(self, counts: dict[str, np.ndarray]) -> None:
        """Refuses masks that hold nothing but 0 and 255: people who paint them so do not mean to ignore the 255."""
        total = sum(counts.values())
        if set(np.flatnonzero(total)) == {0, 255} and self.catalogue_info().num_classes > 1 and not self._drawn:
            raise UserError(
                f"{self.raw_dir}: all masks hold only 0 and 255, and 255 means 'no label'; if it is your second "
                "class, give --class_map with the lines 'background = 0' and '<its name> = 255'"
            )

    @functools.cached_property
    def _annotations(self) -> list[tuple[pathlib.Path, list[DrawnImage], list[str], list[str]]]:
        """Of each raw folder without masks: its annotated images, their labels, and the kinds of files."""
        found = [(folder, *read_annotations(folder)) for folder in self._folders if not pair_folders(folder)]
        return [of_folder for of_folder in found if of_folder[1]]

    @functools.cached_property
    def _folders(self) -> list[pathlib.Path]:
        if self.raw_dir is None:
            raise UserError(f"dataset {self.full_name!r} needs --raw_dir: a folder, or several with commas: {_LAYOUTS}")
        for folder in (folders := raw_folders(self.raw_dir)):
            if not folder.is_dir():
                raise UserError(f"--raw_dir={folder}: no such folder")
        return folders

    @property
    def _drawn(self) -> bool:
        return bool(self._annotations)

    @functools.cached_property
    def _classes(self) -> tuple[tuple[str, ...], np.ndarray]:
        """Names and colours of the classes."""
        if self._map is not None:
            return self._map.class_names, voc_palette(len(self._map.class_names))
        if self._table is not None:
            return self._table.class_names, self._table.palette
        names = self._old_names
        if names is None and self._drawn:
            labels = [label for _, _, labels, _ in self._annotations for label in labels]
            special = (*class_map.BACKGROUNDS, *masks.VOID, "__ignore__")
            names = ("background", *dict.fromkeys(label for label in labels if label.lower() not in special))
        if names is None:
            raise UserError(
                f"dataset {self.full_name!r} needs --class_names: a file with the name of one class a line, the first "
                "that of index 0; or --color_table for colour masks, with lines 'R G B name'; or --class_map"
            )
        return names, voc_palette(len(names))

    @functools.cached_property
    def _table(self) -> masks.ColorTable | None:
        path = self.options.get("color_table")
        return None if path is None else masks.read_color_table(path)

    @functools.cached_property
    def _old_names(self) -> tuple[str, ...] | None:
        """The classes as the masks have them, before the class map."""
        if self._table is not None:
            return self._table.class_names
        path = self.options.get("class_names")
        return None if path is None else masks.read_class_names(path)

    @functools.cached_property
    def _map(self) -> class_map.ClassMap | None:
        path = self.options.get("class_map")
        return None if path is None else class_map.read_class_map(path)

    @functools.cached_property
    def _found(self) -> dict[str, FilePair | DrawnImage]:
        """All items by their names without suffix, unique over all raw folders."""
        common = pathlib.Path(os.path.commonpath(self._folders))
        annotated = {folder: images for folder, images, _, _ in self._annotations}
        found: dict[str, FilePair | DrawnImage] = {}
        for folder in self._folders:
            items = self._drawn_images(annotated[folder]) if folder in annotated else self._mask_pairs(folder)
            if not items:
                inside = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
                raise UserError(f"--raw_dir={folder}: found {inside} in it, expected {_LAYOUTS}")
            prefix = folder.relative_to(common).as_posix()
            for item in items:
                name = item.name if prefix == "." else f"{prefix}/{item.name}"
                stem = pathlib.PurePosixPath(name).with_suffix("").as_posix()
                if stem in found:
                    item = dataclasses.replace(
                        item, problem=f"{name}: there are two images or annotations of this name"
                    )
                    stem = name
                found[stem] = dataclasses.replace(item, name=name)
        return found

    def _mask_pairs(self, folder: pathlib.Path) -> list[FilePair]:
        """Images and mask files of a folder; names below it, without the folders of images."""
        decode = functools.partial(
            class_map.read_mapped_mask, table=self._table, values=self._values, num_classes=len(self._classes[0])
        )
        items = []
        for images, mask_files in pair_folders(folder):
            prefix = images.parent.relative_to(folder) if images != folder else pathlib.PurePath()
            for pair in pair_files(images, mask_files, decode=decode).values():
                items.append(dataclasses.replace(pair, name=(prefix / pair.name).as_posix()))
        return items

    @functools.cached_property
    def _values(self) -> np.ndarray | None:
        """int16 [256], the class of each value of a mask; None where they are the classes."""
        ignored = self.options.get("ignore_label")
        if ignored is not None and self._table is not None:
            raise UserError(
                "--ignore_label: masks in colours have none; give a colour the name 'ignore' in --color_table"
            )
        if self._map is None and ignored is None:
            return None
        values = np.arange(256, dtype=np.int16) if self._map is None else self._map.of_values(self._old_names)
        if ignored is not None and ignored < len(values):
            values[ignored] = IGNORE_LABEL
        return values

    def _drawn_images(self, images: list[DrawnImage]) -> list[DrawnImage]:
        """Annotated images with the class of each label and of what is outside."""
        if self._map is not None:
            if "class_names" in self.options:
                raise UserError("--class_names: --class_map names the classes of polygons already; give one of them")
            mentioned = [name for name in class_map.BACKGROUNDS if name in self._map.indices]
            if not mentioned:
                raise UserError(
                    f"{self._map.source}: says nothing of 'background', the pixels outside all polygons; add the line "
                    "'background', or 'ignore = background'"
                )
            outside = self._map.indices[mentioned[0]]
            index_of, advice = self._map.index, self._map.unmapped
        else:
            names = self._classes[0]
            indices = {name: index for index, name in enumerate(names)}
            outside = next((indices[name] for name in class_map.BACKGROUNDS if name in indices), IGNORE_LABEL)
            special = dict.fromkeys(class_map.BACKGROUNDS, outside) | dict.fromkeys(
                (*masks.VOID, "__ignore__"), IGNORE_LABEL
            )
            index_of = lambda label: indices.get(label, special.get(label.lower()))  # noqa: E731
            advice = lambda label: (  # noqa: E731
                f"{label!r} is not in {self.options.get('class_names')}; add it there, or give --class_map to merge or "
                "drop classes"
            )
        return [image.classified(index_of, outside, advice) for image in images]

    def _unannotated(self) -> int:
        """Number of images beside LabelMe's files that have none."""
        count = 0
        for folder, images, _, kinds in self._annotations:
            if kinds == ["LabelMe"]:
                with_one = {str(image.image) for image in images}
                count += sum(str(path) not in with_one for path in folder.rglob("*") if is_image(path))
        return count

    def _split(self, items: dict[str, Any]) -> dict[str, list[str]]:
        """Names of each split: by lists, by folders called train and val, or drawn."""
        names = list(items)
        lists = {split: self._listed(f"{split}_list", names) for split in ("train", "val")}
        if lists["train"] is not None or lists["val"] is not None:
            for split, other in (("train", "val"), ("val", "train")):
                if lists[split] is None:
                    lists[split] = sorted(set(names) - set(lists[other]))
            both = sorted(set(lists["train"]) & set(lists["val"]))
            if both:
                raise UserError(f"{self.options['val_list']}: {both[0]!r} is in {self.options['train_list']} as well")
            return {split: members for split, members in lists.items() if members}
        by_folder: dict[str | None, list[str]] = {}
        for name in names:
            by_folder.setdefault(validation_draw.split_named(name), []).append(name)
        if None in by_folder or "train" not in by_folder or "val_fraction" in self.options:
            by_folder = {"train": sorted(names)}
        else:
            self.notes.append(f"split by the folders called {', '.join(by_folder)}")
        if "val" not in by_folder:
            by_folder["val"] = self._drawn_validation({name: items[name] for name in by_folder["train"]})
            by_folder["train"] = sorted(set(by_folder["train"]) - set(by_folder["val"]))
        return {split: sorted(members) for split, members in by_folder.items() if members}

    def _drawn_validation(self, items: dict[str, Any]) -> list[str]:
        fraction, seed = (
            float(self.options.get("val_fraction", _DEFAULT_VAL_FRACTION)),
            int(self.options.get("split_seed", 0)),
        )
        if not 0 <= fraction < 1 or (fraction and len(items) < 2):
            raise UserError(
                f"--val_fraction={fraction} of {len(items)} images leaves nothing to train on; expected at least "
                "0 and less than 1"
            )
        with futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            classes = dict(zip(items, pool.map(_classes_in, items.values()), strict=True)) if fraction else {}
        drawn = validation_draw.draw_validation(classes, fraction, seed)
        if drawn:
            self.notes.append(
                f"{len(drawn)} of {len(items)} images are drawn to validate on, by their classes "
                f"(--val_fraction={fraction:g} --split_seed={seed}); --val_list=FILE chooses others"
            )
        return drawn

    def _listed(self, option: str, names: list[str]) -> list[str] | None:
        """The names in a list file, which may have suffixes."""
        path = self.options.get(option)
        if path is None:
            return None
        known, listed = set(names), []
        for line in masks.read_names(path):
            name = line if line in known else pathlib.PurePosixPath(line).with_suffix("").as_posix()
            if name not in known:
                raise UserError(f"{path}: names {line!r}, which is not in {self.raw_dir}")
            listed.append(name)
        return sorted(set(listed))


def _classes_in(item: FilePair | DrawnImage) -> set[int]:
    """The classes that an image shows; none where its mask cannot be read, which is said when it is prepared."""
    if item.problem:
        return set()
    if isinstance(item, DrawnImage):
        return item.classes - {IGNORE_LABEL}
    try:
        indices = item.decode(content(item.mask), str(item.mask)).indices
    except UserError:
        return set()
    return set(np.flatnonzero(np.bincount(indices.ravel(), minlength=256)).tolist()) - {IGNORE_LABEL}
