"""From images to labels: the segmenter, tiles, many images, videos, and predictions on disk.

Importing it is light: TensorFlow is imported when the first name that needs it is used.
"""

from deeplab_tf.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "deeplab_tf.inference.segmenter": ("Segmentation", "Segmenter"),
        "deeplab_tf.inference.predicting": ("predict",),
    },
)
