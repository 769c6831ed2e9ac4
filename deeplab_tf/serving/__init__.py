"""Export to TF Serving, ONNX and LiteRT."""

from deeplab_tf.serving.export import ServedSegmenter, export_saved_model, write_card
from deeplab_tf.serving.formats import export_litert, export_onnx

__all__ = ["ServedSegmenter", "export_litert", "export_onnx", "export_saved_model", "write_card"]
