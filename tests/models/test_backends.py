"""The same weights score the same under another Keras backend."""

import os
import pathlib
import subprocess
import sys

import numpy as np

from deeplab_tf import DeepLab
from tests.helpers import randomise

_SCRIPT = """
import sys
import keras, numpy as np
from deeplab_tf import DeepLab

assert keras.backend.backend() == "torch" and "tensorflow" not in sys.modules
folder = sys.argv[1]
model = keras.saving.load_model(folder + "/model.keras")
image = np.load(folder + "/image.npy")
arrays = {name: keras.ops.convert_to_numpy(scores) for name, scores in model.score_maps(image).items()}
deinterlaced = DeepLab.from_config(model.get_config() | {"atrous": "deinterlace"})
deinterlaced.set_weights(model.get_weights())
arrays["deinterlaced"] = keras.ops.convert_to_numpy(deinterlaced(image))
arrays["full"] = keras.ops.convert_to_numpy(model.full_resolution(image))
np.savez(folder + "/scores.npz", **arrays)
"""


def test_torch_backend_scores_as_tensorflow_does(tmp_path):
    model = DeepLab("resnet_tiny", "aspp_l", num_classes=5)
    randomise(model)
    image = np.random.default_rng(0).uniform(0, 255, (2, 90, 77, 3)).astype("float32")
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "image.npy", image)
    root = str(pathlib.Path(__file__).resolve().parents[2])
    environment = os.environ | {"KERAS_BACKEND": "torch", "PYTHONPATH": root}
    subprocess.run([sys.executable, "-c", _SCRIPT, str(tmp_path)], env=environment, check=True)

    expected = {name: scores.numpy() for name, scores in model.score_maps(image).items()}
    expected |= {"deinterlaced": expected["fused"], "full": model.full_resolution(image).numpy()}
    scores = np.load(tmp_path / "scores.npz")
    assert set(scores) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(scores[name], value, atol=1e-4 * np.abs(value).max(), err_msg=name)
