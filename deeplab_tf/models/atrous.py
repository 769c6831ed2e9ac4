"""Atrous convolution, and all that is known here about how to compute it (Sec. 3.1)."""

import functools
from typing import NamedTuple, Self

import keras
from keras import layers, ops

from deeplab_tf.errors import UserError

IMPLEMENTATIONS = ("dilation", "deinterlace")

# From this distance between a filter's outermost taps on, the sum over its taps is faster than the backend's dilated
# convolution with its gradients, since taps beside the map cost nothing (benchmarks/atrous.py).
_FAR_REACH = 12


@keras.saving.register_keras_serializable(package="deeplab_tf")
class AtrousConv2D(layers.Conv2D):
    """A "same" convolution whose filter taps are `rate` positions apart.

    Args:
        filters: number of output channels.
        kernel_size: side of the kernel.
        rate: atrous rate; 1 is the ordinary convolution.
        strides: output stride of this layer; must be 1 where `rate` is not.
        implementation: one of `IMPLEMENTATIONS`, see `atrous_convolution`.
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
        return atrous_convolution(inputs, kernel, self.rate, self.strides[0], self.implementation)

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


def atrous_convolution(
    inputs, kernel, rate: int = 1, stride: int = 1, implementation: str = "dilation", gradients: bool = True
):
    """The "same" convolution of a map with a filter whose taps are `rate` positions apart (Sec. 3.1, eq. 1).

    Args:
        inputs: float [B, H, W, C].
        kernel: float [k, k, C, filters].
        rate: atrous rate; 1 is the ordinary convolution.
        stride: between two outputs; must be 1 where `rate` is not.
        implementation: equal results in different ways. "dilation" puts holes into the filter. "deinterlace" splits the
            map into rate^2 sub-maps, convolves them densely and interlaces the results.
        gradients: whether gradients are wanted too. On a CPU a 1x1 convolution with its gradients is faster as a matrix
            product; without, the backend's convolution is, since it takes in the bias and the ReLU that follow. And a
            CPU has gradients of TensorFlow's own dilated convolution only where oneDNN replaces it: not eagerly, not
            on several devices, not in 16 bits.

    Returns:
        float [B, ceil(H / stride), ceil(W / stride), filters].
    """
    side, _, channels, filters = kernel.shape
    if side == 1 and gradients:
        return pointwise_convolution(inputs, kernel, stride)
    if rate == 1:
        return ops.conv(inputs, kernel, strides=stride, padding="same")
    if implementation == "deinterlace":
        return deinterlaced_convolution(inputs, kernel, rate)
    if side * side * filters <= channels:
        return ops.cast(sum_of_classifiers(inputs, [(kernel, rate)]), inputs.dtype)
    if (side - 1) * rate >= _FAR_REACH:
        return convolution_by_taps(inputs, kernel, rate)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Keras' own way, off a TPU, pads and rearranges the map before and after a plain convolution.
        if not gradients or tf.config.list_logical_devices("GPU"):
            return tf.nn.conv2d(inputs, kernel, 1, "SAME", dilations=rate)
    return ops.conv(inputs, kernel, padding="same", dilation_rate=rate)


def pointwise_convolution(inputs, kernel, stride: int = 1):
    """A 1x1 convolution as one matrix product.

    Args:
        inputs: float [B, H, W, C].
        kernel: float [1, 1, C, filters].
        stride: between two outputs.

    Returns:
        float [B, ceil(H / stride), ceil(W / stride), filters].
    """
    if stride > 1:
        inputs = inputs[:, ::stride, ::stride]
    return _product(inputs, ops.reshape(kernel, kernel.shape[2:]))


def convolution_by_taps(inputs, kernel, rate: int):
    """Atrous convolution as a sum over the filter's taps of 1x1 convolutions of the shifted map (eq. 1 of the paper).

    Neither the holes nor the zeros beyond the border cost anything: a tap is applied only where it falls on the map.
    At rate 24 on a map of 41x41 that saves 63% of the products.

    Args:
        inputs: float [B, H, W, C].
        kernel: float [k, k, C, filters].
        rate: atrous rate.

    Returns:
        float [B, H, W, filters].
    """
    side, axes = kernel.shape[0], _axes(inputs)
    pieces = []
    for tap, weights in enumerate(ops.unstack(ops.reshape(kernel, (side * side, *kernel.shape[2:])))):
        shift = _Shift.of(tap, side, rate, axes)
        if shift:
            pieces.append(shift.place(_product(inputs[shift.window], weights)))
    return ops.cast(functools.reduce(ops.add, pieces), inputs.dtype)


def sum_of_classifiers(inputs, convolutions):
    """The sum of atrous convolutions with few outputs: one product for all their taps, whose results are shifted.

    Args:
        inputs: float [B, H, W, C], the features that ASPP's classifiers share.
        convolutions: kernel [k, k, C, classes] and atrous rate of each.

    Returns:
        float32 [B, H, W, classes].
    """
    channels, classes = convolutions[0][0].shape[2:]
    taps = [ops.reshape(ops.transpose(kernel, (2, 0, 1, 3)), (channels, -1)) for kernel, _ in convolutions]
    products = _product(inputs, ops.concatenate(taps, axis=1))
    axes, pieces, first = _axes(inputs), [], 0
    for kernel, rate in convolutions:
        side = kernel.shape[0]
        for tap in range(side * side):
            shift = _Shift.of(tap, side, rate, axes)
            if shift:
                pieces.append(shift.place(products[(*shift.window, slice(first, first + classes))]))
            first += classes
    return functools.reduce(ops.add, pieces)


def _product(x, weights):
    """The product of a map [B, H, W, C] with a matrix [C, filters]."""
    batch, height, width = ops.shape(x)[:3]
    x = ops.matmul(ops.reshape(x, (batch * height * width, weights.shape[0])), weights)
    return ops.reshape(x, (batch, height, width, weights.shape[1]))


class _Shift(NamedTuple):
    """The part of a map whose neighbour at one tap of a filter is on the map too."""

    window: tuple[slice, slice, slice]  # of the neighbours
    padding: list[list]  # from the window to the map

    @classmethod
    def of(cls, tap: int, side: int, rate: int, axes: list) -> Self | None:
        """For a tap of a kernel [side, side] on a map of `_axes`; None where none is on it, as far as sizes tell."""
        offsets = (rate * position - (side - 1) * rate // 2 for position in divmod(tap, side))
        found = [neighbours(offset) for neighbours, offset in zip(axes, offsets, strict=True)]
        if None in found:
            return None
        (rows, above_and_below), (columns, left_and_right) = found
        return cls((slice(None), rows, columns), [[0, 0], above_and_below, left_and_right, [0, 0]])

    def place(self, piece):
        """The products of a window, in their place on the map; float32, in which a convolution sums its taps too."""
        return ops.pad(ops.cast(piece, "float32"), self.padding)


def _axes(inputs) -> list:
    """`_neighbours` of a map's two axes, as functions of the offset; taps at the same offset share the result."""
    return [functools.cache(functools.partial(_neighbours, size)) for size in ops.shape(inputs)[1:3]]


def _neighbours(size, offset: int) -> tuple[slice, list] | None:
    """Along an axis, the positions that are another one's neighbour at `offset`, and how many lack one at either end.

    None where none is, as far as the size tells, which may be a tensor.
    """
    if isinstance(size, int):
        start, stop = min(max(-offset, 0), size), max(min(size - offset, size), 0)
        if start == stop:
            return None
    else:
        start, stop = ops.minimum(max(-offset, 0), size), ops.maximum(ops.minimum(size - offset, size), 0)
    return slice(start + offset, stop + offset), [start, size - stop]


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
