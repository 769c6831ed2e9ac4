"""The moving average of a network's weights, which is validated, kept and used in their place."""

import tensorflow as tf

from deeplab_tf.models import DeepLab


class WeightAverage:
    """A second network whose weights are the moving average of a model's; make it inside the scope of the strategy.

    Args:
        model: the network in training.
        decay: part of the average that each update keeps, in [0, 1).

    Attributes:
        model: the network of the averages.
    """

    def __init__(self, model: DeepLab, decay: float):
        self.model = DeepLab.from_config(model.get_config())
        self._pairs = list(zip(self.model.variables, model.variables, strict=True))
        self._decay = decay
        self._strategy = tf.distribute.get_strategy()
        for average, variable in self._pairs:
            average.assign(variable)

    def update(self, step: tf.Tensor) -> None:
        """Moves the averages towards the weights, faster during the first updates, so that they forget the start.

        Args:
            step: scalar, updates made before this one.
        """
        step = tf.cast(step, tf.float32)
        rate = 1 - tf.minimum(self._decay, (1 + step) / (10 + step))
        for average, variable in self._pairs:
            if average.value.dtype.is_floating:  # Not so the state of random numbers.
                move = lambda to, value: to.assign_add(rate * (value - to))  # noqa: E731
                self._strategy.extended.update(average.value, move, args=(variable.value,))
