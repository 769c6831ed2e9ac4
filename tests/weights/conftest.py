"""Fixtures of the tests of weights."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from deeplab_tf import DeepLab
from tests.helpers import randomise


@pytest.fixture
def tiny() -> DeepLab:
    """A small network with random weights, torchvision's strides and keras.applications' colours."""
    model = DeepLab("resnet_tiny", "aspp_l", 5, scales=(1.0,), block_style="pytorch", preprocessing="keras")
    return randomise(model)


@pytest.fixture(scope="session")
def photographs(camvid_dir) -> np.ndarray:
    """Two real photographs, uint8 [2, 129, 161, 3]."""
    files = sorted((camvid_dir / "val").glob("*.png"))[:2]
    return np.stack([np.asarray(Image.open(file).convert("RGB"))[100:229, 100:261] for file in files])


@pytest.fixture(scope="session")
def unchanged() -> Callable:
    """A function of a model that returns a function that checks that nothing of it has changed."""

    def remember(model) -> Callable[[], None]:
        values = model.get_weights()

        def check() -> None:
            for before, after in zip(values, model.get_weights(), strict=True):
                np.testing.assert_array_equal(before, after)

        return check

    return remember
