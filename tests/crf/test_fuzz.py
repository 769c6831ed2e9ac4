"""Whatever goes in, every backend gives distributions or names the mistake; and on what is sound they agree."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from deeplab_tf.crf import DenseCRF
from deeplab_tf.errors import UserError

BACKENDS = ["numba", "tensorflow", pytest.param("pydensecrf", marks=pytest.mark.yardstick)]
DTYPES = [np.float16, np.float32, np.float64]


@st.composite
def scenes(draw):
    """A sound image uint8 [H, W, 3] and probabilities [H, W, C]: thin ones, few classes, certain ones, odd layouts."""
    height, width, classes = draw(st.integers(1, 12)), draw(st.integers(1, 12)), draw(st.integers(1, 8))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    image = generator.integers(0, 256, (height, width, 3), np.uint8)
    if draw(st.booleans()):
        image[:] = image[0, 0]
    probabilities = generator.dirichlet(np.full(classes, draw(st.sampled_from([0.01, 1.0, 100.0]))), (height, width))
    if draw(st.booleans()):
        probabilities = np.eye(classes)[probabilities.argmax(-1)]
    probabilities = probabilities.astype(draw(st.sampled_from(DTYPES)))
    if draw(st.booleans()):
        image, probabilities = image[:, ::-1], np.asfortranarray(probabilities)
    return image, probabilities


@st.composite
def parameters(draw, smallest_std=1e-3):
    """The parameters of a CRF, also strange ones."""
    weights = st.sampled_from([0.0, 0.5, 3.0, 10.0, 1e6])
    stds = st.floats(np.log10(smallest_std), 4).map(lambda exponent: 10**exponent)
    return {
        "bilateral_weight": draw(weights),
        "spatial_weight": draw(weights),
        "bilateral_spatial_std": draw(stds),
        "bilateral_color_std": draw(stds),
        "spatial_std": draw(stds),
        "iterations": draw(st.integers(0, 3)),
    }


def check_runs(backend, scene, arguments):
    image, probabilities = scene
    try:
        found = DenseCRF(backend=backend, **arguments)(image, probabilities)
    except UserError as error:
        assert "standard deviations" in str(error)
        return
    assert found.dtype == np.float32 and found.shape == probabilities.shape
    assert found.min() >= 0
    # Every class is divided by the rounded sum; exponentials of scores in the hundreds are good to 1e-5.
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-4)


@settings(max_examples=100)
@given(scenes(), parameters())
def test_numba_gives_distributions(scene, arguments):
    check_runs("numba", scene, arguments)


@settings(max_examples=20)
@given(scenes(), parameters())
def test_tensorflow_gives_distributions(scene, arguments):
    check_runs("tensorflow", scene, arguments)


@pytest.mark.yardstick
@settings(max_examples=50)
@given(scenes(), parameters(smallest_std=0.1))
def test_pydensecrf_gives_distributions(scene, arguments):
    check_runs("pydensecrf", scene, arguments)


@pytest.mark.yardstick
@settings(max_examples=60)
@given(scenes(), parameters(smallest_std=0.5))
def test_numba_agrees_with_pydensecrf(scene, arguments):
    arguments = {**arguments, "bilateral_weight": min(5, arguments["bilateral_weight"])}
    arguments["spatial_weight"] = min(5, arguments["spatial_weight"])
    found = DenseCRF(**arguments, class_threshold=0)(*scene)
    expected = DenseCRF(**arguments, backend="pydensecrf")(*scene)
    # A pixel on the border of two simplices may be put into the one or the other.
    np.testing.assert_allclose(found, expected, atol=2e-2)
    assert np.abs(found - expected).mean() < 1e-3


@settings(max_examples=12)
@given(scenes(), parameters(smallest_std=0.5))
def test_tensorflow_agrees_with_numba(scene, arguments):
    arguments = {**arguments, "bilateral_weight": min(5, arguments["bilateral_weight"])}
    arguments["spatial_weight"] = min(5, arguments["spatial_weight"])
    found = DenseCRF(**arguments, backend="tensorflow")(*scene)
    # A pixel within rounding of the border of two simplices may be put into the one or the other.
    np.testing.assert_allclose(found, DenseCRF(**arguments, class_threshold=0)(*scene), atol=5e-3)


@settings(max_examples=150)
@given(
    arrays_of.arrays(
        st.sampled_from([np.uint8, np.int32, np.float32, bool]),
        arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3),
    ),
    arrays_of.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.uint8, np.complex64, object, "U3"]),
        arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3),
    ),
)
def test_anything_else_is_a_user_error(image, probabilities):
    try:
        found = DenseCRF(iterations=1)(image, probabilities)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert found.shape == probabilities.shape
        np.testing.assert_allclose(found.sum(-1), 1, atol=1e-4)


IMAGE = np.zeros((4, 5, 3), np.uint8)
EVEN = np.full((4, 5, 2), 0.5, np.float32)
MISTAKES = {
    "booleans": (IMAGE > 0, EVEN, "image has dtype bool, expected integers or floating point"),
    "NaN in the image": (IMAGE * np.nan, EVEN, "image contains values that are not finite"),
    "an axis too many": (IMAGE[None, None], EVEN, r"the image \(1, 1, 4, 5, 3\)"),
    "no pixels": (IMAGE[:0], EVEN[:0], "image is empty"),
    "another size": (IMAGE, EVEN[:3], r"probabilities have shape \(3, 5, classes\), the image \(4, 5, 3\)"),
    "channels first": (IMAGE, EVEN.transpose(2, 0, 1), "the probabilities have shape"),
    "no classes": (IMAGE, EVEN[..., :0], "no classes"),
    "integers": (IMAGE, EVEN.astype(int), "integers|dtype int64"),
    "NaN": (IMAGE, np.where(np.arange(2) == 1, np.nan, EVEN), "not finite"),
    "infinity": (IMAGE, np.where(np.arange(2) == 1, np.inf, EVEN), "not finite"),
    "too large for float32": (IMAGE, np.where(np.arange(2) == 1, 1e300, EVEN.astype(float)), "not finite"),
    "negative": (IMAGE, EVEN + np.array([-1, 1], np.float32), "contain -0.5: apply a softmax"),
    "scores": (IMAGE, EVEN * 3, "sum to 1 only within 2"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(backend, mistake):
    image, probabilities, message = MISTAKES[mistake]
    for use in (DenseCRF(backend=backend), lambda *pair: next(DenseCRF(backend=backend).trace(*pair))):
        with pytest.raises(UserError, match=message):
            use(image, probabilities)


@pytest.mark.parametrize("backend", BACKENDS)
def test_widths_that_are_too_small_for_the_lattice(backend):
    for std in (1e-5, 1e-30):
        with pytest.raises(UserError, match="too many for the lattice"):
            DenseCRF(bilateral_color_std=std, bilateral_spatial_std=std, backend=backend)(IMAGE + IMAGE.ndim * 50, EVEN)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((4, 4), int), r"labels are int64 \[4, 4\], expected integers \[4, 5\]"),
        (np.zeros((4, 5)), "labels are float64"),
        (np.full((4, 5), 2), "labels are 2 to 2, expected 0 to 1"),
        (np.full((4, 5), -1), "labels are -1 to -1"),
    ],
)
def test_labels_of_the_energy(labels, message):
    with pytest.raises(UserError, match=message):
        DenseCRF().energy(IMAGE, EVEN, labels)
