"""The exported model against the segmenter, that is, against what evaluate.py counts."""

import functools
import io
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab_tf import DeepLab, Segmenter
from deeplab_tf.crf import DenseCRF
from deeplab_tf.data import info
from deeplab_tf.errors import UserError
from deeplab_tf.serving import ServedSegmenter, export_saved_model
from tests.helpers import assert_labels, randomise


@functools.cache
def network(scales=(1.0,), head="linear") -> DeepLab:
    """Random weights under which scores differ from place to place."""
    keras.utils.set_random_seed(3)
    model = DeepLab("resnet_tiny", head, 11, scales=scales, batch_norm="frozen")
    return randomise(model)


@pytest.fixture(scope="session")
def photographs(camvid_dir) -> list[np.ndarray]:
    """Three of CamVid, uint8 [360, 480, 3]."""
    return [
        np.asarray(Image.open(path).convert("RGB")) for path in sorted((camvid_dir / "val").glob("*.png"))[::40][:3]
    ]


def patches(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.uniform(0, 255, (height // 12 + 2, width // 12 + 2, 3)), np.ones((12, 12, 1)))
    return np.clip(coarse[:height, :width] + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)


def loaded(segmenter: Segmenter, folder: pathlib.Path, **options):
    """The signatures of the exported segmenter."""
    return tf.saved_model.load(str(export_saved_model(segmenter, folder, **options))).signatures


def served(signature, images) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in signature(images=tf.constant(images)).items()}


def rounding(segmenter: Segmenter, images: np.ndarray) -> np.ndarray:
    """How far probabilities of each image of a batch may lie apart that were computed in another order.

    Both sides run the same graph, the exported one with its weights as constants, which TensorFlow and oneDNN may fold
    and sum in another order. Each sum of float32 products then rounds otherwise, by about one step of the largest
    score; a probability changes by no more than half of what its scores change by, and 8 steps leave room.
    """
    scores = segmenter.graph().score_maps(images)
    return 8 * np.finfo(np.float32).eps * np.abs(scores).max(axis=(1, 2, 3, 4))


def check(found: dict[str, np.ndarray], segmenter: Segmenter, image: np.ndarray) -> None:
    """Labels and probabilities are the segmenter's, but for rounding."""
    expected, tolerance = segmenter(image), rounding(segmenter, image[np.newaxis])[0]
    np.testing.assert_allclose(found["probabilities"][0], expected.probabilities, atol=tolerance)
    assert_labels(found["labels"][0], expected.probabilities, tolerance)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@pytest.mark.slow
def test_labels_of_photographs_are_those_of_the_evaluation(photographs, tmp_path):
    segmenter = Segmenter(network((0.5, 1.0), "aspp_s"), info=info("camvid"), mirror=True)
    signatures = loaded(segmenter, tmp_path)
    for image in photographs:
        assert len(np.unique(segmenter(image).labels)) > 3
        check(served(signatures["serving_default"], image[None]), segmenter, image)


@pytest.mark.slow
def test_labels_after_the_crf_are_those_of_the_evaluation(photographs, tmp_path):
    segmenter = Segmenter(network(head="aspp_s"), DenseCRF(iterations=2), info=info("camvid"))
    signatures = loaded(segmenter, tmp_path, outputs=["labels", "confidence"])
    for image in photographs[:2]:
        expected, found = segmenter(image), served(signatures["serving_default"], image[None])
        assert (segmenter.without_crf(image).labels != expected.labels).mean() > 0.01  # the CRF does something
        assert (found["labels"][0] == expected.labels).mean() >= 0.999
        assert np.abs(found["confidence"][0] - expected.probabilities.max(-1)).mean() < 1e-3


@pytest.mark.parametrize(
    ("outputs", "crf"),
    [
        (["labels"], None),
        pytest.param(["confidence"], None, marks=pytest.mark.slow),
        pytest.param(["confidence", "labels"], None, marks=pytest.mark.slow),
        pytest.param(["probabilities"], None, marks=pytest.mark.slow),
        pytest.param(["confidence", "labels"], DenseCRF(iterations=1), marks=pytest.mark.slow),
    ],
)
def test_outputs_are_those_asked_for_and_agree_with_all_of_them(outputs, crf):
    segmenter, image = Segmenter(network(head="aspp_s"), crf, mirror=True), patches(75, 98)
    expected = segmenter(image)
    expected = {
        "labels": expected.labels,
        "probabilities": expected.probabilities,
        "confidence": expected.probabilities.max(-1),
    }
    module = ServedSegmenter(segmenter, outputs)
    found = served(module.serve_images, image[None])
    assert sorted(found) == sorted(outputs)
    for output, values in found.items():
        np.testing.assert_allclose(
            values[0], expected[output], atol=1e-3 if crf else rounding(segmenter, image[np.newaxis])[0]
        )


@pytest.mark.slow
def test_tiles_are_those_of_the_segmenter():
    segmenter = Segmenter(network((0.5, 1.0)), mirror=True, tile_size=129, tile_overlap=32)
    module = ServedSegmenter(segmenter)
    for height, width in ((300, 461), (77, 400), (40, 60)):
        image = patches(height, width)
        check(served(module.serve_images, image[None]), segmenter, image)


@pytest.mark.slow
def test_images_are_scaled_as_the_segmenter_scales_them():
    segmenter = Segmenter(network(), input_scale=1.5)
    module = ServedSegmenter(segmenter)
    for height, width in ((75, 98), (40, 61)):
        image = patches(height, width)
        check(served(module.serve_images, image[None]), segmenter, image)


@pytest.mark.parametrize("crf", [None, DenseCRF(iterations=1)])
@pytest.mark.parametrize("options", [{"mirror": True}, {"tile_size": 65, "tile_overlap": 16}])
@pytest.mark.slow
def test_a_batch_of_one_and_of_eight_agree(options, crf):
    segmenter = Segmenter(network(), crf, **options)
    module = ServedSegmenter(segmenter)
    images = np.stack([patches(70, 83, seed) for seed in range(8)])
    together, tolerances = served(module.serve_images, images), rounding(segmenter, images)
    for i in range(8):
        alone = served(module.serve_images, images[i : i + 1])
        np.testing.assert_allclose(alone["probabilities"][0], together["probabilities"][i], atol=tolerances[i])
        np.testing.assert_array_equal(alone["labels"][0], together["labels"][i])


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [["labels"], ["labels", "probabilities", "confidence"]])
def test_encoded_images_of_several_sizes_in_one_request(outputs):
    segmenter = Segmenter(network())
    images = [patches(70, 51, 0), patches(33, 90, 1), patches(1, 1, 2)]
    module = ServedSegmenter(segmenter, outputs)
    found = module.serve_bytes(tf.constant([png(image) for image in images]))
    assert sorted(found) == sorted([*outputs, "sizes", "mask_png_bytes"])
    assert found["labels"].shape == (3, 70, 90)
    for i, image in enumerate(images):
        height, width = image.shape[:2]
        expected = segmenter(image)
        assert found["sizes"][i].numpy().tolist() == [height, width]
        np.testing.assert_array_equal(found["labels"][i, :height, :width], expected.labels)
        assert (found["labels"][i].numpy() == 255).sum() == 70 * 90 - height * width
        np.testing.assert_array_equal(tf.io.decode_png(found["mask_png_bytes"][i])[..., 0], expected.labels)
        if len(outputs) == 3:
            probabilities = found["probabilities"][i, :height, :width]
            tolerance = rounding(segmenter, image[np.newaxis])[0]
            np.testing.assert_allclose(probabilities, expected.probabilities, atol=tolerance)
            confidence = found["confidence"][i, :height, :width]
            np.testing.assert_allclose(confidence, expected.probabilities.max(-1), atol=tolerance)


@pytest.mark.parametrize("outputs", [["labels"], pytest.param(["probabilities"], marks=pytest.mark.slow)])
def test_a_bad_image_in_a_batch_fails_alone(outputs):
    segmenter = Segmenter(network())
    module = ServedSegmenter(segmenter, outputs, max_pixels=5000)
    good = [patches(70, 51, 0), patches(33, 90, 1)]
    bad = {
        b"no image": "expected the bytes of a JPEG, PNG, GIF, BMP or WebP file; found other bytes, of which there are ",
        b"": "found other bytes, of which there are 0",
        b"\xff\xd8\xff no photograph": "found other bytes, of which there are 17",
        png(good[0])[:200]: "the image is damaged, or of a kind that is not read; it has 200 bytes",
        png(patches(80, 70)): "at most 5000 pixels (--max_pixels of the export); found 80 x 70",
    }
    found = module.serve_png(tf.constant([png(good[0]), *bad, png(good[1])]))
    masks, errors = found["mask_png_bytes"].numpy(), [error.decode() for error in found["error"].numpy()]
    assert sorted(found) == ["error", "mask_png_bytes"]
    for mask, image, error in zip((masks[0], masks[-1]), good, (errors[0], errors[-1]), strict=True):
        np.testing.assert_array_equal(tf.io.decode_png(mask)[..., 0], segmenter(image).labels)
        assert error == ""
    for mask, error, expected in zip(masks[1:-1], errors[1:-1], bad.values(), strict=True):
        assert mask == b"" and expected in error and "\n" not in error


@pytest.mark.slow
def test_the_weights_are_stored_once(tmp_path):
    """However many scales, views and signatures there are."""
    segmenter = Segmenter(network((0.5, 0.75, 1.0), "aspp_s"), info=info("camvid"), mirror=True)
    version = export_saved_model(segmenter, tmp_path)
    assert "resnet_tiny, aspp_s" in (version / "assets.extra" / "MODEL_CARD.md").read_text()
    kernels = sum(weight.numpy().nbytes for weight in segmenter.model.network.weights)
    assert kernels < (version / "saved_model.pb").stat().st_size < 2 * kernels + 1_000_000


@pytest.mark.slow
def test_bfloat16_on_photographs(photographs):
    """Eight bits of mantissa: the probabilities differ by a few hundredths at most places, few labels with them."""
    segmenter = Segmenter(network((0.5, 1.0), "aspp_s"))
    module = ServedSegmenter(segmenter, precision="bfloat16")
    for image in photographs[:2]:
        expected, found = segmenter(image), served(module.serve_images, image[None])
        assert found["probabilities"].dtype == np.float32
        difference = np.abs(found["probabilities"][0] - expected.probabilities)
        assert 1e-4 < difference.mean() < 0.02
        assert (found["labels"][0] == expected.labels).mean() > 0.97


@pytest.mark.parametrize("outputs", [[], ["labels", "scores"]])
def test_outputs_that_do_not_exist_are_refused(outputs, tmp_path):
    with pytest.raises(UserError, match="expected one or more of labels, probabilities, confidence"):
        export_saved_model(Segmenter(network(), info=info("camvid")), tmp_path / "exported", outputs=outputs)
    assert not (tmp_path / "exported").exists()


def test_a_precision_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match="precision='int8': expected one of float32, bfloat16, float16"):
        ServedSegmenter(Segmenter(network()), precision="int8")
