"""Fixtures of the tests of the training."""

import pytest

from tests.training import toy


@pytest.fixture(scope="module")
def small_network():
    """Makes "resnet_tiny" a network of fewer layers still, in this process, for tests of what surrounds the network."""
    with toy.small_network():
        yield
