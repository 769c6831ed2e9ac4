"""The fully connected CRF as a library of its own; importable without TensorFlow."""

from deeplab_tf.crf.dense_crf import DenseCRF

__all__ = ["DenseCRF"]
