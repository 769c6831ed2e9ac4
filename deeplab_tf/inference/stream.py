"""Many images through one segmenter: reading, network, CRF and writing, each while the others work on other images."""

import collections
import concurrent.futures
import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import tensorflow as tf

from deeplab_tf.counts import CRF, NETWORK
from deeplab_tf.inference.segmenter import Segmentation, Segmenter
from deeplab_tf.parallel import available_cores

Key = TypeVar("Key")
Result = TypeVar("Result")

_MOST_WORKERS = 4

# Pixels that the network gets at a time. A GPU is not filled by one photograph; a CPU is, but for small ones.
_BATCH_PIXELS = {"GPU": 2**22, "CPU": 2**17}
_MOST_IMAGES = 16


def network_batch(height: int, width: int) -> int:
    """The number of images of this size, in pixels, that go through the network together on this machine."""
    pixels = _BATCH_PIXELS["GPU" if tf.config.list_logical_devices("GPU") else "CPU"]
    return min(_MOST_IMAGES, max(1, pixels // (height * width)))


def segment_stream(
    segmenter: Segmenter,
    images: Iterable[tuple[Key, np.ndarray]],
    finish: Callable[[Key, np.ndarray, dict[str, Segmentation]], Result],
    *,
    batch_size: Callable[[int, int], int] = network_batch,
    live: bool = False,
) -> Iterator[Result]:
    """Segments images as they come.

    The network has this thread; another one reads ahead; CRF and `finish` have others. The CRF, which uses all cores by
    itself, is busy with one image at a time; without one, several images are finished at the same time. No more than
    a few images wait between two stages.

    Args:
        segmenter: with or without a CRF.
        images: (key, uint8 [H, W, 3]) of any sizes; consecutive ones of one size go through the network together.
        finish: called on another thread with the key, the image and {NETWORK: result, CRF: result}, the latter where
            there is a CRF. Nothing is computed from a result before it is asked for.
        batch_size: from the height and width of an image to the number of such images that the network takes at a time.
        live: nothing is read ahead, so that what is segmented is always the newest.

    Yields:
        what `finish` returned, in the order of the images.
    """

    def work(key: Key, image: np.ndarray, unrefined: Segmentation) -> Result:
        results = {NETWORK: unrefined}
        if segmenter.crf is not None:
            results[CRF] = segmenter.refined(image, unrefined)
        return finish(key, image, results)

    waiting = collections.deque()
    workers = 1 if segmenter.crf is not None else min(_MOST_WORKERS, available_cores())
    pool = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="finish")
    source = (item for item in images) if live else read_ahead(images)
    try:
        for batch in batches(source, batch_size):
            unrefined = segmenter.batch_without_crf(np.stack([image for _, image in batch]))
            waiting.extend(pool.submit(work, *item, result) for item, result in zip(batch, unrefined, strict=True))
            while waiting and (len(waiting) > max(workers, len(batch)) or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        source.close()


def batches(
    items: Iterable[tuple[Key, np.ndarray]], batch_size: Callable[[int, int], int]
) -> Iterator[list[tuple[Key, np.ndarray]]]:
    """Consecutive items of one image size, at most `batch_size(height, width)` of them at a time."""
    batch = []
    for item in items:
        if batch and item[1].shape != batch[0][1].shape:
            yield batch
            batch = []
        batch.append(item)
        if len(batch) >= batch_size(*item[1].shape[:2]):
            yield batch
            batch = []
    if batch:
        yield batch


def read_ahead(items: Iterable[Key], count: int = 2) -> Iterator[Key]:
    """The items, made by another thread, which is up to `count` items ahead. An error is raised in its place."""
    ready = queue.Queue(count)
    stop = threading.Event()
    end = object()

    def put(item, error) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                return ready.put((item, error), timeout=0.1)

    def read() -> None:
        try:
            for item in items:
                put(item, None)
                if stop.is_set():
                    return
            put(end, None)
        except BaseException as error:  # noqa: BLE001  raised again on the reader's side
            put(end, error)

    thread = threading.Thread(target=read, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is end:
                return
            yield item
    finally:
        stop.set()
        thread.join()
