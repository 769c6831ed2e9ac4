"""Dropout whose mask can belong to the example, not to the device or the call that computes it."""

import collections
import contextlib
import contextvars
import zlib
from collections.abc import Iterator

import keras
from keras import layers

_EXAMPLES = contextvars.ContextVar("examples", default=None)


@contextlib.contextmanager
def masks_of_examples(seed: int, positions) -> Iterator[None]:
    """Within the block, dropout's masks are a function of the seed and of the example's position (TensorFlow only).

    So one device, several replicas or hosts and micro-batches drop the same features of the same examples. A layer that
    is called several times, for several scales, draws another mask each time.

    Args:
        seed: at least 0 and below 2^31.
        positions: int64 [B], of each example of the batch in the stream of training examples, B static.
    """
    token = _EXAMPLES.set((seed, positions, collections.Counter()))
    try:
        yield
    finally:
        _EXAMPLES.reset(token)


@keras.saving.register_keras_serializable(package="deeplab_tf")
class Dropout(layers.Dropout):
    """Keras' dropout; in a block of `masks_of_examples`, with the masks of the examples."""

    def call(self, inputs, training=False):
        """Sets features to zero at random in training, and scales the others up: [B, ...] -> [B, ...]."""
        if not training or not self.rate or _EXAMPLES.get() is None:
            return super().call(inputs, training=training)
        import tensorflow as tf

        seed, positions, calls = _EXAMPLES.get()
        calls[self.name] += 1
        stream = seed + 2**31 * (zlib.crc32(f"{self.name}/{calls[self.name]}".encode()) >> 1)
        shape = tf.shape(inputs)[1:]
        draws = tf.stack(
            [
                tf.random.stateless_uniform(shape, tf.stack([tf.constant(stream, tf.int64), position]), alg="philox")
                for position in tf.unstack(positions)
            ]
        )
        return tf.where(draws >= self.rate, inputs / (1.0 - self.rate), tf.zeros_like(inputs))
