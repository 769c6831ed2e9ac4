"""The same weights score the same under Keras' other backends."""

import importlib.util
import os
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

folder, backend = sys.argv[1:]
assert keras.backend.backend() == backend and "tensorflow" not in sys.modules
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


@pytest.mark.parametrize("backend", ["torch", "jax"])
@pytest.mark.parametrize("backbone", ["resnet_tiny", "efficientnet_lite0"])
@pytest.mark.slow
def test_another_backend_scores_as_tensorflow_does(backend, backbone, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}: pip install {backend}")
    model = randomise(DeepLab(backbone, "aspp_l", num_classes=5))
    image = np.random.default_rng(0).uniform(0, 255, (2, 90, 77, 3)).astype("float32")
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "image.npy", image)
    environment = os.environ | {"KERAS_BACKEND": backend}
    subprocess.run([sys.executable, "-c", _SCRIPT, tmp_path, backend], env=environment, cwd=REPOSITORY, check=True)

    expected = {name: scores.numpy() for name, scores in model.score_maps(image).items()}
    expected |= {
        "deinterlaced": expected["fused"],
        "folded": expected["fused"],
        "full": full_resolution(model, image).numpy(),
    }
    scores = np.load(tmp_path / "scores.npz")
    assert set(scores) == set(expected)
    for name, value in expected.items():
        assert_same_scores(scores[name], value, name)
