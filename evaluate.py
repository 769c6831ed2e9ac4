"""Evaluates a trained model on a split: mean IoU and the other metrics, per class, at the original resolution.

python evaluate.py --model_dir=runs/voc
python evaluate.py --model_dir=runs/voc --crf                           before and after the dense CRF
python evaluate.py --model_dir=runs/voc --crf --report_dir=report       and a page with charts and pictures
python evaluate.py --model_dir=runs/voc --compare=runs/older            what changed, and whether it may be noise
python evaluate.py --model_dir=runs/voc --val_split=test --submission_dir=submission     masks for the server
"""

import pathlib

from deeplab_tf import flags
from deeplab_tf.flags import FLAGS


def main() -> None:
    """Evaluates, prints the table, writes `<model_dir>/evaluation.json`, a few overlays and what else is asked for."""
    from deeplab_tf import data
    from deeplab_tf.evaluation import Submission, evaluate_and_draw
    from deeplab_tf.inference import Segmenter

    model_dir = pathlib.Path(FLAGS.model_dir).expanduser()
    segmenter = Segmenter.load(model_dir, crf=FLAGS.crf, **flags.inference_options())
    submission = Submission(segmenter.info, FLAGS.submission_dir) if FLAGS.submission_dir else None
    directory = data.prepared_directory(FLAGS.dataset, FLAGS.data_dir)
    examples = data.evaluation_pipeline(directory, FLAGS.val_split, limit=FLAGS.limit)
    other = counts_of_the_other(examples) if FLAGS.compare else None

    evaluation = evaluate_and_draw(segmenter, examples, model_dir, pictures=FLAGS.overlays, submission=submission)
    print(f"{evaluation.table()}\n")
    print(f"evaluated  {evaluation.images} images of {FLAGS.dataset} {FLAGS.val_split}, {evaluation.seconds:.0f} s")
    print(f"written    evaluation.json and overlays/ in {model_dir}")
    if submission:
        print(f"           {evaluation.images} masks for the server in {submission.folder}")
    if FLAGS.report_dir:
        print(f"           {report(evaluation, segmenter, examples)}, the report")
    if other:
        from deeplab_tf.evaluation import compare

        comparison = compare(evaluation.image_counts, other)
        print(f"\n{comparison.table(FLAGS.model_dir, FLAGS.compare)}")


def report(evaluation, segmenter, examples) -> pathlib.Path:
    """Writes the report to --report_dir."""
    from deeplab_tf.evaluation import write_report

    model = segmenter.model
    settings = {
        "data": f"{FLAGS.dataset} {FLAGS.val_split}",
        "network": f"{model.backbone}, {model.head}, output stride {model.output_stride}",
        "scales": ", ".join(f"{scale:g}" for scale in segmenter.scales)
        + (", mirrored too" if segmenter.mirror else ""),
    }
    title = f"{FLAGS.model_dir} on {FLAGS.dataset} {FLAGS.val_split}"
    return write_report(FLAGS.report_dir, evaluation, segmenter, examples, title=title, settings=settings)


def counts_of_the_other(examples):
    """The counts of the run that --compare names: of its last evaluation, or of one made now."""
    from deeplab_tf.evaluation import counts_of_run, evaluate_and_draw
    from deeplab_tf.inference import Segmenter

    def evaluate_it():
        print(f"evaluating {FLAGS.compare} first: it has no evaluation of these images since its last checkpoint")
        other = Segmenter.load(FLAGS.compare, crf=FLAGS.crf, **flags.inference_options())
        return evaluate_and_draw(other, examples, FLAGS.compare, pictures=FLAGS.overlays).image_counts

    return counts_of_run(
        FLAGS.compare,
        lambda counts: len(counts.filenames) >= len(examples) and (counts.crf is not None or not FLAGS.crf),
        evaluate_it,
    )


if __name__ == "__main__":
    flags.run(main, topics=("run", "data", "evaluation"), required=("model_dir",))
