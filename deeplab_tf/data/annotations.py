"""Untrusted files that C libraries read: MATLAB files (SciPy) and COCO's segmentations (pycocotools).

Both libraries can end the process on hostile input. What is handed to them is checked first, and they run in worker
processes: the death of one is an error that names the file. This module is what the workers import: NumPy alone.
"""

import concurrent.futures
import contextlib
import functools
import io
import math
import multiprocessing
import multiprocessing.util
import os
import pathlib
import threading
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np

from deeplab_tf.errors import UserError
from deeplab_tf.parallel import available_cores
from deeplab_tf.pictures import LONGEST_SIDE

_MOST_MEMORY = 2 << 30  # bytes, that a worker may take: a file of few bytes can ask for all there is
_alone = threading.Lock()


def read_mat(data: bytes, source: str, variable: str, *fields: str) -> Any:
    """A variable of a MATLAB file, or a field of it; structs are objects with attributes.

    Raises:
        UserError: it cannot be read, or has no such variable or field.
    """
    try:
        return _in_worker(source, _load_mat, data, variable, fields)
    except (KeyError, AttributeError):
        wanted = ".".join([variable, *fields])
        raise UserError(f"{source}: a MATLAB file without {wanted}; expected one of this data set") from None
    except UserError:
        raise
    except Exception as error:  # SciPy raises many kinds for damaged files
        reason = str(error).split("\n")[0] or type(error).__name__
        raise UserError(f"{source}: cannot be read as a MATLAB file ({reason}); replace or remove it") from error


def _load_mat(data: bytes, variable: str, fields: tuple[str, ...]) -> Any:
    import scipy.io

    content = scipy.io.loadmat(io.BytesIO(data), squeeze_me=True, struct_as_record=False)
    return functools.reduce(getattr, fields, content[variable])


def draw_segmentations(segmentations: list[Any], height: int, width: int, source: str) -> list[np.ndarray]:
    """The pixels of COCO's segmentations, each a list of polygons or a run-length code.

    Args:
        segmentations: as in the annotation file.
        height: of their image, pixels.
        width: pixels.
        source: the file and image, for messages.

    Returns:
        bool [height, width] each.

    Raises:
        UserError: one is not a segmentation of such an image.
    """
    if not all(isinstance(side, int) and 0 < side <= LONGEST_SIDE for side in (height, width)):
        raise UserError(f"{source}: found a size of {height} x {width}, expected whole numbers up to {LONGEST_SIDE}")
    for segmentation in segmentations:
        problem = _problem(segmentation, height, width)
        if problem:
            raise UserError(f"{source}: {problem}")
    try:
        return _in_worker(source, _draw, segmentations, height, width)
    except UserError:
        raise
    except Exception as error:  # pycocotools raises many kinds
        reason = str(error).split("\n")[0] or type(error).__name__
        raise UserError(f"{source}: a segmentation that cannot be drawn ({reason})") from error


def _problem(segmentation: Any, height: int, width: int) -> str:
    """The reason why pycocotools must not see a segmentation; empty where it may."""
    if isinstance(segmentation, list):
        for polygon in segmentation:
            is_polygon = isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
            if not is_polygon or not all(_is_coordinate(value, max(height, width)) for value in polygon):
                return "found a polygon that is not a list of x and y, at least three of each and near the image"
        return "" if segmentation else "found no polygon in a segmentation"
    counts = segmentation.get("counts") if isinstance(segmentation, dict) else None
    if not isinstance(counts, (list, str)) or segmentation.get("size") != [height, width]:
        return f"found neither polygons nor a run-length code of {height} x {width} pixels"
    if isinstance(counts, list):
        whole = all(isinstance(count, int) and count >= 0 for count in counts)
        return "" if whole and sum(counts) == height * width else "found run lengths that do not add up to the image"
    return _compressed_problem(counts, height * width)


def _compressed_problem(counts: str, pixels: int) -> str:
    """Decodes COCO's compressed run lengths as pycocotools does, without its trust in them."""
    lengths, value, shift = [], 0, 0
    for character in counts:
        group = ord(character) - 48
        if not 0 <= group < 64 or shift > 30:
            return "found a damaged run-length code"
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            value -= (1 << shift) if group & 16 else 0
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    whole = shift == 0 and all(length >= 0 for length in lengths) and sum(lengths) == pixels
    return "" if whole else "found a run-length code that does not add up to the image"


def _is_coordinate(value: Any, side: int) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and -side <= value <= 2 * side


def _draw(segmentations: list[Any], height: int, width: int) -> list[np.ndarray]:
    from pycocotools import mask as coco_masks

    drawn = []
    for segmentation in segmentations:
        code = segmentation
        if isinstance(segmentation, list):
            code = coco_masks.merge(coco_masks.frPyObjects(segmentation, height, width))
        elif isinstance(segmentation["counts"], list):
            code = coco_masks.frPyObjects(segmentation, height, width)
        drawn.append(coco_masks.decode(code).astype(bool))
    return drawn


@functools.lru_cache(maxsize=1)
def _workers(process: int) -> concurrent.futures.ProcessPoolExecutor:
    workers = _new_workers(available_cores())
    # A process of multiprocessing waits at its end for those that it started, and these wait for work: they are told
    # to end before the queue that tells them closes, at priority 10.
    multiprocessing.util.Finalize(None, workers.shutdown, exitpriority=20)
    return workers


def _new_workers(count: int) -> concurrent.futures.ProcessPoolExecutor:
    # Not forked: this process has threads.
    context = multiprocessing.get_context("spawn")
    return concurrent.futures.ProcessPoolExecutor(count, mp_context=context, initializer=_limit_memory)


def _limit_memory() -> None:
    """Makes this process run into a MemoryError before the machine is out of memory; on Linux."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # another system, or a lower limit already
        import resource

        taken = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + _MOST_MEMORY, taken + _MOST_MEMORY))


def _in_worker(source: str, function: Callable, *arguments: Any) -> Any:
    """Calls a function of this module in a worker.

    A worker that dies takes what the others have under way with it; each of those calls is then made again, alone, so
    that the one which is at fault is known.

    Raises:
        UserError: the worker died.
    """
    try:
        return _workers(os.getpid()).submit(function, *arguments).result()
    except BrokenProcessPool:
        pass
    with _alone:
        _workers.cache_clear()
        try:
            with _new_workers(1) as worker:
                return worker.submit(function, *arguments).result()
        except BrokenProcessPool:
            raise UserError(
                f"{source}: the process that read it crashed: the file is damaged, or larger than the memory; replace "
                "or remove it"
            ) from None
