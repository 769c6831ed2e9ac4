"""EfficientNet-Lite0 as a dense feature extractor: a small backbone for laptops and phones.  Not of the paper.

EfficientNet-B0 (Tan and Le, arXiv 1905.11946) without squeeze-and-excitation, with ReLU6 and a stem of 32 filters.
"""

import functools

from keras import layers

from deeplab_tf.models.architectures import EFFICIENTNET_STAGES
from deeplab_tf.models.atrous import AtrousConv2D

_STEM_FILTERS = 32
EPSILON = 1e-3


def efficientnet_lite0(images, output_stride: int, batch_norm: str, atrous: str = "dilation", dtype=None):
    """EfficientNet-Lite0 up to its last block.

    At output stride 8 the strides of the stages of 80 and of 192 filters are traded for rates 2 and 4: the depthwise
    convolution that had the stride keeps the rate before it, as everything after it gets the new one, so that dense and
    sparse networks agree.

    Args:
        images: symbolic input [B, H, W, 3], preprocessed, H and W of the form 8k + 1.
        output_stride: 8, 16 or 32.
        batch_norm: "frozen" (statistics, scale and offset fixed), "trainable", or "sync" (trainable, statistics taken
            over all replicas).
        atrous: implementation of the atrous convolutions; depthwise ones are always the backend's own.
        dtype: dtype policy of the layers.

    Returns:
        symbolic feature map [B, (H-1)//output_stride + 1, (W-1)//output_stride + 1, 320].
    """
    unit = functools.partial(_unit, batch_norm=batch_norm, atrous=atrous, dtype=dtype)
    x = unit(images, "stem", _STEM_FILTERS, 3, strides=2)
    stride, rate, block = 2, 1, 0
    for repeats, kernel_size, first_stride, expansion, filters in EFFICIENTNET_STAGES:
        for repeat in range(repeats):
            strides = first_stride if repeat == 0 else 1
            traded = strides == 2 and stride >= output_stride
            if traded:
                strides = 1
            stride *= strides
            inputs, name = x, f"block{block}"
            if expansion > 1:
                x = unit(x, f"{name}_expand", expansion * x.shape[-1], 1)
            x = unit(x, f"{name}_depthwise", None, kernel_size, strides=strides, rate=rate)
            x = unit(x, f"{name}_project", filters, 1, relu6=False)
            if repeat > 0:
                x = layers.Add(dtype=dtype, name=f"{name}_add")([inputs, x])
            rate, block = 2 * rate if traded else rate, block + 1
    return x


def _unit(x, name, filters, kernel_size, *, strides=1, rate=1, relu6=True, batch_norm, atrous, dtype):
    """A convolution without bias, depthwise where `filters` is None; then batch norm, then ReLU6 where wanted."""
    shared = {"strides": strides, "use_bias": False, "dtype": dtype, "name": f"{name}_conv"}
    if filters is None:
        convolution = layers.DepthwiseConv2D(
            kernel_size, padding="same", dilation_rate=rate, depthwise_initializer="he_normal", **shared
        )
    else:
        convolution = AtrousConv2D(
            filters, kernel_size, rate=rate, kernel_initializer="he_normal", implementation=atrous, **shared
        )
    norm = layers.BatchNormalization(
        epsilon=EPSILON,
        momentum=0.9,
        trainable=batch_norm != "frozen",
        synchronized=batch_norm == "sync",
        dtype=dtype,
        name=f"{name}_bn",
    )
    x = norm(convolution(x))
    return layers.Activation("relu6", dtype=dtype, name=f"{name}_relu6")(x) if relu6 else x
