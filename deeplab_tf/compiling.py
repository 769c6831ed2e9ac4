"""Kernels, loops over arrays: compiled by numba, and kept on disk."""

import logging
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
    "deeplab_tf.models.winograd_kernels": "the convolutions of the training step",
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
