"""The same weights score the same under Keras' other backends."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from deeplab_tf import DeepLab
from tests.helpers import REPOSITORY, assert_same_scores, full_resolution, randomise

pytestmark = pytest.mark.usefixtures("whole_network")
_SCRIPT = """
import sys
import keras, numpy as np
from deeplab_tf import DeepLab
from deeplab_tf.models.folded import FoldedNetwork
from tests.helpers import full_resolution

backend, *folders = sys.argv[1:]
assert keras.backend.backend() == backend and "tensorflow" not in sys.modules
for folder in folders:
    model = keras.saving.load_model(folder + "/model.keras")
    image = np.load(folder + "/image.npy")
    arrays = {name: keras.ops.convert_to_numpy(scores) for name, scores in model.score_maps(image).items()}
    deinterlaced = DeepLab.from_config(model.get_config() | {"atrous": "deinterlace"})
    deinterlaced.set_weights(model.get_weights())
    arrays["deinterlaced"] = keras.ops.convert_to_numpy(deinterlaced(image))
    network = FoldedNetwork(model)
    folded = lambda inputs: network(inputs, network.weights())
    arrays["folded"] = keras.ops.convert_to_numpy(model.score_maps(image, network=folded)["fused"])
    arrays["full"] = keras.ops.convert_to_numpy(full_resolution(model, image))
    np.savez(folder + "/scores.npz", **arrays)
"""


BACKBONES = ("resnet_tiny", "efficientnet_lite0")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[pathlib.Path, dict[str, DeepLab]]:
    """A folder with, for each backbone, a folder with its model.keras and an image; and the models."""
    folder = tmp_path_factory.mktemp("backends")
    image = np.random.default_rng(0).uniform(0, 255, (2, 90, 77, 3)).astype("float32")
    networks = {name: randomise(DeepLab(name, "aspp_l", num_classes=5)) for name in BACKBONES}
    for name, model in networks.items():
        (folder / name).mkdir()
        model.save(folder / name / "model.keras")
        np.save(folder / name / "image.npy", image)
    return folder, networks


@pytest.fixture(scope="module", params=["torch", "jax"])
def scored(request, models) -> pathlib.Path:
    """The folder, in which another backend has scored the images with all models, in one process."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"needs {request.param}: pip install {request.param}")
    folder, networks = models
    command = [sys.executable, "-c", _SCRIPT, request.param, *(folder / name for name in networks)]
    subprocess.run(command, env=os.environ | {"KERAS_BACKEND": request.param}, cwd=REPOSITORY, check=True)
    yield folder
    for scores in folder.glob("*/scores.npz"):  # the next backend's are its own
        scores.unlink()


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.slow
def test_another_backend_scores_as_tensorflow_does(scored, models, backbone):
    model, image = models[1][backbone], np.load(scored / backbone / "image.npy")
    expected = {name: scores.numpy() for name, scores in model.score_maps(image).items()}
    expected |= {
        "deinterlaced": expected["fused"],
        "folded": expected["fused"],
        "full": full_resolution(model, image).numpy(),
    }
    scores = np.load(scored / backbone / "scores.npz")
    assert set(scores) == set(expected)
    for name, value in expected.items():
        assert_same_scores(scores[name], value, name)
