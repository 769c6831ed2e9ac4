"""The metrics of the paper, comparisons, reports, submissions, pictures."""

from deeplab_tf.counts import ConfusionMatrix
from deeplab_tf.evaluation.comparison import Comparison, compare, counts_of_run
from deeplab_tf.evaluation.drawing import evaluate_and_draw
from deeplab_tf.evaluation.evaluating import Evaluation, evaluate
from deeplab_tf.evaluation.image_counts import ImageCounts
from deeplab_tf.evaluation.report import write_report
from deeplab_tf.evaluation.submission import Submission
from deeplab_tf.evaluation.trimap import TrimapCurve
from deeplab_tf.evaluation.validation import validation

__all__ = [
    "Comparison",
    "ConfusionMatrix",
    "Evaluation",
    "ImageCounts",
    "Submission",
    "TrimapCurve",
    "compare",
    "counts_of_run",
    "evaluate",
    "evaluate_and_draw",
    "validation",
    "write_report",
]
