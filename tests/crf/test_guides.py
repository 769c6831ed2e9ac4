"""Guides of any kind, volumes, widths by axis, normalisations, compatibilities and label maps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab_tf.crf import DenseCRF
from deeplab_tf.crf.features import bilateral_features, spatial_features
from deeplab_tf.errors import UserError

CRF = {"bilateral_weight": 4, "bilateral_spatial_std": 15, "bilateral_color_std": 20, "iterations": 5}
NORMALIZATIONS = ("symmetric", "before", "after")
COSTS = np.array([[0.1, 1, 0.5], [1, -0.2, 2], [0.5, 2, 0]])


def normalised(features, normalization):
    """The Gaussian kernel between all pairs of features [d, N], normalised: float64 [N, N]."""
    features = features.T.astype(np.float64)
    kernel = np.exp(-((features[:, None] - features[None]) ** 2).sum(axis=-1) / 2)
    sums = kernel.sum(axis=1)
    before, after = {"symmetric": (0.5, 0.5), "before": (1, 0), "after": (0, 1)}[normalization]
    return kernel / sums[:, None] ** after / sums[None] ** before


def by_all_pairs(kernels_and_weights, probabilities, iterations, costs):
    """Mean field with a compatibility by sums over all pairs, float64."""
    scores = unaries = np.log(np.maximum(probabilities.reshape(-1, probabilities.shape[-1]).astype(np.float64), 1e-5))
    for _ in range(iterations + 1):
        beliefs = np.exp(scores - scores.max(axis=1, keepdims=True))
        beliefs /= beliefs.sum(axis=1, keepdims=True)
        scores = unaries - sum(weight * kernel @ beliefs @ costs.T for kernel, weight in kernels_and_weights)
    return beliefs.reshape(probabilities.shape)


@pytest.mark.parametrize("costs", [None, COSTS, np.triu(COSTS)], ids=["Potts", "symmetric", "not symmetric"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_normalizations_and_compatibilities(small, normalization, costs):
    image, probabilities = small
    arguments = {**CRF, "normalization": normalization}
    expected = by_all_pairs(
        [
            (normalised(bilateral_features(image, 15, 20), normalization), 4),
            (normalised(spatial_features(image.shape[:2], 3), normalization), 3),
        ],
        probabilities,
        5,
        1 - np.eye(3) if costs is None else costs,
    )
    found = DenseCRF(**arguments, compatibility=costs)(image, probabilities)
    error = np.abs(found - expected).mean()
    print(f"{normalization}: mean error of the marginals {error:.1e}")
    # The lattice's approximation (test_exact.py): 2 to 4% of the messages; marginals in doubt move by a quarter of it.
    assert error < 0.01
    assert (found.argmax(-1) == expected.argmax(-1)).mean() > 0.98
    tensorflow = DenseCRF(**arguments, compatibility=costs, backend="tensorflow")(image, probabilities)
    found = DenseCRF(**arguments, compatibility=costs, class_threshold=0)(image, probabilities)
    # Sums in another order; without normalisation scores reach some hundreds, whose float32 steps are 3e-5.
    np.testing.assert_allclose(tensorflow, found, atol=1e-3)


GUIDES = {
    "grey uint8": lambda rgb: rgb[..., 0],
    "grey uint16": lambda rgb: rgb[..., 0].astype(np.uint16) * 200,
    "five channels": lambda rgb: np.concatenate([rgb, rgb[..., :2]], -1),
    "negative floats": lambda rgb: rgb / 3.0 - 60,
    "strided": lambda rgb: np.asfortranarray(rgb)[:, :, ::-1],
}


@pytest.mark.yardstick
@pytest.mark.parametrize("costs", [None, COSTS], ids=["Potts", "matrix"])
def test_no_normalization_is_that_of_pydensecrf(small, costs):
    """The sums of a lattice are narrower than a Gaussian's, and nothing corrects that: no comparison with all pairs."""
    arguments = {**CRF, "bilateral_weight": 0.05, "spatial_weight": 0.03, "normalization": "none"}
    arguments |= {"compatibility": costs, "class_threshold": 0}
    expected = DenseCRF(**arguments, backend="pydensecrf")(*small)
    for backend in ("numba", "tensorflow"):
        # As above: scores of some hundreds.
        np.testing.assert_allclose(DenseCRF(**arguments, backend=backend)(*small), expected, atol=1e-3)


