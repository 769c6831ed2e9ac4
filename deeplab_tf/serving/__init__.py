"""Export to TF Serving."""

from deeplab_tf.serving.export import ServedSegmenter, export_saved_model

__all__ = ["ServedSegmenter", "export_saved_model"]
