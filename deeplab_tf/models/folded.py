"""A DeepLab's network for inference: the same function of the same weights, in fewer operations.

Batch norm becomes a part of the convolution before it, ASPP's classifiers become one matrix product whose results are
shifted and added, and dropout is gone.
"""

from collections.abc import Mapping
from typing import Any

import keras
from keras import layers, ops

from deeplab_tf.models import geometry
from deeplab_tf.models.atrous import AtrousConv2D, atrous_convolution, sum_of_classifiers

# Kernel and bias of each convolution, by the name of its layer.
Weights = Mapping[str, tuple[Any, Any]]


class FoldedNetwork:
    """The dense network of a DeepLab, with batch norm folded into the convolutions.

    Args:
        model: a `DeepLab`.
        any_size: whether images may have sides of any size, not 8k + 1 alone. Strided layers then give the outputs that
            Caffe's and PyTorch's give, on every second row and column from the first one on, as if zeros followed the
            last; pools round their number up, as Caffe's do and PyTorch's with `ceil_mode`.

    Attributes:
        channels: of the score maps.

    Example:
        >>> network = FoldedNetwork(model)
        >>> network(preprocessed_images, network.weights())
    """

    def __init__(self, model, any_size: bool = False):
        self._network = model.network
        self._any_size = any_size
        self.channels = model.network.output.shape[-1]
        self._norms = {}
        for layer in self._network.layers:
            if isinstance(layer, layers.BatchNormalization):
                self._norms[id(layer.input)] = layer
        self._convolutions = [layer for layer in self._network.layers if _is_convolution(layer)]
        classifiers = [layer for layer in self._network.layers if layer.name in model.classifier_layers]
        shared = len(classifiers) > 1 and all(layer.input is classifiers[0].input for layer in classifiers)
        self._summed = classifiers if shared else []

    def weights(self) -> Weights:
        """The kernels and biases with batch norm in them, as tensors.

        In a graph they follow from whatever the model's variables hold when the graph is run.
        """
        return {layer.name: self._fold(layer) for layer in self._convolutions}

    def constants(self) -> Weights:
        """The present `weights`, by the same arithmetic, as arrays: a graph has those as constants."""
        return {name: tuple(ops.convert_to_numpy(weight) for weight in pair) for name, pair in self.weights().items()}

    def _fold(self, layer: layers.Layer) -> tuple[Any, Any]:
        kernel = _tensor(layer.kernel)
        bias = _tensor(layer.bias) if layer.use_bias else 0.0
        norm = self._norms.get(id(layer.output))
        if norm is None:
            return kernel, bias
        scale = _tensor(norm.gamma) * ops.rsqrt(_tensor(norm.moving_variance) + norm.epsilon)
        of_kernel = scale[:, None] if isinstance(layer, layers.DepthwiseConv2D) else scale
        return kernel * of_kernel, (bias - _tensor(norm.moving_mean)) * scale + _tensor(norm.beta)

    def __call__(self, images, weights: Weights, precision: str = "float32"):
        """Scores preprocessed images.

        Args:
            images: float32 [B, H, W, 3].
            weights: as `weights()` returns them.
            precision: of kernels and feature maps; scores are summed in float32.

        Returns:
            score maps, float32 [B, h, w, C].
        """
        network = self._network
        values = {id(network.input): ops.cast(images, precision)}
        for layer in network.layers[1:]:
            if layer in self._summed:
                continue
            if layer is network.layers[-1] and self._summed:
                return self._sum_of_classifiers(values[id(self._summed[0].input)], weights)
            inputs = layer.input if isinstance(layer.input, list) else [layer.input]
            inputs = [values[id(tensor)] for tensor in inputs]
            if layer is network.layers[-1]:
                inputs = [ops.cast(tensor, "float32") for tensor in inputs]
            values[id(layer.output)] = self._apply(layer, inputs, weights)
        return values[id(network.output)]

    def _sum_of_classifiers(self, features, weights: Weights):
        kernels = [ops.cast(weights[layer.name][0], features.dtype) for layer in self._summed]
        rates = [layer.rate for layer in self._summed]
        scores = sum_of_classifiers(features, list(zip(kernels, rates, strict=True)))
        return scores + sum(weights[layer.name][1] for layer in self._summed)

    def _convolve(self, layer: layers.Layer, x, kernel):
        stride, size = layer.strides[0], ops.shape(x)[1:3]
        if stride == 1 or not self._any_size:
            return _convolve(layer, x, kernel)
        height, width = (geometry.map_size(side, stride) for side in size)
        return _convolve(layer, geometry.pad_to_grid(x, stride), kernel)[:, :height, :width]

    def _apply(self, layer: layers.Layer, inputs: list, weights: Weights):
        """The output of one layer; batch norm is in the convolution before it."""
        (x, *others) = inputs
        if _is_convolution(layer):
            kernel, bias = (ops.cast(weight, x.dtype) for weight in weights[layer.name])
            return layer.activation(_add_bias(self._convolve(layer, x, kernel), bias))
        if isinstance(layer, layers.MaxPooling2D) and layer.strides[0] > 1 and self._any_size:
            x = geometry.pad_to_grid(x, layer.strides[0])  # with zeros, which are no larger than what a ReLU gives
        if isinstance(layer, layers.Dropout) or layer is self._norms.get(id(layer.input)):
            return x
        # Not `layer(x)`, which would cast the map to the precision that the model has.
        return layer.call([x, *others] if others else x)


def _tensor(variable: keras.Variable):
    return ops.cast(variable, "float32")  # `convert_to_tensor` leaves TensorFlow's variables as they are


def _is_convolution(layer: layers.Layer) -> bool:
    return isinstance(layer, (AtrousConv2D, layers.DepthwiseConv2D))


def _convolve(layer: layers.Layer, x, kernel):
    if isinstance(layer, layers.DepthwiseConv2D):
        return ops.depthwise_conv(x, kernel, layer.strides, layer.padding, dilation_rate=layer.dilation_rate)
    return atrous_convolution(x, kernel, layer.rate, layer.strides[0], layer.implementation, gradients=False)


def _add_bias(x, bias):
    if keras.backend.backend() == "tensorflow" and bias.shape.rank:
        import tensorflow as tf

        return tf.nn.bias_add(x, bias)  # which TensorFlow merges with the convolution before it
    return x + bias
