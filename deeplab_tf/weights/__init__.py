"""Other people's weights in our models: `load` brings them in, `freeze` keeps layers as they are."""

from deeplab_tf.weights.assigning import LoadReport
from deeplab_tf.weights.freezing import freeze
from deeplab_tf.weights.loading import load, save

__all__ = ["LoadReport", "freeze", "load", "save"]
