"""Atrous convolution, in the two equal forms of Sec. 3.1."""

import keras
from keras import layers, ops

from deeplab_tf.errors import UserError

IMPLEMENTATIONS = ("dilation", "deinterlace")


@keras.saving.register_keras_serializable(package="deeplab_tf")
class AtrousConv2D(layers.Conv2D):
    """A "same" convolution whose filter taps are `rate` positions apart.

    Args:
        filters: number of output channels.
        kernel_size: side of the kernel.
        rate: atrous rate; 1 is the ordinary convolution.
        strides: output stride of this layer; must be 1 where `rate` is not.
        implementation: "dilation" puts holes into the filter; "deinterlace" splits the map into rate^2 sub-maps,
            convolves them densely and interlaces the results. The results are equal.
        **kwargs: as for `keras.layers.Conv2D`.

    Example:
        >>> AtrousConv2D(21, 3, rate=12)(keras.ops.ones((1, 41, 41, 512))).shape
        (1, 41, 41, 21)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        rate: int = 1,
        strides: int = 1,
        implementation: str = "dilation",
        **kwargs,
    ):
        if implementation not in IMPLEMENTATIONS:
            raise UserError(f"atrous={implementation!r} is not known; expected one of {', '.join(IMPLEMENTATIONS)}")
        super().__init__(filters, kernel_size, strides=strides, padding="same", dilation_rate=rate, **kwargs)
        self.rate = rate
        self.implementation = implementation

    def convolution_op(self, inputs, kernel):
        """The convolution without its bias; called by `keras.layers.Conv2D`."""
        if self.rate > 1 and self.implementation == "deinterlace":
            return deinterlaced_convolution(inputs, kernel, self.rate)
        return super().convolution_op(inputs, kernel)

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        config = super().get_config()
        del config["padding"], config["dilation_rate"]
        size, stride = self.kernel_size[0], self.strides[0]
        return config | {
            "kernel_size": size,
            "strides": stride,
            "rate": self.rate,
            "implementation": self.implementation,
        }


def deinterlaced_convolution(inputs, kernel, rate: int):
    """Atrous convolution by dense convolution of sub-maps: sub-map (a, b) holds the rows a, a + rate, a + 2 rate, ...

    Args:
        inputs: float [B, H, W, C].
        kernel: float [k, k, C, filters].
        rate: atrous rate.

    Returns:
        float [B, H, W, filters].
    """
    batch, height, width = ops.shape(inputs)[:3]
    channels, filters = inputs.shape[-1], kernel.shape[-1]
    reach = (kernel.shape[0] - 1) * rate  # rows that the filter spans, less one
    before = reach // 2
    rows = -(-(height + reach) // rate)  # of a sub-map
    columns = -(-(width + reach) // rate)
    x = ops.pad(
        inputs,
        [[0, 0], [before, rows * rate - height - before], [before, columns * rate - width - before], [0, 0]],
    )
    x = ops.reshape(x, (batch, rows, rate, columns, rate, channels))
    x = ops.transpose(x, (2, 4, 0, 1, 3, 5))
    x = ops.reshape(x, (rate * rate * batch, rows, columns, channels))
    x = ops.conv(x, kernel, padding="valid")
    rows, columns = rows - kernel.shape[0] + 1, columns - kernel.shape[1] + 1
    x = ops.reshape(x, (rate, rate, batch, rows, columns, filters))
    x = ops.transpose(x, (2, 3, 0, 4, 1, 5))
    x = ops.reshape(x, (batch, rows * rate, columns * rate, filters))
    return x[:, :height, :width]
