"""`deeplab_tf.crf.pydensecrf` gives the answers of pydensecrf, program by program."""

import importlib
import multiprocessing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import deeplab_tf.crf.pydensecrf as dcrf
from deeplab_tf.crf import DenseCRF
from deeplab_tf.crf.pydensecrf import densecrf, utils
from deeplab_tf.errors import UserError
from tests.crf.pydensecrf_programs import ANSWERS, CLASSES, HEIGHT, PROGRAMS, WIDTH, scene


@pytest.fixture(scope="module")
def answers():
    with np.load(ANSWERS) as stored:
        return dict(stored)


def check_same(name, found, expected):
    assert found.shape == expected.shape
    if np.issubdtype(expected.dtype, np.integer):
        # A pixel in doubt may get another label; and one on the border of two simplices may be put into the other one.
        assert (found == expected).mean() >= 0.999
    elif name == "divergence":
        # A sum over all pixels of terms of both signs: the float32 rounding of each, over what is left of the sum.
        np.testing.assert_allclose(found, expected, rtol=1e-3)
    elif "unaries" in name:
        # Logarithms of two libraries, and a division.
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    else:  # marginals [..., C, N]
        axis = -3 if name == "deeplab_pytorch" else -2
        agreement = (found.argmax(axis) == expected.argmax(axis)).mean()
        print(f"{name}: same labels {agreement:.4%}, mean difference {np.abs(found - expected).mean():.1e}")
        assert agreement >= 0.999 or name == "no_unary"  # there all classes are equal
        assert np.abs(found - expected).mean() < 1e-3


@pytest.mark.parametrize("name", PROGRAMS)
def test_stored_answers(name, answers):
    check_same(name, PROGRAMS[name](densecrf, utils), answers[name])


@pytest.mark.yardstick
@pytest.mark.parametrize("name", PROGRAMS)
def test_live_answers(name, answers, yardstick):
    expected = PROGRAMS[name](yardstick.densecrf, yardstick.utils)
    check_same(name, answers[name], expected)
    check_same(name, PROGRAMS[name](densecrf, utils), expected)


@pytest.mark.yardstick
@pytest.mark.parametrize("normalization", ["NO_NORMALIZATION", "NORMALIZE_AFTER", "NORMALIZE_SYMMETRIC"])
def test_live_on_a_photograph(photographs, yardstick, normalization):
    """At full size, every class believed in or not, both cores at work."""
    image, probabilities = photographs[2]
    height, width, classes = probabilities.shape

    def run(densecrf, utils):
        d = densecrf.DenseCRF2D(width, height, classes)
        d.setUnaryEnergy(utils.unary_from_softmax(np.ascontiguousarray(probabilities.transpose(2, 0, 1))))
        more = {"normalization": getattr(densecrf, normalization)}
        small = 1e-3 if normalization == "NO_NORMALIZATION" else 1  # the row sums are in the thousands
        d.addPairwiseGaussian(sxy=3, compat=3 * small, **more)
        d.addPairwiseBilateral(sxy=(67, 50), srgb=(3, 4, 5), rgbim=image.copy(), compat=4 * small, **more)
        q = np.array(d.inference(10))
        return q, d.klDivergence(d.startInference()[0])

    (found, kl), (expected, expected_kl) = run(densecrf, utils), run(yardstick.densecrf, yardstick.utils)
    check_same(normalization, found, expected)
    assert kl == pytest.approx(expected_kl, rel=1e-3)


def test_the_constants_are_theirs_and_every_name_is_in_one_place():
    for name in (*densecrf.__all__, *utils.__all__):
        assert getattr(dcrf, name) is getattr(importlib.import_module(dcrf.__name__), name)
    assert [int(c) for c in (dcrf.CONST_KERNEL, dcrf.DIAG_KERNEL, dcrf.FULL_KERNEL)] == [0, 1, 2]
    constants = (dcrf.NO_NORMALIZATION, dcrf.NORMALIZE_BEFORE, dcrf.NORMALIZE_AFTER, dcrf.NORMALIZE_SYMMETRIC)
    assert [int(c) for c in constants] == [0, 1, 2, 3]


