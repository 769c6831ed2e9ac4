"""DeepLab v2 on TensorFlow and Keras 3.

Chen et al., "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully
Connected CRFs", arXiv 1606.00915.

Importing this package is light: TensorFlow, Keras and numba are imported when the first name that needs them is used.
The networks need TensorFlow, which `pip install 'deeplab_tf[tf]'` brings; the dense CRF (`deeplab_tf.crf`) does not.
"""

import importlib

from deeplab_tf.errors import extras_named

__version__ = "0.1.0"

_SUBPACKAGES = ("crf", "data", "evaluation", "models", "serving", "training", "weights")
_NAMES = {
    "DeepLab": "deeplab_tf.models.deeplab",
    "Segmenter": "deeplab_tf.inference.segmenter",
}
__all__ = [*_NAMES, *_SUBPACKAGES]


def __getattr__(name: str):
    with extras_named(f"deeplab_tf.{name}"):
        if name in _NAMES:
            return getattr(importlib.import_module(_NAMES[name]), name)
        if name in _SUBPACKAGES:
            return importlib.import_module(f"deeplab_tf.{name}")
    raise AttributeError(f"module 'deeplab_tf' has no attribute '{name}'")


def __dir__():
    return sorted([*globals(), *__all__])
