"""Data sets: what they hold (catalogue), how they are prepared (TFRecords) and how they are read (tf.data)."""

import importlib

_NAMES = {
    "DatasetInfo": "deeplab_tf.classes",
    "info": "deeplab_tf.data.catalogue",
    "prepared_directory": "deeplab_tf.data.catalogue",
    "prepare": "deeplab_tf.data.preparation",
    "training_pipeline": "deeplab_tf.data.pipeline",
    "evaluation_pipeline": "deeplab_tf.data.pipeline",
}
__all__ = list(_NAMES)


def __getattr__(name: str):
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'deeplab_tf.data' has no attribute '{name}'")


def __dir__():
    return sorted([*globals(), *__all__])