@pytest.mark.yardstick
@pytest.mark.parametrize("guide", GUIDES)
def test_guides_agree_with_pydensecrf(small, guide):
    image, probabilities = small
    image = GUIDES[guide](image)
    arguments = {**CRF, "bilateral_spatial_std": (12, 18), "spatial_std": (2, 3), "class_threshold": 0}
    if image.ndim == 3:
        arguments["bilateral_color_std"] = tuple(np.arange(image.shape[-1]) + 15)
    found = DenseCRF(**arguments)(image, probabilities)
    # Scores of up to 20, sums in another order, five iterations.
    np.testing.assert_allclose(found, DenseCRF(**arguments, backend="pydensecrf")(image, probabilities), atol=1e-4)
    tensorflow = DenseCRF(**arguments, backend="tensorflow")(image, probabilities)
    assert np.abs(found - tensorflow).mean() < (0.02 if guide == "negative floats" else 1e-4)  # another grid


def volume():
    generator = np.random.default_rng(1)
    shape = (7, 8, 9)
    grey = np.clip(np.where(np.arange(9) > 4, 140, 70) * np.ones(shape) + generator.normal(0, 6, shape), 0, 255)
    return grey.astype(np.uint8), generator.dirichlet([1, 2], shape).astype(np.float32)


@pytest.mark.parametrize("channels", [None, 2])
def test_volumes(channels):
    grey, probabilities = volume()
    guide = grey if channels is None else np.stack([grey, 255 - grey], -1)
    arguments = {**CRF, "bilateral_spatial_std": (3, 4, 5), "spatial_std": (1.5, 2, 2), "class_threshold": 0}
    found = DenseCRF(**arguments)(guide, probabilities)
    expected = by_all_pairs(
        [
            (normalised(bilateral_features(guide.reshape(*grey.shape, -1), (3, 4, 5), 20), "symmetric"), 4),
            (normalised(spatial_features(grey.shape, (1.5, 2, 2)), "symmetric"), 3),
        ],
        probabilities,
        5,
        1 - np.eye(2),
    )
    assert found.shape == probabilities.shape
    # The lattice's approximation, in five dimensions.
    assert np.abs(found - expected).mean() < 0.02
    labels = DenseCRF(**arguments)(guide, probabilities, return_labels=True)
    assert labels.shape == grey.shape and labels.dtype == np.uint8
    assert DenseCRF(**arguments).energy(guide, probabilities, labels) < np.inf
    with pytest.raises(UserError, match="'tensorflow' takes images only"):
        DenseCRF(**arguments, backend="tensorflow")(guide, probabilities)


def test_a_volume_of_one_slice_is_an_image(small):
    """The third axis adds a feature that is the same everywhere: the lattice approximates as well, not equally."""
    image, probabilities = small
    found = DenseCRF(**CRF)(image[None], probabilities[None])[0]
    assert np.abs(found - DenseCRF(**CRF)(image, probabilities)).mean() < 0.01


def test_label_maps(small):
    image, probabilities = small
    labels = probabilities.argmax(-1)
    labels[:3] = 255
    given = np.full((*labels.shape, 3), 0.1, np.float32)
    np.put_along_axis(given, np.minimum(labels, 2)[..., None], 0.8, -1)
    given[:3] = 1 / 3
    found = DenseCRF(**CRF)(image, labels, num_classes=3, confidence=0.8)
    # The same unaries but for the rounding of 0.8 and 0.1, which scores of up to 20 keep to 2e-6.
    np.testing.assert_allclose(found, DenseCRF(**CRF)(image, given), atol=1e-5)
    for arguments, message in (
        ({}, "say num_classes"),
        ({"num_classes": 2}, "found labels 0 to 2, expected 0 to 1"),
        ({"num_classes": 1}, "num_classes is 1"),
        ({"num_classes": 10**12}, "num_classes is 1000000000000, expected a whole number from 2 to 65536"),
        ({"num_classes": 3, "confidence": 0.2}, "confidence of labels is 0.2"),
        ({"num_classes": 3, "confidence": np.nan}, "confidence of labels is nan"),
    ):
        with pytest.raises(UserError, match=message):
            DenseCRF(**CRF)(image, labels, **arguments)
    with pytest.raises(UserError, match="labels have dtype float32"):
        DenseCRF(**CRF)(image, probabilities, num_classes=3)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_energy(small, normalization):
    image, probabilities = small
    x = np.random.default_rng(0).integers(0, 3, probabilities.shape[:2])
    crf = DenseCRF(4, 20, 20, 3, 3, normalization=normalization, compatibility=COSTS)
    pairs = 0
    for weight, features in ((4, bilateral_features(image, 20, 20)), (3, spatial_features(image.shape[:2], 3))):
        kernel = normalised(features, normalization) * COSTS[x.ravel()][:, x.ravel()]
        pairs += weight * (kernel.sum() - np.trace(kernel)) / 2
    unary = -np.log(np.take_along_axis(probabilities.astype(np.float64), x[..., None], -1)).sum()
    # The lattice's 2% of all pairs.
    assert crf.energy(image, probabilities, x) == pytest.approx(unary + pairs, rel=0.02)


