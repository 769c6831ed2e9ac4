"""Kernels, loops over arrays: compiled by numba, and kept on disk."""

import sys
from collections.abc import Callable

import numba
from numba.core import event


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


class _TellOnce(event.Listener):
    """Says once per process that the CRF's kernels are being compiled: its first call then takes long."""

    def __init__(self):
        self.told = False

    def on_start(self, event):
        if event.data["dispatcher"].__module__.startswith("deeplab_tf.crf") and not self.told:
            self.told = True
            told = "compiling the dense CRF for this machine: 10 to 20 seconds, once (kept on disk)"
            print(f"\n{told}", file=sys.stderr, flush=True)  # below a progress line

    def on_end(self, event):
        pass


event.register("numba:compile", _TellOnce())
