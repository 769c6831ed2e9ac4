"""Residual networks as dense feature extractors (Sec. 3.1): the Caffe variant, and those of other makers of weights."""

import functools

from keras import layers

from deeplab_tf.models.architectures import RESNETS, block_letter
from deeplab_tf.models.atrous import AtrousConv2D

BATCH_NORMS = ("frozen", "trainable", "sync")

# Where a stage's first block has the stage's stride, and the rate of its 3x3 convolution when the stride is traded for
# atrous convolution:
#   caffe: stride in the first 1x1; the 3x3 that follows has its rate (so do keras.applications, deeplab-pytorch).
#   pytorch: stride in the 3x3, which keeps the rate of the stage before, so that dense and sparse networks still agree
#       (torchvision).
#   garden: stride in the 3x3, which has the stage's rate (the Model Garden's DilatedResNet).
BLOCK_STYLES = ("caffe", "pytorch", "garden")


def resnet(
    images,
    backbone: str,
    output_stride: int,
    batch_norm: str,
    block_style: str = "caffe",
    atrous: str = "dilation",
    dtype=None,
):
    """A bottleneck ResNet up to res5c.

    At output stride 8, conv4 and conv5 have no stride, and their 3x3 convolutions have rates 2 and 4.

    Args:
        images: symbolic input [B, H, W, 3], preprocessed, H and W of the form 8k + 1.
        backbone: "resnet101", "resnet50" or "resnet_tiny" (a few narrow blocks, for demos and tests).
        output_stride: 8, 16 or 32.
        batch_norm: "frozen" (statistics, scale and offset fixed), "trainable", or "sync" (trainable, statistics taken
            over all replicas).
        block_style: one of `BLOCK_STYLES`.
        atrous: implementation of the atrous convolutions.
        dtype: dtype policy of the layers.

    Returns:
        symbolic feature map [B, (H-1)//output_stride + 1, (W-1)//output_stride + 1, C], C 2048 (256 for resnet_tiny).
    """
    blocks_of_stage, stem_filters, widths = RESNETS[backbone]
    conv_bn = functools.partial(_conv_bn, batch_norm=batch_norm, atrous=atrous, dtype=dtype)

    x = conv_bn(images, stem_filters, 7, "conv1", "bn_conv1", strides=2)
    x = layers.Activation("relu", dtype=dtype, name="conv1_relu")(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same", dtype=dtype, name="pool1")(x)

    for stage, (blocks, width) in enumerate(zip(blocks_of_stage, widths, strict=True), start=2):
        for i in range(blocks):
            geometry = block_geometry(block_style, stage, i == 0, output_stride)
            x = _block(x, width, f"{stage}{block_letter(backbone, stage, i)}", i == 0, *geometry, conv_bn, dtype)
    return x


def block_geometry(block_style: str, stage: int, first: bool, output_stride: int) -> tuple[int, int, int]:
    """Returns the stride of a block's first 1x1 convolution, and the stride and the rate of its 3x3 convolution.

    Args:
        block_style: one of `BLOCK_STYLES`.
        stage: 2 to 5.
        first: whether it is the first block of its stage.
        output_stride: 8, 16 or 32.
    """
    stride_so_far = 2**stage  # were no stride traded for atrous convolution
    rate = max(1, stride_so_far // output_stride)
    if not first or stage == 2:
        return 1, 1, rate
    stride = 2 if stride_so_far <= output_stride else 1
    if block_style == "caffe":
        return stride, 1, rate
    if block_style == "pytorch":
        rate = max(1, rate // 2)
    return 1, stride, rate


def _block(x, width: int, name: str, project: bool, stride_1x1: int, stride_3x3: int, rate: int, conv_bn, dtype):
    """1x1, 3x3 at `rate`, 1x1, added to the shortcut, which is projected in a stage's first block."""
    relu = functools.partial(layers.Activation, "relu", dtype=dtype)
    shortcut = x
    if project:
        strides = stride_1x1 * stride_3x3
        shortcut = conv_bn(x, 4 * width, 1, f"res{name}_branch1", f"bn{name}_branch1", strides=strides)
    x = conv_bn(x, width, 1, f"res{name}_branch2a", f"bn{name}_branch2a", strides=stride_1x1)
    x = relu(name=f"res{name}_branch2a_relu")(x)
    x = conv_bn(x, width, 3, f"res{name}_branch2b", f"bn{name}_branch2b", strides=stride_3x3, rate=rate)
    x = relu(name=f"res{name}_branch2b_relu")(x)
    x = conv_bn(x, 4 * width, 1, f"res{name}_branch2c", f"bn{name}_branch2c")
    x = layers.Add(dtype=dtype, name=f"res{name}")([shortcut, x])
    return relu(name=f"res{name}_relu")(x)


def _conv_bn(x, filters, kernel_size, conv_name, bn_name, *, strides=1, rate=1, batch_norm, atrous, dtype):
    """A convolution without bias, then batch normalisation."""
    x = AtrousConv2D(
        filters,
        kernel_size,
        rate=rate,
        strides=strides,
        use_bias=False,
        kernel_initializer="he_normal",
        implementation=atrous,
        dtype=dtype,
        name=conv_name,
    )(x)
    return layers.BatchNormalization(
        epsilon=1e-5,
        momentum=0.9,
        trainable=batch_norm != "frozen",
        synchronized=batch_norm == "sync",
        dtype=dtype,
        name=bn_name,
    )(x)
