"""Inference on whole images, the metrics of the paper, pictures."""

from deeplab_tf.evaluation.drawing import evaluate_and_draw
from deeplab_tf.evaluation.evaluate import Evaluation, evaluate
from deeplab_tf.evaluation.metrics import ConfusionMatrix
from deeplab_tf.evaluation.predict import predict
from deeplab_tf.evaluation.segmenter import Segmentation, Segmenter
from deeplab_tf.evaluation.validation import validation

__all__ = [
    "ConfusionMatrix",
    "Evaluation",
    "Segmentation",
    "Segmenter",
    "evaluate",
    "evaluate_and_draw",
    "predict",
    "validation",
]
