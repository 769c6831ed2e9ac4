"""The networks: Keras only, so that they run under every Keras backend."""

from deeplab_tf.models.deeplab import BACKBONES, OUTPUT_STRIDES, DeepLab

__all__ = ["BACKBONES", "OUTPUT_STRIDES", "DeepLab"]
