"""ONNX and LiteRT, run by their own runtimes, against the segmenter."""

import keras
import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter

from deeplab_tf import DeepLab, Segmenter
from deeplab_tf.crf import DenseCRF
from deeplab_tf.data import info
from deeplab_tf.errors import UserError
from deeplab_tf.serving import export_litert, export_onnx
from tests.helpers import photograph, randomise


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    keras.utils.set_random_seed(0)
    model = DeepLab("resnet_tiny", "large_fov", num_classes=8, scales=(0.5, 1.0))
    return Segmenter(randomise(model, seed=0), info=info("shapes"), mirror=True)


def check(found: dict[str, np.ndarray], expected) -> None:
    assert found["labels"].dtype == np.uint8 and len(np.unique(expected.labels)) > 2
    # Another runtime sums in another order, and rounds the positions of pixels on the score map, in the hundreds, by
    # 3e-5: times slopes of some 10 a position, that is 3e-4 in a score and a fraction of it in a probability.
    np.testing.assert_allclose(found["probabilities"][0], expected.probabilities, atol=1e-3)
    assert (found["labels"][0] == expected.labels).mean() > 0.999


@pytest.mark.slow
def test_onnx_of_any_size(segmenter, tmp_path):
    path = export_onnx(segmenter, tmp_path / "forms" / "model.onnx")
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    for size in ((90, 75), (41, 120)):
        image = photograph(*size)
        check(dict(zip(names, session.run(None, {"images": image[None]}), strict=True)), segmenter(image))
    assert "kite" in session.get_modelmeta().custom_metadata_map["class_names"]


@pytest.mark.parametrize("outputs", [["labels", "probabilities"], ["labels"]])
def test_litert_of_one_size(segmenter, tmp_path, outputs):
    path = export_litert(segmenter, tmp_path / "model.tflite", image_size=(90, 75), outputs=outputs)
    image = photograph(90, 75)
    found = Interpreter(str(path)).get_signature_runner()(images=image[None])
    assert sorted(found) == outputs
    expected = segmenter(image)
    check({"probabilities": expected.probabilities[None]} | found, expected)


def test_crf_and_tiles_are_refused(segmenter, tmp_path):
    refined = Segmenter(segmenter.model, DenseCRF(), segmenter.info)
    with pytest.raises(UserError, match="ONNX lacks the operations of the dense CRF"):
        export_onnx(refined, tmp_path / "model.onnx")
    with pytest.raises(UserError, match="LiteRT lacks the operations"):
        export_litert(refined, tmp_path / "model.tflite", image_size=(9, 9))
    with pytest.raises(UserError, match="tile_size: the ONNX form segments whole images"):
        export_onnx(Segmenter(segmenter.model, info=segmenter.info, tile_size=513), tmp_path / "model.onnx")
