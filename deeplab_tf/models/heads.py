"""The heads, on top of the features: from one classifier to atrous spatial pyramid pooling (Sec. 3.2 and 4.1)."""

import functools

from keras import initializers, layers

from deeplab_tf.models.architectures import RESNET_HEADS, VGG_HEADS
from deeplab_tf.models.atrous import AtrousConv2D
from deeplab_tf.models.dropout import Dropout


def _rate_at(rate: int, output_stride: int) -> int:
    """The rate that spans the same pixels at another stride, rounded half up: 6 at stride 8 is 2 at stride 32."""
    return max(1, (2 * rate * 8 + output_stride) // (2 * output_stride))


def vgg_head(
    features, head: str, num_classes: int, output_stride: int, dropout: float, atrous: str = "dilation", dtype=None
):
    """fc6, fc7 and fc8 as convolutions; with ASPP, four such branches that are summed.

    Args:
        features: symbolic map [B, h, w, 512].
        head: one of `VGG_HEADS`.
        num_classes: channels of the score map.
        output_stride: of the features; the head's rates are for 8 and shrink with coarser features.
        dropout: rate after fc6 and fc7.
        atrous: implementation of the atrous convolutions.
        dtype: dtype policy of the layers; the score map is float32.

    Returns:
        the symbolic score map [B, h, w, num_classes] and the names of the classifier layers.
    """
    kernel_size, filters, rates = VGG_HEADS[head]
    conv = functools.partial(
        AtrousConv2D, activation="relu", kernel_initializer="he_normal", implementation=atrous, dtype=dtype
    )
    scores, names = [], []
    for i, rate in enumerate(rates, start=1):
        branch = f"_{i}" if len(rates) > 1 else ""
        x = conv(filters, kernel_size, rate=_rate_at(rate, output_stride), name=f"fc6{branch}")(features)
        x = Dropout(dropout, dtype=dtype, name=f"drop6{branch}")(x)
        x = conv(filters, 1, name=f"fc7{branch}")(x)
        x = Dropout(dropout, dtype=dtype, name=f"drop7{branch}")(x)
        names.append(f"fc8{branch}")
        scores.append(_classifier(num_classes, 1, 1, atrous, dtype, names[-1])(x))
    return _sum(scores, "fc8"), names


def resnet_head(features, head: str, num_classes: int, output_stride: int, atrous: str = "dilation", dtype=None):
    """One classifier, or the four classifiers of ASPP summed, straight on the features.

    Args:
        features: symbolic map [B, h, w, C].
        head: one of `RESNET_HEADS`.
        num_classes: channels of the score map.
        output_stride: of the features; the head's rates are for 8 and shrink with coarser features.
        atrous: implementation of the atrous convolutions.
        dtype: dtype policy of the layers; the score map is float32.

    Returns:
        the symbolic score map [B, h, w, num_classes] and the names of the classifier layers.
    """
    kernel_size, rates = RESNET_HEADS[head]
    names = ["fc1"] if len(rates) == 1 else [f"fc1_c{i}" for i in range(len(rates))]
    scores = [
        _classifier(num_classes, kernel_size, _rate_at(rate, output_stride), atrous, dtype, name)(features)
        for rate, name in zip(rates, names, strict=True)
    ]
    return _sum(scores, "fc1"), names


def _classifier(num_classes: int, kernel_size: int, rate: int, atrous: str, dtype, name: str) -> AtrousConv2D:
    """A convolution to one channel per class, initialised as in Caffe's releases."""
    return AtrousConv2D(
        num_classes,
        kernel_size,
        rate=rate,
        kernel_initializer=initializers.RandomNormal(stddev=0.01),
        implementation=atrous,
        dtype=dtype,
        name=name,
    )


def _sum(scores: list, name: str):
    """The sum of the branches, in float32."""
    if len(scores) == 1:
        return layers.Activation("linear", dtype="float32", name=f"{name}_scores")(scores[0])
    return layers.Add(dtype="float32", name=f"{name}_scores")(scores)
