"""Fixtures of the model tests."""

from collections.abc import Callable

import numpy as np
import pytest


def _randomise(model, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for weight in model.network.weights:
        kind = weight.path.rsplit("/", 1)[-1]
        if kind == "kernel":
            value = rng.normal(0, np.sqrt(2 / np.prod(weight.shape[:-1])), weight.shape)
        elif kind == "moving_variance":
            value = rng.uniform(0.5, 2, weight.shape)
        elif kind == "gamma":
            value = rng.uniform(0.2, 0.6, weight.shape)
        else:  # biases, offsets, means
            value = rng.normal(0, 0.1, weight.shape)
        weight.assign(value)


@pytest.fixture(scope="session")
def randomise() -> Callable:
    """Gives every weight a random value under which activations neither vanish nor explode, batch norm included."""
    return _randomise
