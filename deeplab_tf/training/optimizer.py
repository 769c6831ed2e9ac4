"""Caffe's SGD, which the paper trained with: coupled weight decay and a learning-rate multiplier per parameter."""

import re
from collections.abc import Mapping

import keras
import tensorflow as tf

from deeplab_tf.errors import UserError


class CaffeSGD(keras.optimizers.SGD):
    """SGD with momentum as Caffe's SGDSolver computes it.

    For a parameter w with gradient g, multiplier m and velocity v (zero at first), one update is

        v <- momentum * v + learning_rate * m * (g + weight_decay * w)
        w <- w - v

    Weight decay is part of the gradient, hence of the momentum, and the learning rate is inside the velocity. Where
    the learning rate is constant this is `torch.optim.SGD`; where it falls, Caffe's velocity still remembers the
    higher rate.

    Under a distribution strategy `Optimizer.apply` takes gradients that are already summed over the replicas.

    Args:
        learning_rate: a number or a `LearningRateSchedule` of the number of updates.
        momentum: in [0, 1].
        coupled_weight_decay: added to the gradient of kernels, times the kernel; biases and the parameters of batch
          normalisation have none.
        multipliers: learning-rate multipliers by the path of the variable; 1 where a path is missing.
    """

    def __init__(
        self,
        learning_rate,
        momentum: float = 0.9,
        coupled_weight_decay: float = 5e-4,
        multipliers: Mapping[str, float] | None = None,
        name: str = "caffe_sgd",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, momentum=momentum, name=name, **kwargs)
        self.coupled_weight_decay = coupled_weight_decay
        self.multipliers = dict(multipliers or {})

    def build(self, variables):
        """Makes the velocities and looks up each variable's multiplier and decay."""
        if self.built:
            return
        super().build(variables)
        self._rates = [self.multipliers.get(variable.path, 1.0) for variable in variables]
        self._decays = [self.coupled_weight_decay if variable.name == "kernel" else 0.0 for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        """One update of one variable."""
        index = self._get_variable_index(variable)
        gradient = tf.cast(gradient, variable.dtype)
        if self._decays[index]:
            gradient += self._decays[index] * variable
        learning_rate = tf.cast(learning_rate * self._rates[index], variable.dtype)
        if not self.momentum:
            variable.assign_sub(learning_rate * gradient)
            return
        # One operation, which passes over the memory once: here the velocity has the other sign.
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[index].value.handle,
            lr=learning_rate,
            grad=gradient,
            momentum=tf.cast(self.momentum, variable.dtype),
        )

    def _all_reduce_sum_gradients(self, grads_and_vars):
        """Leaves the gradients as they are: the training step has summed them over the replicas.

        Keras would sum here, after `LossScaleOptimizer` has looked for overflows on the first replica alone.
        """
        return grads_and_vars

    def get_config(self):
        """The arguments of the constructor."""
        return {
            **super().get_config(),
            "coupled_weight_decay": self.coupled_weight_decay,
            "multipliers": self.multipliers,
        }


def caffe_multipliers(model: keras.Model, classifier: float = 10.0, fast_layers: str | None = None) -> dict[str, float]:
    """Learning-rate multipliers by the path of the variable: the classifier's kernel (Sec. 4.1.1), biases (release).

    The classifier's kernel learns `classifier` times faster than the rest, its bias twice that; other biases, which
    only VGG-16 has, learn twice as fast as their kernels.

    Args:
        model: a built DeepLab; its `classifier_layers` names the layers of the classifier.
        classifier: multiplier of the classifier's kernel.
        fast_layers: a regular expression of whole names of layers; these learn at the classifier's rate too. Not the
            paper's: its fc6 and fc7 were ImageNet's.

    Raises:
        UserError: no layer that is trained has such a name.
    """
    by_path = {variable.path: (variable.name, variable.path.split("/")[-2]) for variable in model.trainable_variables}
    fast = set(model.classifier_layers)
    if fast_layers:
        named = {layer for _, layer in by_path.values() if re.fullmatch(fast_layers, layer)}
        if not named:
            layers = list(dict.fromkeys(layer for _, layer in by_path.values()))
            raise UserError(
                f"--fast_layers={fast_layers} matches no layer that is trained; expected a regular expression of whole "
                f"names: {', '.join(layers[:2])} ... {layers[-1]}"
            )
        fast |= named
    return {
        path: (classifier if layer in fast else 1.0) * (2.0 if name == "bias" else 1.0)
        for path, (name, layer) in by_path.items()
    }
