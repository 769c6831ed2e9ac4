"""The training recipe of the paper: loss, schedules, optimizer, and the loop (Orbit's).

`train` lives in `deeplab_tf.training.run`, because it imports Orbit, which takes several seconds.
"""

from deeplab_tf.training.class_weights import balanced_class_weights, read_class_weights
from deeplab_tf.training.distribution import is_chief, make_strategy
from deeplab_tf.training.loss import labels_on_grid, position_weights, summed_cross_entropy
from deeplab_tf.training.optimizer import CaffeSGD, caffe_multipliers
from deeplab_tf.training.schedules import learning_rate_schedule

__all__ = [
    "CaffeSGD",
    "balanced_class_weights",
    "caffe_multipliers",
    "is_chief",
    "labels_on_grid",
    "learning_rate_schedule",
    "make_strategy",
    "position_weights",
    "read_class_weights",
    "summed_cross_entropy",
]
