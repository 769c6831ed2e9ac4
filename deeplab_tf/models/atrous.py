"""Atrous convolution, in the two equal forms of Sec. 3.1: holes in the filter, or a deinterlaced map."""

import functools

import keras
from keras import layers, ops

from deeplab_tf.errors import UserError

IMPLEMENTATIONS = ("dilation", "deinterlace")

# From this distance between a filter's outermost taps, the sum over its taps is faster than the backend's own dilated
# convolution: TensorFlow's, on a CPU or GPU, pads and rearranges the map (benchmarks/atrous.py).
_FAR_REACH = 12


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
        if self.kernel_size == (1, 1):
            return pointwise_convolution(inputs, kernel, self.strides[0])
        if self.rate == 1:
            return super().convolution_op(inputs, kernel)
        if self.implementation == "deinterlace":
            return deinterlaced_convolution(inputs, kernel, self.rate)
        narrow = kernel.shape[0] * kernel.shape[1] * self.filters <= inputs.shape[-1]
        if narrow or (kernel.shape[0] - 1) * self.rate >= _FAR_REACH:
            return convolution_by_taps(inputs, kernel, self.rate)
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


def pointwise_convolution(inputs, kernel, stride: int = 1):
    """A 1x1 convolution as one matrix product, which forward and backward is faster than a convolution on a CPU.

    Args:
        inputs: float [B, H, W, C].
        kernel: float [1, 1, C, filters].
        stride: between two outputs.

    Returns:
        float [B, ceil(H / stride), ceil(W / stride), filters].
    """
    if stride > 1:
        inputs = inputs[:, ::stride, ::stride]
    batch, height, width = ops.shape(inputs)[:3]
    channels, filters = kernel.shape[2:]
    product = ops.matmul(
        ops.reshape(inputs, (batch * height * width, channels)), ops.reshape(kernel, (channels, filters))
    )
    return ops.reshape(product, (batch, height, width, filters))


def convolution_by_taps(inputs, kernel, rate: int):
    """Atrous convolution as a sum over the filter's taps of 1x1 convolutions of the shifted map (eq. 1 of the paper).

    Neither the holes nor the zeros beyond the border cost anything: a tap is applied only where it falls on the map.
    At rate 24 on a map of 41x41 that saves 63% of the products. A filter with few outputs, a classifier, is applied as
    one matrix product for all taps, whose results are then shifted.

    Args:
        inputs: float [B, H, W, C].
        kernel: float [k, k, C, filters].
        rate: atrous rate.

    Returns:
        float [B, H, W, filters].
    """
    batch, height, width = ops.shape(inputs)[:3]
    side, _, channels, filters = kernel.shape

    def product(x, weights):
        rows, columns = ops.shape(x)[1:3]
        x = ops.matmul(ops.reshape(x, (batch * rows * columns, channels)), weights)
        return ops.reshape(x, (batch, rows, columns, weights.shape[-1]))

    narrow = side * side * filters <= channels
    if narrow:
        all_taps = ops.reshape(ops.transpose(kernel, (2, 0, 1, 3)), (channels, side * side * filters))
        products = ops.split(product(inputs, all_taps), side * side, axis=-1)
    else:
        weights = ops.unstack(ops.reshape(kernel, (side * side, channels, filters)))

    pieces = []
    for tap in range(side * side):
        down, right = (rate * i - (side - 1) * rate // 2 for i in divmod(tap, side))
        top, bottom = _rows_with_neighbour(down, height)
        first, last = _rows_with_neighbour(right, width)
        if (isinstance(height, int) and top == bottom) or (isinstance(width, int) and first == last):
            continue
        window = (slice(None), slice(top + down, bottom + down), slice(first + right, last + right))
        piece = products[tap][window] if narrow else product(inputs[window], weights[tap])
        # Summed in float32 whatever the precision of the products, as within a convolution.
        piece = ops.cast(piece, "float32")
        pieces.append(ops.pad(piece, [[0, 0], [top, height - bottom], [first, width - last], [0, 0]]))
    return ops.cast(functools.reduce(ops.add, pieces), inputs.dtype)


def _rows_with_neighbour(offset: int, size):
    """Start and stop of those rows of a side whose neighbour at `offset` is on it too; the size may be a tensor."""
    if isinstance(size, int):
        return min(max(-offset, 0), size), max(min(size - offset, size), 0)
    return ops.minimum(max(-offset, 0), size), ops.maximum(ops.minimum(size - offset, size), 0)


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
