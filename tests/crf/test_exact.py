"""The lattice and the mean field against sums over all pairs of pixels in float64."""

import numpy as np
import pytest

from deeplab_tf.crf import DenseCRF
from deeplab_tf.crf.features import bilateral_features, spatial_features
from deeplab_tf.crf.lattice import Lattice
from deeplab_tf.crf.mean_field import gaussian_filter


def relative_error(found, expected):
    return np.abs(found - expected).mean() / np.abs(expected).mean()


# The bounds of this file are those of the lattice, which is piecewise linear where a Gaussian is smooth: 1 to 4% of
# the mean value, seen in pydensecrf too. Rounding is far below.
@pytest.mark.parametrize(("std", "bound"), [(1.5, 0.02), (3.0, 0.02), (8.0, 0.02)])
def test_spatial_filter(exact, std, bound):
    features = spatial_features((22, 31), std)
    values = np.random.default_rng(0).random((features.shape[1], 5), np.float32)
    found = gaussian_filter(Lattice(features), values.shape[1])(values)
    error = relative_error(found, exact(features) @ values)
    print(f"spatial filter, std {std}: mean error {error:.2%} of the mean value")
    assert error < bound


@pytest.mark.parametrize(
    ("spatial_std", "color_std", "bound"), [(8.0, 20.0, 0.03), (30.0, 10.0, 0.03), (67.0, 3.0, 0.05)]
)
def test_bilateral_filter(exact, small, spatial_std, color_std, bound):
    features = bilateral_features(small[0], spatial_std, color_std)
    values = np.random.default_rng(0).random((features.shape[1], 5), np.float32)
    found = gaussian_filter(Lattice(features), values.shape[1])(values)
    error = relative_error(found, exact(features) @ values)
    print(f"bilateral filter, std {spatial_std} pixels and {color_std} units: mean error {error:.2%} of the mean value")
    assert error < bound


def exact_mean_field(kernels_and_weights, probabilities, iterations):
    unaries = np.log(np.maximum(probabilities.reshape(-1, probabilities.shape[-1]).astype(np.float64), 1e-5))

    def softmax(scores):
        beliefs = np.exp(scores - scores.max(axis=1, keepdims=True))
        return beliefs / beliefs.sum(axis=1, keepdims=True)

    beliefs = softmax(unaries)
    for _ in range(iterations):
        beliefs = softmax(unaries + sum(weight * kernel @ beliefs for kernel, weight in kernels_and_weights))
    return beliefs.reshape(probabilities.shape)


@pytest.mark.parametrize("iterations", [1, 5, 10])
def test_marginals(exact, small, iterations):
    image, probabilities = small
    crf = DenseCRF(4, 20, 20, 3, 3, iterations)
    expected = exact_mean_field(
        [(exact(bilateral_features(image, 20, 20)), 4), (exact(spatial_features(image.shape[:2], 3)), 3)],
        probabilities,
        iterations,
    )
    found = crf(image, probabilities)
    error = np.abs(found - expected).mean()
    agreement = (found.argmax(-1) == expected.argmax(-1)).mean()
    print(f"{iterations} iterations: mean error of the marginals {error:.2e}, same labels {agreement:.2%}")
    # Marginals move by a quarter of what scores do: 2% of messages that sum to 4 + 3, at the few pixels in doubt.
    assert error < 0.003
    assert agreement > 0.99


def test_constant_image_smooths_as_a_gaussian():
    """On one colour the bilateral kernel is a Gaussian over positions: compared with the closed form."""
    size, std = 61, 4.0
    image = np.full((size, size, 3), 77, np.uint8)
    values = np.zeros((size * size, 1), np.float32)
    values[size * size // 2] = 1
    found = gaussian_filter(Lattice(bilateral_features(image, std, 10.0)), 1)(values).reshape(size, size)
    offsets = np.arange(size) - size // 2
    expected = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * std**2)) / (2 * np.pi * std**2)
    print(f"impulse response: mean error {relative_error(found, expected):.2%}, sum {found.sum():.4f}")
    # A single value shows the lattice's corners, which averages of many hide.
    assert found.sum() == pytest.approx(1, abs=0.05)
    spread = np.sqrt((found * offsets[:, None] ** 2).sum() / found.sum())
    assert spread == pytest.approx(std, rel=0.06)
    assert relative_error(found, expected) < 0.25


@pytest.mark.parametrize("labels", ["most probable", "random", "all the same"])
def test_energy(exact, small, labels):
    """Against the sum over all pairs, and for labels that are all the same exactly the unaries."""
    image, probabilities = small
    x = {
        "most probable": probabilities.argmax(-1),
        "random": np.random.default_rng(0).integers(0, 3, probabilities.shape[:2]),
        "all the same": np.full(probabilities.shape[:2], 1),
    }[labels]
    unary = -np.log(np.take_along_axis(probabilities.astype(np.float64), x[..., None], -1)).sum()
    different = x.ravel()[:, None] != x.ravel()[None]
    pairs = [
        (np.triu(exact(features)) * different).sum()
        for features in (bilateral_features(image, 20, 20), spatial_features(image.shape[:2], 3))
    ]
    expected = unary + 4 * pairs[0] + 3 * pairs[1]
    found = DenseCRF(4, 20, 20, 3, 3).energy(image, probabilities, x)
    print(f"energy of labels {labels}: {found:.1f}, by all pairs {expected:.1f}, of it unary {unary:.1f}")
    # A sum of 480 float32 unaries, in float64; and the lattice's 2% of all pairs.
    assert found == pytest.approx(expected, rel=1e-5 if labels == "all the same" else 0.02)


@pytest.mark.slow
def test_mean_field_lowers_the_energy(photographs):
    for image, probabilities in photographs:
        crf = DenseCRF()
        before = crf.energy(image, probabilities, probabilities.argmax(-1))
        after = crf.energy(image, probabilities, crf(image, probabilities, return_labels=True))
        print(f"energy before {before:.0f}, after {after:.0f}")
        assert after < before
