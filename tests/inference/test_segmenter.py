"""Inference on whole images: against the model's own graph, several scales, the mirror, tiles."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf import DeepLab, Segmenter, data
from deeplab_tf.crf import DenseCRF
from deeplab_tf.errors import UserError
from deeplab_tf.inference.tiling import Tiling
from deeplab_tf.models import geometry
from tests.helpers import assert_labels, full_resolution, rounding, small_network

pytestmark = pytest.mark.usefixtures("whole_network")

# No output of `shallow` depends on pixels further away than this (see the test).
FIELD_OF_VIEW_RADIUS = 40


@pytest.fixture(scope="module")
def shallow(network):
    """A function that makes a DeepLab of the first layers only, so that its field of view fits into small tiles."""

    def make(scales=(1.0,)):
        model = network(scales)
        first_layers = keras.Model(model.network.input, model.network.get_layer("res3b_branch2b_relu").output)
        vars(model)["network"] = first_layers  # past Keras, which locks a layer that is built
        return model

    return make


@pytest.fixture(scope="module")
def multi_scale(shallow):
    """A segmenter of three scales."""
    return Segmenter(shallow((0.5, 0.75, 1.0)))


@pytest.fixture(scope="module")
def mirroring(multi_scale):
    return Segmenter(multi_scale.model, mirror=True)


def logits(model, image):
    return full_resolution(model, image[np.newaxis])[0].numpy()


@pytest.mark.parametrize(("height", "width"), [(65, 97), (70, 51)])
def test_several_scales_are_fused_by_maximum_on_every_pixel(multi_scale, photograph, height, width):
    image = photograph(height, width)
    result = multi_scale(image)
    expected = logits(multi_scale.model, image)
    probabilities = tf.nn.softmax(expected).numpy()
    np.testing.assert_allclose(result.probabilities, probabilities, atol=rounding(expected))
    assert_labels(result.labels, probabilities, rounding(expected))
    assert result.probabilities.dtype == np.float32


@pytest.mark.parametrize("width", [97, 90])
def test_mirror_averages_the_scores_of_both_views(multi_scale, mirroring, photograph, width):
    image = photograph(66, width)
    result = mirroring(image)
    mean = sum(logits(multi_scale.model, view)[:, ::step] for view, step in ((image, 1), (image[:, ::-1], -1))) / 2
    np.testing.assert_allclose(result.probabilities, tf.nn.softmax(mean), atol=rounding(mean))
    assert np.abs(result.probabilities - multi_scale(image).probabilities).max() > 0.01
    mirrored = mirroring(np.ascontiguousarray(image[:, ::-1]))
    # A processor may take other instructions for the last columns than for the first.
    np.testing.assert_allclose(mirrored.probabilities[:, ::-1], result.probabilities, atol=rounding(mean))
    assert_labels(mirrored.labels[:, ::-1], result.probabilities, rounding(mean))


@pytest.mark.parametrize("mirror", [pytest.param(False, marks=pytest.mark.slow), True])
def test_vertical_flip_averages_all_views(multi_scale, photograph, mirror):
    image = photograph(90, 65)
    result = Segmenter(multi_scale.model, mirror=mirror, vertical_flip=True)(image)
    sides = [(down, right) for down in (1, -1) for right in ((1, -1) if mirror else (1,))]
    views = [logits(multi_scale.model, image[::down, ::right])[::down, ::right] for down, right in sides]
    mean = sum(views) / len(views)
    probabilities = tf.nn.softmax(mean).numpy()
    np.testing.assert_allclose(result.probabilities, probabilities, atol=rounding(mean))
    assert_labels(result.labels, probabilities, rounding(mean))  # They are made in bands of rows.


@pytest.mark.parametrize("options", [{}, {"mirror": True}, {"tile_size": 65, "tile_overlap": 16}])
def test_a_batch_gives_what_its_images_give_one_by_one(segmenter, photograph, options):
    segmenter = Segmenter(segmenter.model, **options)
    images = np.stack([photograph(70, 90, seed) for seed in range(3)])
    together = segmenter.batch_without_crf(images)
    assert len(together) == 3
    for image, result in zip(images, together, strict=True):
        alone = segmenter(image)
        tolerance = rounding(segmenter.model(image[np.newaxis]))
        np.testing.assert_allclose(result.probabilities, alone.probabilities, atol=tolerance)
        assert_labels(result.labels, alone.probabilities, tolerance)


def test_the_field_of_view_of_the_shallow_network(shallow):
    """What the proof of the tiles stands on: by the gradient, the pixels that one output depends on."""
    model = shallow()
    image = tf.Variable(np.random.default_rng(0).uniform(0, 255, (1, 161, 161, 3)).astype(np.float32))
    with tf.GradientTape() as tape:
        score = tf.reduce_sum(model(image)[0, 10, 10])
    touched = np.argwhere(np.abs(tape.gradient(score, image).numpy()[0]).max(-1) > 0)
    assert 8 < np.abs(touched - 80).max() <= FIELD_OF_VIEW_RADIUS


@pytest.mark.parametrize(("height", "width"), [pytest.param(500, 601, marks=pytest.mark.slow), (333, 1002)])
def test_tiles_give_what_the_whole_image_gives(shallow, photograph, height, width):
    image = photograph(height, width)
    tiled = Segmenter(shallow(), tile_size=329, tile_overlap=4 * FIELD_OF_VIEW_RADIUS)
    assert all(len(tiled.tiling.starts(side)) > 1 for side in image.shape[:2])
    result, whole = tiled(image), Segmenter(tiled.model)(image)
    tolerance = rounding(tiled.model(image[np.newaxis]))
    np.testing.assert_allclose(result.probabilities, whole.probabilities, atol=tolerance)
    assert_labels(result.labels, whole.probabilities, tolerance)


@pytest.mark.parametrize("mirror", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_tiles_of_several_scales_give_what_the_whole_image_gives(multi_scale, mirroring, photograph, mirror):
    """At scale 0.5 the field of view is twice as large in the image. The resize rounds positions, hence 1e-4."""
    whole, image = mirroring if mirror else multi_scale, photograph(100, 1203)
    tiled = Segmenter(whole.model, mirror=mirror, tile_size=673, tile_overlap=8 * FIELD_OF_VIEW_RADIUS)
    assert len(tiled.tiling.starts(1203)) == 3
    np.testing.assert_allclose(tiled(image).probabilities, whole(image).probabilities, atol=1e-4)


def test_no_seam_where_the_network_sees_further_than_the_overlap(segmenter, photograph):
    """Neighbouring outputs differ no more across the border of two tiles than elsewhere."""
    image = photograph(129, 1200)
    whole = segmenter.graph().score_maps(image[np.newaxis])[0, 0]
    tiled = Segmenter(segmenter.model, tile_size=257, tile_overlap=96).graph().score_maps(image[np.newaxis])[0, 0]
    assert np.abs(tiled - whole).max() > 1e-3  # they do differ
    steps = [np.abs(np.diff(score_map, axis=1)).mean(axis=(0, 2)).max() for score_map in (tiled, whole)]
    assert steps[0] <= 1.1 * steps[1]


def test_the_network_never_sees_more_than_a_tile():
    seen = []

    def score(part):
        seen.append(tuple(part.shape))
        return tf.zeros((1, *(geometry.map_size(geometry.padded_size(side, 8), 8) for side in part.shape[1:3]), 2))

    Tiling(129, 32, 8, (1.0,)).score_map(score, tf.zeros((1, 300, 500, 3), tf.uint8), 2)
    assert len(seen) == 3 * 5 and {shape[1:3] for shape in seen} == {(a, b) for a in (129, 124) for b in (129, 124)}


@pytest.mark.parametrize("overlap", [64, 120])
@pytest.mark.parametrize("length", [1, 100, 257, 258, 395, 449, 450, 1000, 2048])
def test_tiles_cover_a_side_and_their_weights_add_up_to_1(length, overlap):
    tiling = Tiling(257, overlap, 8, (1.0,))
    starts = tiling.starts(length).numpy()
    covered = np.zeros(-(-(length - 1) // 8) + 1)
    for i, start in enumerate(starts):
        stop = min(start + 257, length)
        assert start % 8 == 0 and stop > start
        # Every tile is a whole one, but for the last pixels that are not on the grid.
        assert stop - start > 257 - 8 or len(starts) == 1
        weights = tiling._weights(tf.constant(starts), i, -(-(stop - start - 1) // 8) + 1)
        covered[start // 8 : start // 8 + len(weights)] += weights
    assert stop == length and all(np.diff(starts) <= 257 - 1 - overlap)
    np.testing.assert_allclose(covered, 1, atol=1e-6)


def test_tiles_keep_to_the_grid_that_all_scales_share():
    tiling = Tiling(500, 100, 8, (0.5, 0.75, 1.0))
    assert (tiling.grid, tiling.size, tiling.overlap) == (32, 513, 128)
    assert Tiling(500, 100, 8, (1.0,)).size == 505


def test_scales_of_the_segmenter_replace_the_models(multi_scale, photograph):
    image = photograph(66, 97)
    other = Segmenter(multi_scale.model, scales=(0.75, 1.25), tile_size=129, tile_overlap=32)
    assert (other.scales, other.tiling.grid) == ((0.75, 1.25), 32)
    expected = multi_scale.model.score_maps(image[np.newaxis], crop=False, scales=(0.75, 1.25))
    assert list(expected) == ["scale_0.75", "scale_1.25", "fused"]
    found = Segmenter(other.model, scales=(0.75, 1.25)).graph().score_maps(image[np.newaxis])[:, 0]
    np.testing.assert_allclose(found, expected["fused"], atol=1e-5 * np.abs(expected["fused"]).max())
    assert multi_scale.scales == multi_scale.model.scales == (0.5, 0.75, 1.0)
    with pytest.raises(UserError, match=r"scales=\(0.0,\): expected one or more positive numbers"):
        Segmenter(multi_scale.model, scales=(0.0,))


def test_settings_say_what_made_the_labels(segmenter, tmp_path):
    other = Segmenter(
        segmenter.model, DenseCRF(iterations=3), segmenter.info, mirror=True, tile_size=100, tile_overlap=9
    )
    assert json.loads(json.dumps(other.settings)) == other.settings
    assert other.settings == {
        "checkpoint": None,
        "fingerprint": segmenter.settings["fingerprint"],
        "train_masks": None,
        "input_scale": 1.0,
        "scales": [1.0],
        "mirror": True,
        "vertical_flip": False,
        "tile_size": 105,
        "tile_overlap": 16,
        "pad_to": None,
        "align_corners": True,
        "crf": DenseCRF(iterations=3).parameters,
    }
    other.save(tmp_path)
    with small_network():  # the segmenter's
        loaded = Segmenter.load(tmp_path, scales=(0.5, 1.0))
    loaded_with = {"checkpoint": "ckpt-0", "scales": [0.5, 1.0]}
    assert loaded.settings == segmenter.settings | loaded_with
    bias = loaded.model.network.get_layer("fc1").bias
    bias.assign(bias + 1e-3)
    assert loaded.settings["fingerprint"] != segmenter.settings["fingerprint"]


def test_a_network_with_dropout_is_known_again(tmp_path):
    """Its fingerprint is of what it computes: the random state of dropout is another in every process."""
    Segmenter(DeepLab("vgg16", "large_fov", 8, scales=(1.0,)), info=data.info("shapes")).save(tmp_path)
    first, second = (Segmenter.load(tmp_path).settings for _ in range(2))
    assert first == second


def test_class_names_and_repr(segmenter):
    assert segmenter.class_names == segmenter.info.class_names
    unnamed = Segmenter(segmenter.model, mirror=True, tile_size=105, tile_overlap=16)
    assert unnamed.class_names == tuple("01234567")
    text = "resnet_tiny linear, 8 classes, scales (1.0,), mirror, tiles of 105 overlapping by 16"
    assert repr(unnamed) == f"Segmenter({text})"


def test_what_cannot_be_is_refused(segmenter):
    with pytest.raises(UserError, match="tile_overlap=100.*less than half"):
        Segmenter(segmenter.model, tile_size=200, tile_overlap=100)
    with pytest.raises(UserError, match=r"found float32 \[9, 9, 3\], expected uint8"):
        segmenter(np.zeros((9, 9, 3), np.float32))


def test_labels_do_not_fit_more_than_256_classes(network):
    assert Segmenter(network(num_classes=256)).class_names[-1] == "255"
    with pytest.raises(UserError, match="num_classes=257: labels are uint8, expected at most 256"):
        Segmenter(network(num_classes=257))


def test_the_weights_are_those_of_the_moment(network, photograph):
    """As a training's validations need it: the segmenter is made once, and its model is trained on."""
    model, image = network(), photograph(40, 56)
    segmenter = Segmenter(model)
    before = segmenter(image).probabilities
    for weight in (model.network.get_layer("fc1").kernel, model.network.get_layer("bn4a_branch2b").gamma):
        weight.assign(weight * 1.5)
    expected = tf.nn.softmax(logits(model, image))
    assert np.abs(before - expected).max() > 0.01
    np.testing.assert_allclose(segmenter(image).probabilities, expected, atol=1e-5)
    np.testing.assert_array_equal(segmenter(image).probabilities, Segmenter(model)(image).probabilities)


