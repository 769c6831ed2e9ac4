"""Compares two evaluations of the same images as they are, however they were made; says what differs in that.

python tools/compare.py --this=runs/voc/evaluation.json --other=runs/voc/evaluation_best.json

To compare two runs like with like: evaluate.py --compare.
"""

from deeplab_tf import flags
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


if __name__ == "__main__":
    flags.run(main, "tools/compare.py", required=("this", "other"))
