"""The training of the paper: the recipe, loss, schedules, optimizer, the loop (Orbit's), and `train`, which runs them.

`Recipe` and its module are light; TensorFlow is imported when the first name that needs it is used.
"""

from deeplab_tf.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "deeplab_tf.training.recipe": ("Recipe",),
        "deeplab_tf.training.assembly": ("TrainingResult", "train"),
        "deeplab_tf.training.class_weights": ("balanced_class_weights", "read_class_weights"),
        "deeplab_tf.training.config": ("check_same_run", "write_config"),
        "deeplab_tf.training.distribution": ("is_chief", "make_strategy"),
        "deeplab_tf.training.loss": ("labels_on_grid", "position_weights", "summed_cross_entropy"),
        "deeplab_tf.training.optimizer": ("CaffeSGD", "caffe_multipliers"),
        "deeplab_tf.training.schedules": ("learning_rate_schedule",),
    },
)
