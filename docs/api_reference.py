"""Writes the API reference, HTML pages made from the docstrings by pdoc (pip install -e '.[docs]').

python docs/api_reference.py
python docs/api_reference.py --output_dir=public/api
"""

import importlib
import os
import pathlib
import shutil

import deeplab_tf
from deeplab_tf import errors, files, flags
from deeplab_tf.flags import FLAGS

DEFAULT = pathlib.Path(__file__).parent / "api"
# The public packages, and the modules of each that have a page beside what the package itself offers.
PACKAGES = {
    "deeplab_tf": ("classes", "counts", "errors", "files", "parallel", "pictures", "run_folder", "stopping"),
    "deeplab_tf.crf": ("layers", "pydensecrf"),
    "deeplab_tf.crf.pydensecrf": (),
    "deeplab_tf.data": ("augmentation", "builder"),
    "deeplab_tf.evaluation": ("trimap",),
    "deeplab_tf.inference": ("coco", "polygons", "predicting", "stream", "video"),
    "deeplab_tf.models": ("atrous", "folded", "geometry", "heads", "preprocessing"),
    "deeplab_tf.serving": (),
    "deeplab_tf.training": (),
    "deeplab_tf.weights": (),
}


def write(folder: pathlib.Path) -> None:
    """Writes the pages, `index.html` and all others, in place of those that an earlier call wrote.

    Args:
        folder: for the pages alone; it appears when it is whole.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    import pdoc

    pages = {"deeplab_tf", "deeplab_tf.html", "index.html", "search.js"}
    if folder.exists() and not (folder.is_dir() and {path.name for path in folder.iterdir()} <= pages):
        raise errors.UserError(f"--output_dir={folder} holds other things than an API reference; name another folder")
    for name, modules in PACKAGES.items():
        offer(name, modules)
    pdoc.render.configure(docformat="google", footer_text=f"deeplab_tf {deeplab_tf.__version__}")
    aside, old = (folder.with_name(f".{folder.name}.{files.process_name()}.{kind}part") for kind in ("", "old."))
    with files.writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        files.remove_remains(folder.parent)
        try:
            pdoc.pdoc("deeplab_tf", output_directory=aside)
            if folder.exists():
                os.replace(folder, old)
            os.replace(aside, folder)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def offer(name: str, modules: tuple[str, ...]) -> None:
    """Makes what a package offers visible to pdoc, which sees neither lazy names nor modules outside `__all__`."""
    package = importlib.import_module(name)
    for module in modules:
        importlib.import_module(f"{name}.{module}")
    package.__all__ = list(dict.fromkeys([*package.__all__, *modules]))
    vars(package).update({member: getattr(package, member) for member in package.__all__})


def main() -> None:
    """Writes the reference and says where it is."""
    folder = pathlib.Path(FLAGS.output_dir or DEFAULT).expanduser().absolute()
    write(folder)
    print(f"written    {folder / 'index.html'}")


if __name__ == "__main__":
    flags.run(main, "docs/api_reference.py", writes=("output_dir",))