def test_same_as_the_class_without_muted_classes():
    image, softmax = scene()
    probabilities = np.ascontiguousarray(softmax.transpose(1, 2, 0))
    expected = DenseCRF(class_threshold=0)(image, probabilities)
    found = PROGRAMS["defaults"](densecrf, utils).reshape(CLASSES, HEIGHT, WIDTH).transpose(1, 2, 0)
    # The same kernels, the same order of sums; the rows are transposed.
    np.testing.assert_allclose(found, expected, atol=1e-5)


def _crf():
    d = densecrf.DenseCRF2D(6, 5, 3)
    d.setUnaryEnergy(np.ones((3, 30), np.float32))
    return d


MISTAKES = {
    "unary of another shape": (lambda d: d.setUnaryEnergy(np.ones((30, 3), "f4")), r"Need \(3, 30\), got \(30, 3\)"),
    "unary NaN": (lambda d: d.setUnaryEnergy(np.full((3, 30), np.nan)), "contain NaN"),
    "unary of words": (lambda d: d.setUnaryEnergy(np.full((3, 30), "x")), "unary is not an array of numbers"),
    "logistic unary": (lambda d: d.setUnaryEnergy(np.ones((3, 2)), np.ones((2, 30))), "LogisticUnary is not offered"),
    "logistic object": (lambda d: densecrf.LogisticUnary(None, None), "LogisticUnary is not offered"),
    "no unary": (lambda d: d.setUnary(3), "unary is a int"),
    "features of another count": (lambda d: d.addPairwiseEnergy(np.ones((2, 29)), 3), r"Need \(\?, 30\)"),
    "features NaN": (lambda d: d.addPairwiseEnergy(np.full((2, 30), np.inf), 3), "not finite"),
    "features too far": (lambda d: d.addPairwiseEnergy(np.full((2, 30), 1e20), 3), "too many for the lattice"),
    "no features": (lambda d: d.addPairwiseEnergy(np.ones((0, 30)), 3), "Bad shape"),
    "normalization": (lambda d: d.addPairwiseGaussian(3, 3, normalization=7), "7 is not a valid"),
    "kernel": (lambda d: d.addPairwiseGaussian(3, 3, kernel=7), "7 is not a valid"),
    "compat of another size": (lambda d: d.addPairwiseGaussian(3, np.ones(4)), r"compat has shape \(4,\)"),
    "compat of three axes": (lambda d: d.addPairwiseGaussian(3, np.ones((3, 3, 3))), "compat has shape"),
    "compat NaN": (lambda d: d.addPairwiseGaussian(3, np.nan), "compat contains"),
    "width 0": (lambda d: d.addPairwiseGaussian(0, 3), "sxy is 0"),
    "three widths": (lambda d: d.addPairwiseGaussian((1, 2, 3), 3), "expected one number or 2"),
    "grey image": (lambda d: d.addPairwiseBilateral(3, 3, np.ones((5, 6), np.uint8), 3), "Bad shape for pairwise"),
    "float image": (lambda d: d.addPairwiseBilateral(3, 3, np.ones((5, 6, 3)), 3), "of uint8"),
    "Q of another shape": (lambda d: d.klDivergence(np.ones((3, 29))), "Q has shape"),
    "labels too high": (lambda d: utils.unary_from_labels(np.array([4]), 3, 0.7), "found labels 4 to 4"),
    "label floats": (lambda d: utils.unary_from_labels(np.array([1.0]), 3, 0.7), "expected integers"),
    "gt_prob": (lambda d: utils.unary_from_labels(np.array([1]), 3, 1.0), "gt_prob is 1.0"),
    "scale": (lambda d: utils.unary_from_softmax(np.ones((2, 2)), scale=0), "scale is 0"),
    "no variables": (lambda d: densecrf.DenseCRF(0, 3), "nvar is 0"),
    "half a class": (lambda d: densecrf.DenseCRF2D(5, 6, 2.5), "nlabels is 2.5"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_value_errors_that_name_them(mistake):
    use, message = MISTAKES[mistake]
    with pytest.raises(UserError, match=message) as raised:
        use(_crf())
    assert isinstance(raised.value, ValueError) and "\n" not in str(raised.value)


def _by_all_pairs(features, energies, weight, iterations):
    """Mean field of the Potts model by sums over all pairs, float64; features [d, N], energies [C, N]."""
    features = features.T.astype(np.float64)
    kernel = np.exp(-((features[:, None] - features[None]) ** 2).sum(-1) / 2)
    root = np.sqrt(kernel.sum(1))
    kernel /= root[:, None] * root

    def softmax(scores):
        beliefs = np.exp(scores - scores.max(0))
        return beliefs / beliefs.sum(0)

    beliefs = softmax(-energies)
    for _ in range(iterations):
        beliefs = softmax(-energies + weight * beliefs @ kernel)
    return beliefs


@pytest.mark.parametrize("dimensions", range(1, 10))
def test_any_number_of_features_against_all_pairs(dimensions):
    generator = np.random.default_rng(dimensions)
    features = generator.normal(0, 0.7, (dimensions, 300)).astype(np.float32)
    energies = generator.uniform(0, 2, (3, 300)).astype(np.float32)
    d = densecrf.DenseCRF(300, 3)
    d.setUnaryEnergy(energies)
    d.addPairwiseEnergy(features, compat=2)
    found = d.inference(4)
    expected = _by_all_pairs(features, energies, 2, 4)
    # The lattice approximates worse in many dimensions: pydensecrf's own error is 0.0012 with 5 and 0.025 with 9.
    assert np.abs(found - expected).mean() < (0.005 if dimensions < 7 else 0.03)
    assert (found.argmax(0) == expected.argmax(0)).mean() > 0.96


@settings(max_examples=60)
@given(
    st.integers(1, 90),
    st.integers(1, 9),
    st.integers(1, 9),
    st.floats(-6, 4).map(lambda exponent: 10**exponent),
    st.sampled_from(["f2", "f4", "f8", "i4"]),
    st.sampled_from(list(densecrf.NormalizationType)),
    st.sampled_from(["number", "vector", "matrix"]),
    st.booleans(),
)
def test_fuzzed(count, classes, dimensions, width, dtype, normalization, form, strided):
    """One point, constant features, tiny and huge widths, odd dtypes and strides: distributions, or a clear error."""
    generator = np.random.default_rng(count)
    features = (generator.integers(-9, 9, (dimensions, count)) / width).astype(dtype if width > 0.1 else "f8")
    energies = generator.normal(0, 30, (classes, count)).astype(dtype)
    if strided:
        features, energies = np.asfortranarray(features), energies[:, ::-1]
    compat = {
        "number": 3.0,
        "vector": generator.normal(size=classes),
        "matrix": generator.normal(size=(classes, classes)),
    }[form]
    d = densecrf.DenseCRF(count, classes)
    d.setUnaryEnergy(energies)
    try:
        d.addPairwiseEnergy(features, compat, normalization=normalization)
    except UserError as error:
        assert "too many for the lattice" in str(error) or "not finite" in str(error)
        return
    found = d.inference(3)
    assert found.shape == (classes, count) and found.dtype == np.float32
    assert np.isfinite(found).all() and found.min() >= 0
    # Nine classes at most, and exponentials of scores of hundreds, good to 1e-5.
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-4)
    assert np.isfinite(d.klDivergence(found))


def _run_defaults():
    PROGRAMS["defaults"](densecrf, utils)


def test_survives_a_fork():
    _run_defaults()
    child = multiprocessing.get_context("fork").Process(target=_run_defaults)
    child.start()
    child.join(60)
    assert child.exitcode == 0
