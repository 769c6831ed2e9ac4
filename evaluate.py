"""Evaluates a trained model on a split: mean IoU and the other metrics, per class, at the original resolution.

python evaluate.py --model_dir=runs/voc
python evaluate.py --model_dir=runs/voc --crf        before and after the dense CRF
"""

import pathlib

from deeplab_tf import flags
from deeplab_tf.flags import FLAGS


def main() -> None:
    """Evaluates, prints the table, writes `<model_dir>/evaluation.json` and a few overlays."""
    from deeplab_tf import data
    from deeplab_tf.evaluation import Segmenter, evaluate_and_draw

    model_dir = pathlib.Path(FLAGS.model_dir).expanduser()
    segmenter = Segmenter.load(model_dir, crf=FLAGS.crf, **flags.inference_options())
    directory = data.prepared_directory(FLAGS.dataset, FLAGS.data_dir)
    examples = data.evaluation_pipeline(directory, FLAGS.val_split, limit=FLAGS.limit)
    evaluation = evaluate_and_draw(segmenter, examples, model_dir, pictures=FLAGS.overlays)
    print(f"{evaluation.table()}\n")
    print(f"evaluated  {evaluation.images} images of {FLAGS.dataset} {FLAGS.val_split}, {evaluation.seconds:.0f} s")
    print(f"written    evaluation.json and overlays/ in {model_dir}")


if __name__ == "__main__":
    flags.run(main, topics=("run", "data", "evaluation"), required=("model_dir",))
