"""Searches the CRF's parameters for a trained model on validation images, coarse to fine (Sec. 4.1 of the paper).

python tools/search_crf.py --model_dir=runs/voc
python tools/search_crf.py --model_dir=runs/voc --limit=20 --checkpoint=best

Takes the first 100 images of --val_split (--limit). Writes to --model_dir: crf.json, which evaluate.py --crf and
predict.py --crf pick up, the table crf_search.csv, and a heat map, crf_search.png. Interrupted and started again, it
goes on where it was.
"""

import collections.abc
import pathlib
import sys

sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])  # the repository, instead of this folder

from deeplab_tf import flags  # noqa: E402
from deeplab_tf.flags import FLAGS  # noqa: E402

# Validation images in the paper's search.
IMAGES = 100


class Samples(collections.abc.Sequence):
    """Images, the network's probabilities, and labels; computed when asked for, in order."""

    def __init__(self, segmenter, examples):
        self._segmenter = segmenter
        self._examples = examples
        self._next, self._iterator = 0, iter(examples)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index):
        if index < self._next:
            self._next, self._iterator = 0, iter(self._examples)
        while True:
            example = next(self._iterator)
            self._next += 1
            if self._next > index:
                break
        image = example["image"].numpy()
        return image, self._segmenter.without_crf(image).probabilities, example["label"].numpy()


def main() -> None:
    """Searches, and prints what was found."""
    import tensorflow as tf

    from deeplab_tf import crf, data
    from deeplab_tf.inference import Segmenter
    from deeplab_tf.run_folder import CHECKPOINTS, CRF_FILE
    from deeplab_tf.training.checkpoints import best_checkpoint

    model_dir = pathlib.Path(FLAGS.model_dir).expanduser()
    options = flags.inference_options()
    segmenter = Segmenter.load(model_dir, **options)
    directory = data.prepared_directory(FLAGS.dataset, FLAGS.data_dir)
    examples = data.evaluation_pipeline(directory, FLAGS.val_split, limit=FLAGS.limit or IMAGES)
    latest = tf.train.latest_checkpoint(str(model_dir / CHECKPOINTS))
    checkpoint = best_checkpoint(model_dir) if FLAGS.checkpoint == "best" else latest
    written = pathlib.Path(f"{checkpoint}.index").stat().st_mtime_ns
    result = crf.search(
        Samples(segmenter, examples),
        segmenter.info.num_classes,
        ignore_label=segmenter.info.ignore_label,
        state_dir=model_dir,
        identity=f"{checkpoint} {written} {directory} {FLAGS.val_split} {sorted(options.items())}",
    )
    result.write(model_dir)
    best = result.best.crf
    print(f"mean IoU   {100 * result.without_crf:.2f} without CRF, {100 * result.best.mean_iou:.2f} with the best")
    print(
        f"best       w1 {best.bilateral_weight:g}, sigma_alpha {best.bilateral_spatial_std:g} pixels, "
        f"sigma_beta {best.bilateral_color_std:g}, of {len(result.trials)} on {len(examples)} images"
    )
    print(f"written    {CRF_FILE}, crf_search.csv and crf_search.png in {model_dir}")
    print(f"next       python evaluate.py --model_dir={FLAGS.model_dir} --crf")


if __name__ == "__main__":
    flags.run(main, topics=("run", "data", "evaluation"), required=("model_dir",))
