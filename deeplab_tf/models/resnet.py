"""Residual networks as dense feature extractors: the Caffe variant, with the stride in a stage's first 1x1."""

import functools

from keras import layers

from deeplab_tf.models.atrous import AtrousConv2D

# Blocks of each stage, and the filters of the first convolution and of each stage's bottlenecks (x 4 at its output).
_ARCHITECTURES = {
    "resnet101": ((3, 4, 23, 3), 64, (64, 128, 256, 512)),
    "resnet50": ((3, 4, 6, 3), 64, (64, 128, 256, 512)),
    "resnet_tiny": ((1, 2, 2, 2), 16, (16, 32, 48, 64)),
}
BATCH_NORMS = ("frozen", "trainable", "sync")


def resnet(images, backbone: str, output_stride: int, batch_norm: str, atrous: str = "dilation", dtype=None):
    """A bottleneck ResNet up to res5c.

    At output stride 8, conv4 and conv5 have no stride, and their 3x3 convolutions have rates 2 and 4.

    Args:
        images: symbolic input [B, H, W, 3], preprocessed, H and W of the form 8k + 1.
        backbone: "resnet101", "resnet50" or "resnet_tiny" (a few narrow blocks, for demos and tests).
        output_stride: 8, 16 or 32.
        batch_norm: "frozen" (statistics, scale and offset fixed), "trainable", or "sync" (trainable, statistics taken
            over all replicas).
        atrous: implementation of the atrous convolutions.
        dtype: dtype policy of the layers.

    Returns:
        symbolic feature map [B, (H-1)//output_stride + 1, (W-1)//output_stride + 1, C], C 2048 (256 for resnet_tiny).
    """
    blocks_of_stage, stem_filters, widths = _ARCHITECTURES[backbone]
    conv_bn = functools.partial(_conv_bn, batch_norm=batch_norm, atrous=atrous, dtype=dtype)

    x = conv_bn(images, stem_filters, 7, "conv1", "bn_conv1", strides=2)
    x = layers.Activation("relu", dtype=dtype, name="conv1_relu")(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same", dtype=dtype, name="pool1")(x)

    stride, rate = 4, 1  # of the map so far
    for stage, (blocks, width) in enumerate(zip(blocks_of_stage, widths, strict=True), start=2):
        strides = 1
        if stage > 2 and stride < output_stride:
            strides, stride = 2, stride * 2
        elif stage > 2:
            rate *= 2
        for i in range(blocks):
            name = f"{stage}{_block_name(backbone, stage, i)}"
            x = _bottleneck(x, width, name, strides if i == 0 else 1, rate, i == 0, conv_bn, dtype)
    return x


def _block_name(backbone: str, stage: int, i: int) -> str:
    """Caffe's letter of block i: a, b, c, ..., but a, b1, b2, ... in ResNet-101's stages 3 and 4."""
    if backbone == "resnet101" and stage in (3, 4):
        return f"b{i}" if i else "a"
    return "abcdef"[i]


def _bottleneck(x, width: int, name: str, strides: int, rate: int, project: bool, conv_bn, dtype):
    """1x1, 3x3 at `rate`, 1x1, added to the shortcut, which is projected in a stage's first block."""
    relu = functools.partial(layers.Activation, "relu", dtype=dtype)
    shortcut = x
    if project:
        shortcut = conv_bn(x, 4 * width, 1, f"res{name}_branch1", f"bn{name}_branch1", strides=strides)
    x = conv_bn(x, width, 1, f"res{name}_branch2a", f"bn{name}_branch2a", strides=strides)
    x = relu(name=f"res{name}_branch2a_relu")(x)
    x = conv_bn(x, width, 3, f"res{name}_branch2b", f"bn{name}_branch2b", rate=rate)
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
