"""Finding the builder of a data set, `datasets/<name>/<name>_dataset_builder.py` of the repository, and raw folders.

That folder is not an installed package: its name belongs to another library.
"""

import importlib.util
import os
import pathlib
import sys
import threading

from deeplab_tf.errors import UserError

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "datasets"
_loading = threading.Lock()  # Beam's workers ask from many threads


def available_datasets() -> list[str]:
    """Names of the data sets that have a builder."""
    return sorted(path.parent.name for path in FOLDER.glob("*/*_dataset_builder.py"))


def find_builder(name: str) -> type:
    """The builder of a data set, a `SegmentationBuilder`.

    Raises:
        UserError: no such data set has a builder.
    """
    if not FOLDER.is_dir():
        raise UserError(
            f"dataset {name!r} cannot be prepared: the builders come with the repository, in datasets/, and {FOLDER} "
            "does not exist; install from a clone with pip install -e ."
        )
    if name not in available_datasets():
        raise UserError(f"no dataset {name!r}; there are {', '.join(available_datasets())}")
    module_name = f"deeplab_tf_datasets_{name}"
    with _loading:
        if module_name not in sys.modules:
            sys.modules[module_name] = module = _module(module_name, FOLDER / name)
            try:
                module.__spec__.loader.exec_module(module)
            except BaseException:
                del sys.modules[module_name]
                raise
        return sys.modules[module_name].Builder


def raw_folders(raw_dir: str) -> list[pathlib.Path]:
    """The folders that --raw_dir names: one, or several with commas between them; absolute."""
    whole = pathlib.Path(raw_dir).expanduser()
    folders = [whole] if whole.exists() else [pathlib.Path(part.strip()).expanduser() for part in raw_dir.split(",")]
    return [pathlib.Path(os.path.abspath(folder)) for folder in folders]


def _module(module_name: str, folder: pathlib.Path):
    """The module of a builder, not executed yet; the other files of its folder are its submodules."""
    path = folder / f"{folder.name}_dataset_builder.py"
    spec = importlib.util.spec_from_file_location(module_name, path, submodule_search_locations=[str(folder)])
    return importlib.util.module_from_spec(spec)
