"""Packages whose names are imported when they are first used, so that importing a package is light (PEP 562)."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deeplab_tf.errors import extras_named


def exports(
    package: str, modules: Mapping[str, Sequence[str]], subpackages: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Makes `__getattr__`, `__dir__` and `__all__` of a package.

    Args:
        package: its `__name__`.
        modules: the names that it offers, by the module that each lives in.
        subpackages: names of its own subpackages that it offers as well.

    Returns:
        the three, to be assigned in the package's `__init__.py`. A name whose packages are not installed names the
        extra that installs them.
    """
    homes = {name: module for module, names in modules.items() for name in names}
    public = sorted([*homes, *subpackages])

    def get(name: str) -> Any:
        with extras_named(f"{package}.{name}"):
            if name in homes:
                return getattr(importlib.import_module(homes[name]), name)
            if name in subpackages:
                return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    def names() -> list[str]:
        return sorted({*vars(importlib.import_module(package)), *public})

    return get, names, public