def test_warns_of_a_guide_that_makes_no_difference(small):
    image, probabilities = small
    with pytest.warns(UserWarning, match="bilateral_color_std is 3.0"):
        DenseCRF(iterations=1)(image / 255, probabilities)


def test_saves_what_is_new(tmp_path):
    crf = DenseCRF(bilateral_spatial_std=(10, 20), normalization="after", compatibility=COSTS.tolist())
    crf.save(tmp_path / "crf.json")
    assert DenseCRF.load(tmp_path / "crf.json") == crf
    assert hash(crf) == hash(DenseCRF.load(tmp_path / "crf.json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"normalization": "both"}, "normalization is 'both', expected one of symmetric"),
        ({"compatibility": [[1, 2]]}, r"compatibility has shape \(1, 2\)"),
        ({"compatibility": [[1, np.nan], [0, 1]]}, "compatibility has shape"),
        ({"compatibility": "Potts"}, "not an array of numbers"),
        ({"bilateral_spatial_std": (3, 0)}, "bilateral_spatial_std is 0"),
        ({"spatial_std": "3"}, "spatial_std is '3'"),
        ({"spatial_std": ()}, r"spatial_std is \(\)"),
    ],
)
def test_bad_parameters(arguments, message):
    with pytest.raises(UserError, match=message):
        DenseCRF(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spatial_std": (3, 3, 3)}, "spatial_std has 3 values, the image 2 axes"),
        ({"bilateral_color_std": (3, 3)}, "bilateral_color_std has 2 values, the image 3 channels"),
        ({"compatibility": np.eye(4)}, "compatibility is for 4 classes, the probabilities have 3"),
    ],
)
@pytest.mark.parametrize("backend", ["numba", "tensorflow"])
def test_parameters_that_do_not_fit(small, arguments, message, backend):
    with pytest.raises(UserError, match=message):
        DenseCRF(**arguments, backend=backend)(*small)


@pytest.mark.yardstick
def test_pydensecrf_refuses_what_it_cannot_do(small):
    with pytest.raises(UserError, match="symmetric compatibilities only"):
        DenseCRF(compatibility=np.triu(COSTS), backend="pydensecrf")(*small)


@settings(max_examples=80)
@given(
    st.lists(st.integers(1, 7), min_size=2, max_size=3),
    st.one_of(st.none(), st.integers(1, 6)),
    st.sampled_from(["u1", "i2", "u4", "f2", "f4", "f8"]),
    st.sampled_from(["none", *NORMALIZATIONS]),
    st.booleans(),
    st.floats(-4, 5).map(lambda exponent: 10**exponent),
    st.integers(1, 3),
)
def test_fuzzed(shape, channels, dtype, normalization, matrix, std, threads):
    """Anything sound gives distributions, or names the width that no lattice can hold."""
    generator = np.random.default_rng(len(shape))
    guide = (generator.uniform(0, 200, (*shape, channels) if channels else shape)).astype(dtype)
    probabilities = generator.dirichlet(np.ones(3), shape)
    crf = DenseCRF(
        bilateral_spatial_std=(std,) * len(shape),
        bilateral_color_std=std * 3,
        spatial_std=std,
        normalization=normalization,
        compatibility=COSTS if matrix else None,
        iterations=2,
        threads=threads,
    )
    try:
        found = crf(guide[::-1], probabilities[::-1])
    except UserError as error:
        assert "standard deviations" in str(error)
        return
    assert found.shape == probabilities.shape and found.min() >= 0
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-4)
