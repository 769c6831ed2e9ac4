"""Data sets: what they hold (catalogue), how they are prepared (TFRecords) and how they are read (tf.data)."""

from deeplab_tf.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "deeplab_tf.classes": ("DatasetInfo",),
        "deeplab_tf.data.catalogue": ("info", "prepared_directory"),
        "deeplab_tf.data.preparation": ("prepare",),
        "deeplab_tf.data.train_masks": ("TrainMasks", "prepare_train_masks"),
        "deeplab_tf.data.pipeline": ("training_pipeline", "evaluation_pipeline"),
        "deeplab_tf.data.splits": ("split_size",),
    },
)
