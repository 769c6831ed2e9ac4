"""Prepares a data set for training: raw files in, TFRecords out.

python datasets/prepare.py --dataset=shapes
python datasets/prepare.py --dataset=voc2012 --download
python datasets/prepare.py --dataset=camvid --raw_dir=CamVid
python datasets/prepare.py --dataset=image_folder/tomatoes --raw_dir=photos --class_names=classes.txt
"""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no word on missing GPUs: none is needed
sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])  # the repository, instead of this folder

from absl import app, flags  # noqa: E402

from deeplab_tf import data  # noqa: E402
from deeplab_tf.data import preparation  # noqa: E402
from deeplab_tf.errors import UserError  # noqa: E402

FLAGS = flags.FLAGS


def _define_flags() -> None:
    names = ", ".join(preparation.available())
    flags.DEFINE_string("dataset", None, f"The data set: one of {names}. Of your own: image_folder/<any name>.")
    flags.DEFINE_string("data_dir", data.catalogue.DEFAULT_DATA_DIR, "Where prepared data sets lie.")
    flags.DEFINE_string("raw_dir", None, "Folder of the raw files; datasets/<name>/README.md tells its layout.")
    flags.DEFINE_enum("on_error", "stop", ["stop", "skip"], "What to do about a bad raw file.")
    flags.DEFINE_bool("download", False, "Fetch the raw files first, where their authors allow it.")
    flags.DEFINE_bool("overwrite", False, "Prepare again what is prepared already.")
    flags.DEFINE_string("class_names", None, "image_folder: file with the name of a class a line, index 0 first.")
    flags.DEFINE_string("color_table", None, "image_folder with colour masks: file with lines 'R G B name'.")
    flags.DEFINE_string("train_list", None, "image_folder: file with the names of training images, one a line.")
    flags.DEFINE_string("val_list", None, "image_folder: file with the names of validation images, one a line.")
    flags.DEFINE_float("val_fraction", None, "image_folder without lists: share of validation images. Default 0.1.")
    flags.mark_flag_as_required("dataset")


def main(argv: list[str]) -> None:
    """Prepares the data set that the flags tell and prints what it holds."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; flags have the form --name=value")
    options = ("class_names", "color_table", "train_list", "val_list", "val_fraction")
    directory = data.prepare(
        FLAGS.dataset,
        FLAGS.data_dir,
        FLAGS.raw_dir,
        on_error=FLAGS.on_error,
        overwrite=FLAGS.overwrite,
        download=FLAGS.download,
        **{option: FLAGS[option].value for option in options},
    )
    print(preparation.describe(directory))


def _main(argv: list[str]) -> None:
    try:
        main(argv)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    _define_flags()
    app.run(_main)
