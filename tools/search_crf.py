"""Searches the CRF's parameters for a trained model on validation images, coarse to fine (Sec. 4.1 of the paper).

python tools/search_crf.py --model_dir=runs/voc
python tools/search_crf.py --model_dir=runs/voc --limit=20 --checkpoint=best

Takes the first 100 images of --val_split (--limit). Writes to --model_dir: crf.json, which evaluate.py --crf and
predict.py --crf pick up, the table crf_search.csv, and a heat map, crf_search.png. Interrupted and started again, it
goes on where it was.
"""

import shlex

from deeplab_tf import flags
from deeplab_tf.flags import FLAGS


def main() -> None:
    """Searches, and prints the best parameters."""
    from deeplab_tf import data
    from deeplab_tf.data.catalogue import read_info
    from deeplab_tf.evaluation import check_classes
    from deeplab_tf.evaluation.crf_search import IMAGES, search_crf
    from deeplab_tf.inference import Segmenter

    segmenter = Segmenter.load(FLAGS.model_dir, **flags.inference_options())
    directory = data.prepared_directory(FLAGS.dataset, FLAGS.data_dir)
    check_classes(segmenter.class_names, read_info(directory).class_names, f"--dataset={FLAGS.dataset}")
    examples = data.evaluation_pipeline(directory, FLAGS.val_split, limit=FLAGS.limit or IMAGES)
    result = search_crf(segmenter, examples, FLAGS.model_dir, dataset=FLAGS.dataset, split=FLAGS.val_split)
    best = result.best.crf
    print(f"mean IoU   {100 * result.without_crf:.2f} without CRF, {100 * result.best.mean_iou:.2f} with the best")
    print(
        f"best       w1 {best.bilateral_weight:g}, sigma_alpha {best.bilateral_spatial_std:g} pixels, "
        f"sigma_beta {best.bilateral_color_std:g}, of {len(result.trials)} on {len(examples)} images"
    )
    print(f"written    crf.json, crf_search.csv and crf_search.png in {FLAGS.model_dir}")
    print(f"next       python evaluate.py {shlex.quote(f'--model_dir={FLAGS.model_dir}')} --crf")


if __name__ == "__main__":
    flags.run(main, "tools/search_crf.py", required=("model_dir",), of_a_run=True, writes=("model_dir",))
