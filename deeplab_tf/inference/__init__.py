"""From images to labels: the segmenter, tiles, many images, videos, and predictions on disk.

Importing it is light: TensorFlow is imported when the first name that needs it is used.
"""

import importlib

_HOMES = {
    "Segmentation": "deeplab_tf.inference.segmenter",
    "Segmenter": "deeplab_tf.inference.segmenter",
    "predict": "deeplab_tf.inference.predicting",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__():
    return sorted([*globals(), *__all__])
