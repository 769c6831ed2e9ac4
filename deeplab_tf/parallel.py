"""Several cores at the same time: pieces of work that release the interpreter lock, on plain threads."""

import collections
import concurrent.futures
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.lru_cache(maxsize=1)
def _pool(process: int) -> concurrent.futures.ThreadPoolExecutor:
    # numba's own thread pools either do not survive a fork or end the process when two Python threads enter at once.
    # Plain threads that run kernels without the interpreter lock do neither; a forked child makes itself new ones.
    return concurrent.futures.ThreadPoolExecutor(available_cores(), thread_name_prefix="kernels")


def split(count: int, pieces: int, smallest: int = 4096) -> list[tuple[int, int]]:
    """Cuts `range(count)` into at most `pieces` consecutive (start, stop), none much shorter than `smallest`."""
    pieces = max(1, min(pieces, count // smallest))
    edges = [count * piece // pieces for piece in range(pieces + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def run(work: Callable, pieces: list[tuple], threads: int) -> list:
    """Calls `work(*piece)` for every piece, on up to `threads` cores at the same time.

    Args:
        work: a function that spends its time in kernels.
        pieces: the arguments of every call.
        threads: the number of cores to use at most.

    Returns:
        the results, in the order of the pieces.
    """
    results = [None] * len(pieces)
    counter = itertools.count()

    def take_pieces():
        while (piece := next(counter)) < len(pieces):
            results[piece] = work(*pieces[piece])

    helpers = [_pool(os.getpid()).submit(take_pieces) for _ in range(min(threads, len(pieces)) - 1)]
    take_pieces()
    for helper in helpers:
        helper.result()
    return results


def in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Calls `work(item)` for items of any number, on `workers` threads, and yields the results in the items' order.

    Never more than 2 * `workers` items are started and not yet yielded, so the memory does not grow with their number.
    When the caller stops early, items that have not begun are dropped and those at work are waited for.

    Args:
        work: a function that spends its time without the interpreter lock: in kernels, decoding, reading.
        items: may be an iterator.
        workers: calls at the same time.
    """
    waiting = collections.deque()
    pool = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="items")
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) == 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
