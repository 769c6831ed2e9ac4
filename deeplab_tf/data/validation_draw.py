"""The images to validate on, where the user names none: drawn by classes, the same at every call."""

import collections
import hashlib
import re
from collections.abc import Iterable, Mapping

_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def split_named(path: str) -> str | None:
    """The split that a folder in a path names ("train/a.jpg", "images/Valid/b.png"), or None."""
    folders = re.split(r"[/\\]", path.lower())[:-1]
    return next((_SPLITS[folder] for folder in folders if folder in _SPLITS), None)


def draw_validation(classes: Mapping[str, Iterable[int]], fraction: float, seed: int = 0) -> list[str]:
    """Draws images to validate on, so that rare classes are among them.

    Images are put together by the rarest class that they show, and each such group gives its share, at least one image
    of two. Within a group the order is that of a hash of the names, so that images that are added later mostly leave
    the others where they were.

    Args:
        classes: for each image the classes in it.
        fraction: of the images, in [0, 1).
        seed: another one draws others.

    Returns:
        names, sorted: fraction of the images, rounded, at least 1 and not all; none for fraction 0.
    """
    if not fraction or len(classes) < 2:
        return []
    images = collections.Counter(index for found in classes.values() for index in set(found))
    groups: dict[int, list[str]] = {}
    for name in sorted(classes, key=lambda name: _hash(name, seed)):
        rarest = min(set(classes[name]), key=lambda index: (images[index], index), default=-1)
        groups.setdefault(rarest, []).append(name)
    total = min(len(classes) - 1, max(1, round(fraction * len(classes))))
    rarest_first = sorted(groups, key=lambda index: (len(groups[index]), index))
    taken = dict.fromkeys(rarest_first, 0)
    for index in rarest_first:
        if len(groups[index]) > 1 and sum(taken.values()) < total:
            taken[index] = 1
    while sum(taken.values()) < total:  # To the group that is furthest below its share.
        taken[max(taken, key=lambda index: fraction * len(groups[index]) - taken[index])] += 1
    return sorted(name for index, count in taken.items() for name in groups[index][:count])


def _hash(name: str, seed: int) -> bytes:
    return hashlib.sha256((f"{seed}/{name}" if seed else name).encode()).digest()
