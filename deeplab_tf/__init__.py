"""DeepLab v2 on TensorFlow and Keras 3.

Chen et al., "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully
Connected CRFs", arXiv 1606.00915.

Importing this package is light: TensorFlow, Keras and numba are imported when the first name that needs them is used.
The networks need TensorFlow, which `pip install 'deeplab_tf[tf]'` brings; the dense CRF (`deeplab_tf.crf`) does not.
"""

from deeplab_tf.lazy import exports

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = exports(
    __name__,
    {"deeplab_tf.models.deeplab": ("DeepLab",), "deeplab_tf.inference.segmenter": ("Segmenter",)},
    subpackages=("crf", "data", "evaluation", "inference", "models", "serving", "training", "weights"),
)
