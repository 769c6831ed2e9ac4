"""ONNX and LiteRT, run by their own runtimes, against the segmenter."""

import importlib.util
import subprocess
import sys

import keras
import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from deeplab_tf import DeepLab, Segmenter
from deeplab_tf.crf import DenseCRF
from deeplab_tf.data import info
from deeplab_tf.errors import UserError
from deeplab_tf.serving import calibration, export_litert, export_onnx, export_saved_model
from tests.helpers import photograph, randomise


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    keras.utils.set_random_seed(0)
    model = DeepLab("resnet_tiny", "large_fov", num_classes=8, scales=(0.5, 1.0))
    return Segmenter(randomise(model, seed=0), info=info("shapes"), mirror=True)


@pytest.fixture(scope="module")
def onnx_model(segmenter, tmp_path_factory):
    return export_onnx(segmenter, tmp_path_factory.mktemp("forms") / "deeper" / "model.onnx")


def check(found: dict[str, np.ndarray], expected) -> None:
    assert found["labels"].dtype == np.uint8 and len(np.unique(expected.labels)) > 2
    # Another runtime sums in another order, and rounds the positions of pixels on the score map, in the hundreds, by
    # 3e-5: times slopes of some 10 a position, that is 3e-4 in a score and a fraction of it in a probability.
    np.testing.assert_allclose(found["probabilities"][0], expected.probabilities, atol=1e-3)
    assert (found["labels"][0] == expected.labels).mean() > 0.999


@pytest.mark.slow
def test_onnx_of_any_size(segmenter, onnx_model):
    session = onnxruntime.InferenceSession(onnx_model)
    names = [output.name for output in session.get_outputs()]
    for size in ((90, 75), (41, 120)):
        image = photograph(*size)
        check(dict(zip(names, session.run(None, {"images": image[None]}), strict=True)), segmenter(image))
    assert "kite" in session.get_modelmeta().custom_metadata_map["class_names"]


_OPENVINO = """
import sys
import numpy as np
import openvino
images = np.load(sys.argv[2])
# In float32 whatever the processor has: on one with instructions for bfloat16 OpenVINO's default is bfloat16.
settings = {"INFERENCE_PRECISION_HINT": "f32"}
found = openvino.Core().compile_model(sys.argv[1], "CPU", settings)(images)
np.savez(sys.argv[3], **{output.get_any_name(): found[output] for output in found})
"""


def in_openvino(model, images: np.ndarray, folder) -> dict[str, np.ndarray]:
    """The outputs of an ONNX file, from a process of its own: beside TensorFlow OpenVINO aborts."""
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("needs the package openvino")
    np.save(folder / "images.npy", images)
    arguments = [model, folder / "images.npy", folder / "found.npz"]
    subprocess.run([sys.executable, "-c", _OPENVINO, *map(str, arguments)], check=True, timeout=120)
    return dict(np.load(folder / "found.npz"))


@pytest.mark.slow
def test_onnx_in_openvino(segmenter, onnx_model, tmp_path):
    image = photograph(90, 75)
    check(in_openvino(onnx_model, image[None], tmp_path), segmenter(image))


@pytest.fixture(scope="module")
def scaled(segmenter) -> Segmenter:
    """Of one scale, with images at three quarters of their size."""
    model = DeepLab.from_config(segmenter.model.get_config() | {"scales": (1.0,)})
    model.set_weights(segmenter.model.get_weights())
    return Segmenter(model, info=segmenter.info, input_scale=0.75)


@pytest.fixture(scope="module")
def small(scaled, tmp_path_factory):
    """In int8, for labels and confidence."""
    images = [photograph(90, 75, seed) for seed in range(4)]
    path = tmp_path_factory.mktemp("small") / "model.onnx"
    return export_onnx(scaled, path, outputs=["labels", "confidence"], calibration=images)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_onnx_in_int8_finds_most_labels(scaled, small, runtime, tmp_path):
    """Eight bits: about a hundredth of the range of every map. Random weights, whose classes lie close together."""
    image = photograph(66, 101, 9)
    if runtime == "openvino":
        found = in_openvino(small, image[None], tmp_path)
    else:
        session = onnxruntime.InferenceSession(small)
        names = ["labels", "confidence"]
        found = dict(zip(names, session.run(names, {"images": image[None]}), strict=True))
    expected = scaled(image)
    assert (found["labels"][0] == expected.labels).mean() > 0.8
    assert np.abs(found["confidence"][0] - expected.probabilities.max(-1)).mean() < 0.1


@pytest.mark.slow
def test_int8_is_half_the_size_or_less(scaled, small):
    assert small.stat().st_size < 0.55 * 4 * scaled.model.count_params()


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "agreeing", "size"), [("float16", 0.995, 0.7), ("int8", 0.8, 0.45)])
def test_litert_quantised(scaled, tmp_path, precision, agreeing, size):
    images = [photograph(120, 60, seed) for seed in range(4)]
    path = export_litert(
        scaled, tmp_path / "x.tflite", image_size=(90, 75), outputs=["labels"], precision=precision, calibration=images
    )
    image = photograph(90, 75, 9)
    found = Interpreter(str(path)).get_signature_runner()(images=image[None])
    assert (found["labels"][0] == scaled(image).labels).mean() > agreeing
    assert path.stat().st_size < size * 4 * scaled.model.count_params()


def test_classes_are_wanted(segmenter, tmp_path):
    unnamed = Segmenter(segmenter.model)
    for write in (export_onnx, export_saved_model, Segmenter.save):
        with pytest.raises(UserError, match="the segmenter has no info: give the classes"):
            write(unnamed, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_int8_wants_images(scaled, tmp_path):
    for images in (None, []):
        with pytest.raises(UserError, match="calibration: found no image; int8 needs some"):
            export_litert(scaled, tmp_path / "x", image_size=(9, 9), precision="int8", calibration=images)
    with pytest.raises(UserError, match="precision='int4': expected one of float32, float16, int8"):
        export_litert(scaled, tmp_path / "x", image_size=(9, 9), precision="int4")


def test_images_for_the_calibration(tmp_path):
    for i in range(40):
        Image.fromarray(np.full((4, 5, 3), i, np.uint8)).save(tmp_path / f"{i:02}.png")
    images = calibration.from_folder(str(tmp_path))
    assert len(images) == calibration.COUNT and images[0].shape == (4, 5, 3)
    assert (images[0].max(), images[-1].max()) == (0, 39)
    with pytest.raises(UserError, match="found no image"):
        calibration.from_folder(str(tmp_path / "none*"))


@pytest.mark.slow
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
