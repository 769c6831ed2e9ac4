"""How kernels, loops over arrays, are compiled by numba, kept on disk, and run on several cores."""

import concurrent.futures
import functools
import itertools
import logging
import os
from collections.abc import Callable

import numba
from numba.core import event

_log = logging.getLogger(__name__)


def kernel(function: Callable) -> Callable:
    """Compiles `function` to machine code on its first call, without the interpreter lock.

    The machine code is kept beside the source, or in the user's cache folder where that is read-only (numba's
    `NUMBA_CACHE_DIR` names another). Where neither can be written, every process compiles for itself.
    """
    options = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # "cannot cache function: no locator available"
        return numba.njit(cache=False, **options)(function)


# Modules whose kernels take long to compile, by the beginning of their names, and what they are for.
_SLOW_TO_COMPILE = {
    "deeplab_tf.crf": "the dense CRF",
    "deeplab_tf.training.winograd_kernels": "the convolutions of the training step",
}


class _TellOnce(event.Listener):
    """Says once per process that kernels are being compiled: the first call then takes long."""

    def __init__(self):
        self.told = set()

    def on_start(self, event):
        module = event.data["dispatcher"].__module__
        for name, purpose in _SLOW_TO_COMPILE.items():
            if module.startswith(name) and name not in self.told:
                self.told.add(name)
                _log.warning("compiling %s for this machine: 10 to 20 seconds, once (kept on disk)", purpose)

    def on_end(self, event):
        pass


event.register("numba:compile", _TellOnce())


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
