"""Fixtures of the tests of weights."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from deeplab_tf import DeepLab


def random_arrays(layers, seed: int = 0) -> None:
    """Gives Keras layers weights under which activations neither vanish nor explode, batch norm and biases included."""
    rng = np.random.default_rng(seed)
    for layer in layers:
        for weight in layer.weights:
            kind = getattr(weight, "path", weight.name).rsplit("/", 1)[-1].split(":")[0]
            if kind == "kernel":
                value = rng.standard_normal(weight.shape, np.float32) * np.sqrt(2 / np.prod(weight.shape[:-1]))
            elif kind == "moving_variance":
                value = rng.uniform(0.5, 2, weight.shape)
            elif kind == "gamma":
                value = rng.uniform(0.2, 0.6, weight.shape)
            else:  # biases, offsets, means
                value = rng.normal(0, 0.1, weight.shape)
            weight.assign(value.astype("float32"))


@pytest.fixture(scope="session")
def randomise() -> Callable:
    """Random, well-behaved weights for the layers given."""
    return random_arrays


@pytest.fixture
def tiny() -> DeepLab:
    """A small network with random weights, torchvision's strides and keras.applications' colours."""
    model = DeepLab("resnet_tiny", "aspp_l", 5, scales=(1.0,), bottleneck="torchvision", preprocessing="keras")
    random_arrays(model.network.layers)
    return model


@pytest.fixture(scope="session")
def photographs(camvid_dir) -> np.ndarray:
    """Two real photographs, uint8 [2, 129, 161, 3]."""
    files = sorted((camvid_dir / "val").glob("*.png"))[:2]
    return np.stack([np.asarray(Image.open(file).convert("RGB"))[100:229, 100:261] for file in files])


@pytest.fixture(scope="session")
def unchanged() -> Callable:
    """A function of a model that returns a function that checks that nothing of it has changed."""

    def remember(model) -> Callable[[], None]:
        values, preprocessing, bottleneck = model.get_weights(), model.preprocessing, model.bottleneck

        def check() -> None:
            assert (model.preprocessing, model.bottleneck) == (preprocessing, bottleneck)
            for before, after in zip(values, model.get_weights(), strict=True):
                np.testing.assert_array_equal(before, after)

        return check

    return remember
