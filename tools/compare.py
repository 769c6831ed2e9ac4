"""Compares two evaluations of the same images as they are, however they were made; says what differs in that.

python tools/compare.py --this=runs/voc/evaluation.json --other=runs/voc/evaluation_best.json
python tools/compare.py --this=runs/vgg16/evaluation.json --other=runs/resnet/evaluation.json --trimap_chart=fig10.svg

To compare two runs like with like: evaluate.py --compare.
"""

from deeplab_tf import flags
from deeplab_tf.errors import UserError
from deeplab_tf.flags import FLAGS


def main() -> None:
    """Prints what differs between the ways in which the two were made, and the comparison."""
    from deeplab_tf.evaluation import StoredEvaluation, compare_stored

    this, other = StoredEvaluation.load(FLAGS.this), StoredEvaluation.load(FLAGS.other)
    comparison, different = compare_stored(this, other)
    print("made with different settings:" if different else "made the same way")
    for name, (here, there) in different.items():
        print(f"  {name:<13} this: {here}; other: {there}")
    print(f"\n{comparison.table(FLAGS.this, FLAGS.other)}")
    if FLAGS.trimap_chart:
        draw_trimap_curves(this, other)
        print(f"written    {FLAGS.trimap_chart}")


def draw_trimap_curves(this, other) -> None:
    """Draws the curves of both, one colour each, before and after the CRF."""
    from deeplab_tf import files
    from deeplab_tf.evaluation import charts

    for evaluation in (this, other):
        if not evaluation.trimap:
            raise UserError(f"{evaluation.path}: holds no trimap curve; evaluate again")
    figure = charts.trimap_figure({FLAGS.this: this.trimap, FLAGS.other: other.trimap})
    with files.written_aside(FLAGS.trimap_chart) as aside:
        figure.savefig(aside, dpi=150)


if __name__ == "__main__":
    flags.run(main, "tools/compare.py", required=("this", "other"))
