"""DeepLab as a Keras model: shapes, scales, sizes known late, saving, errors."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import deeplab_tf
from deeplab_tf import DeepLab, run_folder
from deeplab_tf.errors import UserError
from deeplab_tf.models import geometry
from tests.helpers import full_resolution, rounding

pytestmark = pytest.mark.usefixtures("whole_network")


def photograph(height: int, width: int, batch: int = 1, seed: int = 0) -> np.ndarray:
    """Smooth random colours, uint8 [batch, height, width, 3]."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (batch, height // 6 + 2, width // 6 + 2, 3)).astype("float32")
    return ops.convert_to_numpy(geometry.resize(coarse, height, width)).astype("uint8")


@pytest.fixture(scope="module")
def tiny() -> deeplab_tf.DeepLab:
    keras.utils.set_random_seed(1)
    return deeplab_tf.DeepLab("resnet_tiny", "aspp_l", num_classes=5)


@pytest.mark.parametrize("backbone", ["vgg16", "resnet_tiny"])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_logits_lie_on_the_grid(backbone, output_stride):
    model = deeplab_tf.DeepLab(backbone, "large_fov", 3, output_stride, scales=(1.0,))
    for size in [(65, 70), (1, 33), (100, 41)]:
        logits = model(photograph(*size))
        assert logits.shape == (1, *((side - 1) // output_stride + 1 for side in size), 3)
        assert logits.dtype == "float32"
    assert full_resolution(model, photograph(*size)).shape == (1, *size, 3)


def test_score_maps_of_each_scale(tiny):
    maps = tiny.score_maps(photograph(321, 321))
    assert {name: tuple(scores.shape) for name, scores in maps.items()} == {
        "scale_0.5": (1, 21, 21, 5),
        "scale_0.75": (1, 31, 31, 5),
        "scale_1": (1, 41, 41, 5),
        "fused": (1, 41, 41, 5),
    }
    enlarged = [geometry.resize(maps[f"scale_{s}"], 41, 41) for s in ("0.5", "0.75", "1")]
    np.testing.assert_allclose(maps["fused"], np.max(enlarged, axis=0), atol=rounding(maps["fused"]))
    single = deeplab_tf.DeepLab("resnet_tiny", "linear", 5, scales=(1.0,))
    assert list(single.score_maps(photograph(33, 33))) == ["fused"]


def test_scales_read_the_same_scene(tiny):
    """Without context, each scale's map is the network applied to Caffe's Interp of the image."""
    image = photograph(321, 321).astype("float32")
    inputs = geometry.resize(tiny.preprocess(image), 241, 241)
    expected = tiny.network(inputs)
    np.testing.assert_allclose(tiny.score_maps(image)["scale_0.75"], expected, atol=rounding(expected))


@pytest.mark.slow
def test_sizes_unknown_to_the_graph(tiny):
    image = photograph(90, 61, batch=2)

    @functools.partial(tf.function, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    def both(images):
        return tiny(images), full_resolution(tiny, images)

    scores, full = both(image)
    assert full.shape == (2, 90, 61, 5)
    np.testing.assert_allclose(scores, tiny(image), atol=rounding(scores))
    np.testing.assert_allclose(full, full_resolution(tiny, image), atol=rounding(full))


def test_padding_is_the_mean_colour(tiny):
    """An image of any size scores as the same image put on a canvas of the mean colour of the grid's size."""
    image = photograph(90, 61).astype("float32")
    canvas = np.zeros((1, 97, 65, 3), "float32") + np.array([122.675, 116.669, 104.008], "float32")
    canvas[:, :90, :61] = image
    np.testing.assert_allclose(tiny(image), tiny(canvas)[:, :12, :8], atol=rounding(tiny(image)))
    full = full_resolution(tiny, image)
    np.testing.assert_allclose(full, full_resolution(tiny, canvas)[:, :90, :61], atol=rounding(full))


def test_full_resolution_passes_through_the_outputs(tiny):
    image = photograph(90, 61)
    np.testing.assert_allclose(full_resolution(tiny, image)[:, ::8, ::8], tiny(image), atol=rounding(tiny(image)))


@pytest.mark.parametrize("block_style, preprocessing", [("caffe", "torch"), ("pytorch", "lite"), ("garden", "keras")])
def test_keras_file_loads_back_equal(block_style, preprocessing, tmp_path):
    model = deeplab_tf.DeepLab("resnet_tiny", "linear", 5, block_style=block_style, preprocessing=preprocessing)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    image = photograph(70, 70)
    np.testing.assert_array_equal(loaded(image), model(image))
    assert loaded.get_config() == model.get_config()
    assert (loaded.block_style, loaded.preprocessing) == (block_style, preprocessing)


def test_weights_file_of_other_colours_is_refused(tiny, tmp_path):
    tiny.save_weights(tmp_path / "model.weights.h5")
    other = deeplab_tf.DeepLab("resnet_tiny", "aspp_l", num_classes=5, preprocessing="keras")
    with pytest.raises(ValueError, match="other colours than preprocessing='keras'"):
        other.load_weights(tmp_path / "model.weights.h5")


@pytest.mark.parametrize("word, block_style", [("caffe", "caffe"), ("torchvision", "pytorch"), ("garden", "garden")])
def test_configurations_that_say_bottleneck_still_load(word, block_style):
    config = deeplab_tf.DeepLab("resnet_tiny", "linear", 5).get_config()
    del config["block_style"]
    assert deeplab_tf.DeepLab.from_config(config | {"bottleneck": word}).block_style == block_style


def test_mixed_precision_scores_in_float32(tiny):
    half = deeplab_tf.DeepLab("resnet_tiny", "aspp_l", num_classes=5, dtype="mixed_bfloat16")
    half.set_weights(tiny.get_weights())
    assert half.network.get_layer("res3a_branch2b").compute_dtype == "bfloat16"
    image = photograph(97, 97)
    logits, expected = half(image), tiny(image)
    assert logits.dtype == "float32"
    # bfloat16 rounds by 2^-9: the root of twenty layers of that is 1%; the largest of all positions is some times that.
    error = np.abs(logits - expected).max() / np.abs(expected).max()
    assert 0 < error < 0.1
    assert deeplab_tf.DeepLab.from_config(half.get_config()).dtype_policy.name == "mixed_bfloat16"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(backbone="vgg19"), ["backbone='vgg19'", "'resnet101'"]),
        (dict(backbone="vgg16", head="linear"), ["head='linear'", "vgg16", "'large_fov'"]),
        (dict(backbone="resnet50", head="fc_7x7_r4"), ["head='fc_7x7_r4'", "resnet50", "'linear'"]),
        (dict(output_stride=4), ["output_stride=4", "8, 16, 32"]),
        (dict(atrous="holes"), ["atrous='holes'", "'deinterlace'"]),
        (dict(batch_norm="thawed"), ["batch_norm='thawed'", "'frozen'"]),
        (dict(block_style="fast"), ["block_style='fast'", "'pytorch'"]),
        (dict(backbone="vgg16", head="large_fov", block_style="garden"), ["block_style='garden'", "vgg16"]),
        (dict(preprocessing="tf"), ["preprocessing='tf'", "'caffe'"]),
        (dict(num_classes=0), ["num_classes=0"]),
        (dict(scales=()), ["scales=()"]),
        (dict(scales=(1.0, 1.0)), ["scales=(1.0, 1.0)"]),
        (dict(scales=(-1.0,)), ["scales=(-1.0,)"]),
        (dict(dropout=1.0), ["dropout=1.0"]),
        (dict(average_pool=True), ["average_pool=True", "resnet101"]),
    ],
)
def test_arguments_that_are_not_allowed(arguments, words):
    with pytest.raises(UserError) as error:
        deeplab_tf.DeepLab(**arguments)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


def test_images_of_another_rank(tiny):
    with pytest.raises(UserError, match=r"found shape \(33, 33, 3\)"):
        tiny(np.zeros((33, 33, 3)))


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": 5},
        {"name": 1e30},
        {"scales": None},
        {"num_classes": "8"},
        {"dtype": []},
        {"dtype": {"module": "keras", "class_name": None, "config": {"name": "float32"}, "registered_name": None}},
        {"other": 1},
    ],
)
def test_a_damaged_description_of_a_run_is_one_line(change, network, tmp_path):
    run_folder.write_description(tmp_path, network().get_config() | change, {})
    with pytest.raises(UserError, match=r"segmenter.json describes no network \(.*\); the command") as raised:
        DeepLab.of_run(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_description_of_nothing_but_brackets_is_one_line(tmp_path):
    (tmp_path / run_folder.DESCRIPTION_FILE).write_text("[" * 200_000)
    with pytest.raises(UserError, match="segmenter.json is damaged"):
        DeepLab.of_run(tmp_path)