def test_probabilities_that_nobody_asks_for_are_not_computed(segmenter, photograph):
    result = segmenter(photograph(40, 40))
    assert result.labels.shape == (40, 40)
    assert "probabilities" not in vars(result)


@pytest.mark.slow
def test_padding_to_a_size_is_padding_with_the_mean_colour(network, photograph):
    """The release sees every image of VOC as 513x513: the mean colour beside it, which is 0 to the network."""
    model = network(scales=(0.5, 1.0))
    image = photograph(50, 71)
    padded = np.tile(np.float32([122.675, 116.669, 104.008]), (1, 129, 129, 1))
    padded[0, :50, :71] = image
    expected = geometry.upsample_score_map(model.score_maps(padded, crop=False)["fused"], 50, 71, 8)
    expected = tf.nn.softmax(expected)[0].numpy()
    found = Segmenter(model, pad_to=129)(image).probabilities
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(Segmenter(model)(image).probabilities - expected).max() > 1e-2
    with pytest.raises(UserError, match="--pad_to=129: images are cut into tiles"):
        Segmenter(model, pad_to=129, tile_size=257)


def test_fixed_weights_give_the_same_and_do_not_change(network, photograph):
    model, image = network(), photograph(40, 56)
    live, fixed = Segmenter(model), Segmenter(model, fixed_weights=True)
    before = live(image).probabilities
    np.testing.assert_allclose(fixed(image).probabilities, before, atol=1e-5)
    bias = model.network.get_layer("fc1").bias
    bias.assign(bias + np.arange(bias.shape[0]))
    assert np.abs(live(image).probabilities - before).max() > 0.1
    np.testing.assert_allclose(fixed(image).probabilities, before, atol=1e-5)
