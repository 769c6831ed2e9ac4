"""Pickles that strangers made: an unpickler that builds data, and runs no code of a file."""

import pickle
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

# What NumPy pickles its arrays and numbers with, under the names of NumPy 1 and 2.
ARRAYS = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype} | {
    (f"numpy.{core}.{maker.__module__.rpartition('.')[2]}", maker.__name__): maker
    for maker in (np.zeros(1).__reduce__()[0], np.float32(0).__reduce__()[0], np.zeros(1).__reduce_ex__(5)[0])
    for core in ("core", "_core")
}


class DataUnpickler(pickle._Unpickler):
    """Builds numbers, text, containers of these and what `known` names, and refuses everything else.

    The one in Python: in C, a few bytes (LONG_BINPUT) make the table of what was met before as large as the memory.

    Attributes:
        known: what builds the further kinds of objects, by the module and the name that a pickle gives.
        expected: all that may be in the file, in words.
    """

    known: ClassVar[Mapping[tuple[str, str], Any]] = {}
    expected = "plain data"

    def find_class(self, module: str, name: str) -> Any:
        """The object of a name in a pickle; everything that the pickle calls comes from here."""
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"it refers to {f'{module}.{name}'[:80]}; expected {self.expected} alone")
        return self.known[module, name]
