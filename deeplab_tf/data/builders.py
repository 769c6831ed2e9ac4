"""The builders of the repository's `datasets/` folder, importable as `deeplab_tf.data.builders.<name>...`.

That folder is no installed package: its name belongs to another library. It is made the path of this module instead, so
that builders can be imported, and what they hand to Beam's workers can be pickled, wherever `deeplab_tf` is installed
from a clone.
"""

import importlib
import pathlib

from deeplab_tf.errors import UserError

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "datasets"
__path__ = [str(FOLDER)]


def available() -> list[str]:
    """Names of the data sets that have a builder."""
    return sorted(path.parent.name for path in FOLDER.glob("*/*_dataset_builder.py"))


def builder_class(name: str) -> type:
    """The builder of a data set.

    Raises:
        UserError: there is none.
    """
    if not FOLDER.is_dir():
        raise UserError(
            f"dataset {name!r} cannot be prepared: the builders come with the repository, in datasets/, and {FOLDER} "
            "does not exist; install from a clone with pip install -e ."
        )
    if name not in available():
        raise UserError(f"no dataset {name!r}; there are {', '.join(available())}")
    return importlib.import_module(f"{__name__}.{name}.{name}_dataset_builder").Builder
