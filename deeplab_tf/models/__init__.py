"""The networks: Keras only, so that they run under every Keras backend.

Their tables (`deeplab_tf.models.architectures`) are light; Keras is imported when the first network is asked for.
"""

from deeplab_tf.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "deeplab_tf.models.architectures": ("BACKBONES", "OUTPUT_STRIDES"),
        "deeplab_tf.models.deeplab": ("DeepLab",),
    },
)
