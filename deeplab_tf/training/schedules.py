"""The two learning-rate policies of the paper (Sec. 4.1.2), as Keras schedules of the number of updates."""

import keras

from deeplab_tf.errors import UserError


def learning_rate_schedule(
    policy: str, learning_rate: float, max_steps: int, *, power: float = 0.9, step_size: int = 2_000
) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate as a function of the number of updates made so far.

    Args:
        policy: "poly", learning_rate * (1 - step/max_steps)^power, or "step", times 0.1 every `step_size` updates.
        learning_rate: the rate of the first update.
        max_steps: updates of the whole training ("poly" reaches zero there).
        power: of "poly".
        step_size: of "step".

    Raises:
        UserError: the policy is neither.
    """
    if policy == "poly":
        return keras.optimizers.schedules.PolynomialDecay(learning_rate, max_steps, end_learning_rate=0.0, power=power)
    if policy == "step":
        return keras.optimizers.schedules.ExponentialDecay(learning_rate, step_size, decay_rate=0.1, staircase=True)
    raise UserError(f"schedule: found {policy!r}, expected 'poly' or 'step'")
