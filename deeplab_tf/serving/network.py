"""A network as it is served: batch norm folded into the convolutions, no dropout, every weight a constant.

Weights that are constants of the graph, unlike variables, are brought once into the order that the processor's
convolutions want. Atrous convolutions are TensorFlow's own: with the bias and the activation in the same operation they
are faster than the forms of `deeplab_tf.models.atrous`, which training needs (benchmarks/inference.py).
"""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from deeplab_tf.errors import UserError
from deeplab_tf.models import DeepLab
from deeplab_tf.models.atrous import AtrousConv2D

PRECISIONS = ("float32", "bfloat16", "float16")


def inference_network(model: DeepLab, precision: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """The dense network of a DeepLab with its present weights, for graphs.

    Args:
        model: a DeepLab; its later changes do not matter.
        precision: of weights and feature maps: "float32", "bfloat16" or "float16". Scores are summed in float32.

    Returns:
        a function of preprocessed images, float32 [B, H, W, 3], to score maps, float32 [B, h, w, C].

    Raises:
        UserError: the precision is not one of these.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision={precision!r}: expected one of {', '.join(PRECISIONS)}")
    network = model.network
    kernels = {layer.name: folded_weights(network, layer) for layer in network.layers if _is_conv(layer)}
    classifiers = [network.get_layer(name) for name in model.classifier_layers]
    joined = len(classifiers) > 1 and all(layer.input is classifiers[0].input for layer in classifiers)

    def score(images: tf.Tensor) -> tf.Tensor:
        values = {id(network.input): tf.cast(images, precision)}
        for layer in network.layers[1:]:
            if joined and layer in classifiers:
                continue
            if joined and layer is network.layers[-1]:
                convolutions = [(*kernels[classifier.name], classifier.rate) for classifier in classifiers]
                return sum_of_atrous_convolutions(values[id(classifiers[0].input)], convolutions)
            inputs = layer.input if isinstance(layer.input, list) else [layer.input]
            inputs = [values[id(tensor)] for tensor in inputs]
            if layer is network.layers[-1]:
                return tf.add_n([tf.cast(tensor, tf.float32) for tensor in inputs])
            values[id(layer.output)] = _apply(layer, inputs, kernels.get(layer.name))
        raise AssertionError("a network has an output")

    return score


def folded_weights(network: keras.Model, conv: AtrousConv2D) -> tuple[np.ndarray, np.ndarray]:
    """Kernel float32 [k, k, C, filters] and bias float32 [filters] of a convolution and the batch norm after it."""
    kernel = _float64(conv.kernel)
    bias = _float64(conv.bias) if conv.use_bias else np.zeros(conv.filters)
    norms = [layer for layer in network.layers if _is_batch_norm(layer) and layer.input is conv.output]
    for norm in norms:
        gamma, beta, mean, variance = (
            _float64(weight) for weight in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
        )
        scale = gamma / np.sqrt(variance + norm.epsilon)
        kernel, bias = kernel * scale, (bias - mean) * scale + beta
    return kernel.astype(np.float32), bias.astype(np.float32)


def sum_of_atrous_convolutions(
    features: tf.Tensor, convolutions: list[tuple[np.ndarray, np.ndarray, int]]
) -> tf.Tensor:
    """ASPP's classifiers: one matrix product for every tap of every branch, whose results are shifted and added.

    Args:
        features: [B, h, w, C].
        convolutions: kernel [k, k, C, classes], bias [classes] and atrous rate of each branch.

    Returns:
        float32 [B, h, w, classes], the sum of the branches.
    """
    channels, classes = convolutions[0][0].shape[2:]
    taps = [kernel.transpose(2, 0, 1, 3).reshape(channels, -1) for kernel, _, _ in convolutions]
    batch, height, width = tf.unstack(tf.shape(features)[:3])
    products = tf.matmul(
        tf.reshape(features, [-1, channels]), tf.constant(np.concatenate(taps, axis=1), features.dtype)
    )
    products = tf.reshape(products, [batch, height, width, -1])
    products = tf.split(products, [tap.shape[1] for tap in taps], axis=-1)
    total = tf.constant(sum(bias for _, bias, _ in convolutions))
    for product, (kernel, _, rate) in zip(products, convolutions, strict=True):
        side = kernel.shape[0]
        reach = (side - 1) * rate // 2
        around = tf.pad(tf.cast(product, tf.float32), [[0, 0], [reach, reach], [reach, reach], [0, 0]])
        for tap in range(side * side):
            top, left = (rate * i for i in divmod(tap, side))
            window = around[:, top : top + height, left : left + width, tap * classes : (tap + 1) * classes]
            total += window
    return total


def _apply(layer: layers.Layer, inputs: list[tf.Tensor], weights: tuple[np.ndarray, np.ndarray] | None) -> tf.Tensor:
    """One layer's output; batch norm is in the convolution already."""
    (x, *others) = inputs
    if _is_conv(layer):
        kernel, bias = (tf.constant(weight, x.dtype) for weight in weights)
        x = tf.nn.bias_add(tf.nn.conv2d(x, kernel, layer.strides, "SAME", dilations=layer.rate), bias)
        return tf.nn.relu(x) if layer.activation is keras.activations.relu else x
    if _is_batch_norm(layer) or isinstance(layer, layers.Dropout):
        return x
    if isinstance(layer, layers.Add):
        return tf.add_n([x, *others]) if len(others) > 1 else x + others[0]
    if isinstance(layer, layers.Activation):
        return layer.activation(x)
    if isinstance(layer, layers.MaxPooling2D):
        return tf.nn.max_pool2d(x, layer.pool_size, layer.strides, layer.padding.upper())
    if isinstance(layer, layers.AveragePooling2D):
        return tf.nn.avg_pool2d(x, layer.pool_size, layer.strides, layer.padding.upper())
    if isinstance(layer, layers.ZeroPadding2D):
        return tf.pad(x, [[0, 0], *map(list, layer.padding), [0, 0]])
    raise NotImplementedError(f"{layer.name}: a {type(layer).__name__} cannot be exported yet")


def _float64(weight: keras.Variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(weight).astype(np.float64)


def _is_conv(layer: layers.Layer) -> bool:
    return isinstance(layer, AtrousConv2D)


def _is_batch_norm(layer: layers.Layer) -> bool:
    return isinstance(layer, layers.BatchNormalization)
