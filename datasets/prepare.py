"""Prepares a data set for training: raw files in, TFRecords out.

python datasets/prepare.py --dataset=shapes
python datasets/prepare.py --dataset=voc2012 --download
python datasets/prepare.py --dataset=camvid --raw_dir=CamVid
python datasets/prepare.py --dataset=image_folder/tomatoes --raw_dir=photos --class_names=classes.txt
"""

import pathlib
import sys

sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])  # the repository, instead of this folder

from deeplab_tf import flags  # noqa: E402
from deeplab_tf.flags import FLAGS  # noqa: E402


def main() -> None:
    """Prepares the data set that the flags tell and prints what it holds."""
    from deeplab_tf import data
    from deeplab_tf.data import preparation

    directory = data.prepare(
        FLAGS.dataset,
        FLAGS.data_dir,
        FLAGS.raw_dir,
        overwrite=FLAGS.overwrite,
        beam_pipeline_options=FLAGS.beam_pipeline_options,
        **flags.prepare_options(),
    )
    print(preparation.describe(directory))
    if FLAGS.summarize:
        from deeplab_tf.data.summary import summarize

        print(f"\n{summarize(directory)}")


if __name__ == "__main__":
    flags.run(main, topics=("data", "prepare", "conversion"))
