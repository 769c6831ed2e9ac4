"""A network as it is trained on a CPU: the same function of the same weights, in fewer operations.

A frozen batch norm becomes a part of the convolution before it, and 3x3 convolutions with many channels use Winograd's
algorithm.
"""

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf
from keras import layers

from deeplab_tf.models import DeepLab
from deeplab_tf.models.atrous import AtrousConv2D
from deeplab_tf.training import winograd

# Winograd's algorithm costs more than it saves below these: the ratio of the multiplications, and those that it saves
# (benchmarks/winograd.py).
_LEAST_RATIO = 2.0
_LEAST_SAVED = 200e6


def training_network(model: DeepLab) -> Callable[[tf.Tensor], tf.Tensor] | None:
    """The dense network of a DeepLab in training mode, for one step; for `DeepLab.score_maps`.

    Args:
        model: a DeepLab.

    Returns:
        a function of preprocessed images, float32 [B, H, W, 3], to score maps. What it makes of the weights, it makes
        once, however often it is called: for all scales. None where the model's own network serves best: on
        accelerators, and with mixed precision.
    """
    on_cpus = all(device.device_type == "CPU" for device in tf.config.list_logical_devices())
    return cpu_network(model) if on_cpus and model.compute_dtype == "float32" else None


def cpu_network(model: DeepLab) -> Callable[[tf.Tensor], tf.Tensor]:
    """As `training_network`, for a DeepLab in float32 on CPUs."""
    network = model.network
    units = {layer: _unit(network, layer) for layer in network.layers if isinstance(layer, AtrousConv2D)}
    absorbed = {layer for unit in units.values() for layer in (unit.norm, unit.relu) if layer}
    weights, transformed = {}, {}

    def score(images: tf.Tensor) -> tf.Tensor:
        values = {id(network.input): images}
        for layer in network.layers[1:]:
            if layer in absorbed:
                continue
            inputs = tf.nest.map_structure(lambda tensor: values[id(tensor)], layer.input)
            if layer not in units:
                values[id(layer.output)] = layer(inputs, training=True)
                continue
            unit = units[layer]
            with tf.name_scope(layer.name):
                if layer not in weights:
                    weights[layer] = unit.weights()
                kernel, offset = weights[layer]
                if _suits_winograd(layer, inputs):
                    if layer not in transformed:
                        transformed[layer] = winograd.transformed_kernel(kernel)
                    output = unit.finish(winograd.convolution(inputs, transformed[layer], layer.rate), offset)
                elif layer.kernel_size == (1, 1):
                    output = unit.pointwise(inputs, kernel, offset)
                else:
                    output = unit.finish(layer.convolution_op(inputs, kernel), offset)
            values[id(unit.output)] = output
        return values[id(network.output)]

    return score


@dataclasses.dataclass(frozen=True)
class _Unit:
    """A convolution, and the frozen batch norm and the ReLU that follow it, where they do."""

    convolution: AtrousConv2D
    norm: layers.BatchNormalization | None
    relu: layers.Activation | None

    @property
    def output(self) -> keras.KerasTensor:
        """Of the last of the layers."""
        return (self.relu or self.norm or self.convolution).output

    def weights(self) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The kernel [k, k, C, filters] and the offset [filters] with batch norm in them."""
        kernel = tf.convert_to_tensor(self.convolution.kernel)
        offset = tf.convert_to_tensor(self.convolution.bias) if self.convolution.use_bias else None
        if not self.norm:
            return kernel, offset
        mean, variance, beta, gamma = (
            tf.convert_to_tensor(weight)
            for weight in (self.norm.moving_mean, self.norm.moving_variance, self.norm.beta, self.norm.gamma)
        )
        scale = gamma * tf.math.rsqrt(variance + self.norm.epsilon)
        return kernel * scale, beta + ((0.0 if offset is None else offset) - mean) * scale

    def finish(self, x: tf.Tensor, offset: tf.Tensor | None) -> tf.Tensor:
        """Adds the offset and applies the ReLU."""
        if offset is not None:
            x = tf.nn.bias_add(x, offset)
        return tf.nn.relu(x) if self.relu else self.convolution.activation(x)

    def pointwise(self, inputs: tf.Tensor, kernel: tf.Tensor, offset: tf.Tensor | None) -> tf.Tensor:
        """A 1x1 convolution as a matrix product; TensorFlow merges it with the offset and the ReLU right after it."""
        stride = self.convolution.strides[0]
        if stride > 1:
            inputs = inputs[:, ::stride, ::stride]
        channels, filters = kernel.shape[2:]
        product = tf.reshape(inputs, [-1, channels]) @ tf.reshape(kernel, [channels, filters])
        return tf.reshape(self.finish(product, offset), [*tf.unstack(tf.shape(inputs)[:3]), filters])


def _unit(network: keras.Model, convolution: AtrousConv2D) -> _Unit:
    norm = _next(network, convolution)
    if not (isinstance(norm, layers.BatchNormalization) and not norm.trainable):
        return _Unit(convolution, None, None)
    relu = _next(network, norm)
    is_relu = isinstance(relu, layers.Activation) and relu.activation is keras.activations.relu
    return _Unit(convolution, norm, relu if is_relu else None)


def _next(network: keras.Model, layer: layers.Layer) -> layers.Layer | None:
    """The only layer that takes a layer's output."""
    users = [user for user in network.layers if any(tensor is layer.output for tensor in tf.nest.flatten(user.input))]
    return users[0] if len(users) == 1 else None


def _suits_winograd(layer: AtrousConv2D, inputs: tf.Tensor) -> bool:
    plain = layer.kernel_size == (3, 3) and layer.strides == (1, 1) and layer.implementation == "dilation"
    if not plain or not inputs.shape.is_fully_defined():
        return False
    ratio = winograd.saving(inputs.shape, layer.rate)
    multiplications = 9 * inputs.shape.num_elements() * layer.filters
    return ratio >= _LEAST_RATIO and multiplications * (1 - 1 / ratio) >= _LEAST_SAVED
