"""Evaluates a trained model on a split: mean IoU and the other metrics, by class, at the original resolution.

python evaluate.py --model_dir=runs/voc
python evaluate.py --model_dir=runs/voc --crf                           before and after the dense CRF
python evaluate.py --model_dir=runs/voc --crf --report_dir=report       and a page with charts and pictures
python evaluate.py --model_dir=runs/voc --compare=runs/older            what changed, and whether it may be noise
python evaluate.py --model_dir=runs/synthia --dataset=cityscapes --classes=synthia16,synthia13     further means
python evaluate.py --model_dir=runs/voc --val_split=test --submission_dir=submission     masks for the server
"""

import pathlib

from deeplab_tf import flags
from deeplab_tf.flags import FLAGS
from deeplab_tf.run_folder import check_run, evaluation_files, evaluation_name


def main() -> None:
    """Evaluates, prints the table, writes `<model_dir>/evaluation.json`, a few overlays and what else is asked for."""
    if FLAGS.compare:
        check_run(FLAGS.compare, "compare")
    from deeplab_tf import data, evaluation
    from deeplab_tf.data.catalogue import read_info
    from deeplab_tf.evaluation import tables

    model_dir = pathlib.Path(FLAGS.model_dir).expanduser()
    segmenter = load_segmenter(model_dir)
    directory = data.prepared_directory(FLAGS.dataset, FLAGS.data_dir)
    evaluation.check_classes(segmenter.class_names, read_info(directory).class_names, f"--dataset={FLAGS.dataset}")
    subsets = tables.named_subsets(FLAGS.classes or [])
    submission = evaluation.Submission(segmenter.info, FLAGS.submission_dir) if FLAGS.submission_dir else None
    other = load_segmenter(FLAGS.compare) if FLAGS.compare else None
    if other:
        evaluation.check_classes(segmenter.class_names, other.class_names, f"--compare={FLAGS.compare}")
    examples = data.evaluation_pipeline(directory, FLAGS.val_split, limit=FLAGS.limit)

    limit = FLAGS.limit if FLAGS.limit and FLAGS.limit < data.split_size(directory, FLAGS.val_split) else None
    name = evaluation_name(FLAGS.checkpoint, limit, flags.changed_of_the_run(model_dir))
    result = evaluation.evaluate_and_draw(
        segmenter,
        examples,
        model_dir,
        dataset=FLAGS.dataset,
        split=FLAGS.val_split,
        limit=limit,
        name=name,
        pictures=FLAGS.overlays,
        submission=submission,
        subsets=subsets,
    )
    print(f"{result.table()}\n")
    print(f"evaluated  {result.images} images of {FLAGS.dataset} {FLAGS.val_split}, {result.seconds:.0f} s")
    written = evaluation_files(name)
    print(f"written    {written.figures} and {written.overlays}/ in {model_dir}")
    if submission:
        print(f"           {result.images} masks for the server in {submission.folder}")
    if FLAGS.report_dir:
        title = f"{FLAGS.model_dir} on {FLAGS.dataset} {FLAGS.val_split}"
        page = evaluation.write_report(FLAGS.report_dir, result, segmenter, examples, title=title)
        print(f"           {page}, the report")
    if other:
        comparison = evaluation.compare_with_run(result, other, FLAGS.compare, examples)
        print(f"\n{comparison.table(FLAGS.model_dir, FLAGS.compare)}")


def load_segmenter(model_dir: str | pathlib.Path):
    """The segmenter of a run, with the flags of inference."""
    from deeplab_tf.inference import Segmenter

    return Segmenter.load(model_dir, crf=FLAGS.crf, **flags.inference_options())


if __name__ == "__main__":
    flags.run(
        main,
        "evaluate.py",
        required=("model_dir",),
        of_a_run=True,
        writes=("model_dir", "report_dir", "submission_dir"),
    )
