"""Random weights for the networks of tests."""

import numpy as np

from deeplab_tf import DeepLab


def randomised(model: DeepLab, seed: int = 3, statistics: bool = False) -> DeepLab:
    """Gives a model weights under which scores differ from place to place; with `statistics`, batch norm's as well."""
    rng = np.random.default_rng(seed)
    for weight in model.network.weights:
        if weight.path.endswith("kernel"):
            weight.assign(rng.normal(0, np.sqrt(2 / np.prod(weight.shape[:-1])), weight.shape))
        elif weight.path.endswith(("bias", "beta")) or (statistics and weight.path.endswith("moving_mean")):
            weight.assign(rng.normal(0, 0.3, weight.shape))
        elif weight.path.endswith("gamma") or (statistics and weight.path.endswith("moving_variance")):
            weight.assign(rng.uniform(0.3, 0.7, weight.shape))
    return model
