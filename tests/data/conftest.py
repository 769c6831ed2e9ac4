"""A prepared data set for the tests of this folder."""

import pytest

from deeplab_tf import data


@pytest.fixture(scope="session")
def shapes_dir(tmp_path_factory):
    """The version directory of `shapes`."""
    return data.prepare("shapes", tmp_path_factory.mktemp("tensorflow_datasets"))
