"""VGG-16 as a dense feature extractor (Sec. 3.1 and 4.1)."""

import functools

from keras import layers

from deeplab_tf.models.architectures import VGG_STAGES
from deeplab_tf.models.atrous import AtrousConv2D


def vgg16(images, output_stride: int, atrous: str = "dilation", average_pool: bool = False, dtype=None):
    """The convolutional part of VGG-16 with 3x3 pools, up to pool5.

    At output stride 8 the last two pools have stride 1 and conv5 has rate 2; at 16 only the last pool loses its stride.

    Args:
        images: symbolic input [B, H, W, 3], preprocessed, H and W of the form 8k + 1.
        output_stride: 8, 16 or 32.
        atrous: implementation of the atrous convolutions.
        average_pool: whether a 3x3 average pool of stride 1 follows pool5, zero padding counted, as in the LargeFOV
            model of 2015.
        dtype: dtype policy of the layers.

    Returns:
        symbolic feature map [B, (H-1)//output_stride + 1, (W-1)//output_stride + 1, 512].
    """
    conv = functools.partial(
        AtrousConv2D,
        kernel_size=3,
        activation="relu",
        kernel_initializer="he_normal",
        implementation=atrous,
        dtype=dtype,
    )
    x = images
    stride, rate = 1, 1  # of the stage about to be built
    for stage, widths in enumerate(VGG_STAGES, start=1):
        for i, filters in enumerate(widths, start=1):
            x = conv(filters, rate=rate, name=f"conv{stage}_{i}")(x)
        halve = stride < output_stride
        x = layers.MaxPooling2D(3, strides=2 if halve else 1, padding="same", dtype=dtype, name=f"pool{stage}")(x)
        if halve:
            stride *= 2
        elif stage == 4:
            rate = 2
    if average_pool:
        # "valid" after padding with zeros: Caffe counts the padding in its average.
        x = layers.ZeroPadding2D(1, dtype=dtype, name="pool5a_pad")(x)
        x = layers.AveragePooling2D(3, strides=1, padding="valid", dtype=dtype, name="pool5a")(x)
    return x
