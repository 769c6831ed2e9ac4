"""From images to labels: the segmenter, tiles, many images, videos, and predictions on disk."""

from deeplab_tf.inference.predicting import predict
from deeplab_tf.inference.segmenter import Segmentation, Segmenter

__all__ = ["Segmentation", "Segmenter", "predict"]
