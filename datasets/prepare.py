"""Prepares a data set for training: raw files in, TFRecords out.

python datasets/prepare.py --dataset=shapes
python datasets/prepare.py --dataset=voc2012 --download
python datasets/prepare.py --dataset=camvid --raw_dir=CamVid
python datasets/prepare.py --dataset=image_folder/tomatoes --raw_dir=photos --class_names=classes.txt
"""

from deeplab_tf import flags
from deeplab_tf.flags import FLAGS


def main() -> None:
    """Prepares the data set that the flags name and prints what it holds."""
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
    flags.run(main, "datasets/prepare.py", writes=("data_dir",))
