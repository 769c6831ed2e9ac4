"""Other people's weights in our models: `describe` says which network they need, `load` brings them in."""

from deeplab_tf.weights import catalogue
from deeplab_tf.weights.freezing import freeze
from deeplab_tf.weights.loading import arguments_for, describe, examine, load, save
from deeplab_tf.weights.report import LoadReport

__all__ = ["LoadReport", "arguments_for", "catalogue", "describe", "examine", "freeze", "load", "save"]
