"""Whatever goes in, every backend gives distributions or names the mistake; and on what is sound they agree."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from deeplab_tf.crf import DenseCRF, label_probabilities
from deeplab_tf.crf.pydensecrf import densecrf, utils
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
@pytest.mark.slow
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


def _spread(array):
    spread = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    spread[..., ::2] = array
    return spread[..., ::2]


def _read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


# The same numbers in other places of the memory, or in another order of bytes.
LAYOUTS = {
    "Fortran's order": np.asfortranarray,
    "backwards": lambda array: np.flip(np.flip(array).copy()),
    "every second": _spread,
    "read-only": _read_only,
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "doubles": lambda array: array.astype(np.float64) if array.dtype == np.float32 else array.astype(np.int64),
    "lists": np.ndarray.tolist,
}


def _answers(laid_out):
    """Answers of everything that takes arrays, each laid out by a function; 61 points: no whole number of registers."""
    generator = np.random.default_rng(4)
    image = generator.integers(0, 256, (6, 7, 3), np.uint8)
    probabilities = generator.dirichlet(np.ones(3), (6, 7)).astype(np.float32)
    labels = probabilities.argmax(-1)
    crf = DenseCRF(bilateral_color_std=40, iterations=2)
    yield crf(laid_out(image), laid_out(probabilities))
    yield crf(laid_out(image), laid_out(labels), num_classes=3)
    yield crf(laid_out(image[..., 0].astype(np.float32)), laid_out(probabilities), return_labels=True)
    yield crf.energy(laid_out(image), laid_out(probabilities), laid_out(labels))
    yield label_probabilities(laid_out(labels), 3)
    yield utils.unary_from_labels(laid_out(labels), 3, 0.7, zero_unsure=False)
    yield utils.unary_from_softmax(laid_out(probabilities.transpose(2, 0, 1)), scale=0.5)
    yield utils.create_pairwise_bilateral((3, 4), (5, 6, 7), laid_out(image), chdim=2)
    for dimensions in (2, 3, 5):
        d = densecrf.DenseCRF(61, 3)
        d.setUnaryEnergy(laid_out(generator.uniform(0, 2, (3, 61)).astype(np.float32)))
        d.addPairwiseEnergy(laid_out(generator.normal(0, 1, (dimensions, 61)).astype(np.float32)), 2)
        d.addPairwiseEnergy(np.ones((1, 61)), laid_out(generator.normal(0, 1, (3, 3)).astype(np.float32)))
        yield d.inference(2)
        yield d.klDivergence(laid_out(generator.dirichlet(np.ones(3), 61).T.astype(np.float32)))
    d = densecrf.DenseCRF2D(7, 6, 3)
    d.setUnaryEnergy(laid_out(generator.uniform(0, 2, (3, 42)).astype(np.float32)))
    photograph = np.asarray(laid_out(image))
    d.addPairwiseBilateral(5, 40, photograph if photograph.dtype == np.uint8 else image, 3)
    beliefs, *memory = d.startInference()
    d.stepInference(beliefs, *memory)
    yield beliefs


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_arrays_does_not_matter(layout):
    # The logarithms of `unary_from_softmax` are rounded once more where they are of doubles.
    tolerance = 1e-6 if layout in ("doubles", "lists") else 0
    for found, expected in zip(_answers(LAYOUTS[layout]), _answers(np.ndarray.copy), strict=True):
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=0)


def test_nothing_is_read_beyond_the_features():
    """The last pixels do not fill a register, and no memory may be read behind them."""
    code = """
import ctypes, mmap
import numpy as np
from deeplab_tf.crf.lattice import Lattice
memory = mmap.mmap(-1, 2 * mmap.PAGESIZE)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
features = np.frombuffer(memory, np.float32, 3 * 61, mmap.PAGESIZE - 4 * 3 * 61).reshape(3, 61)
features[:] = np.linspace(0, 9, 3 * 61).reshape(3, 61)
np.testing.assert_array_equal(Lattice(features).response, Lattice(features.copy()).response)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@settings(max_examples=80)
@given(
    arrays_of.arrays(
        st.sampled_from(["u1", "i2", "i8", "u8", "f4", "?"]), arrays_of.array_shapes(max_dims=4, max_side=4)
    ),
    st.one_of(st.integers(-3, 300), st.sampled_from([None, 2.0, 2.5, np.nan, 10**15, "3", True])),
    st.one_of(st.floats(), st.sampled_from([None, "0.7"])),
    st.integers(-300, 300),
    st.integers(0, 2**32 - 1),
)
def test_label_maps_give_distributions_or_name_the_mistake(labels, num_classes, confidence, ignore_label, seed):
    generator = np.random.default_rng(seed)
    if labels.dtype.kind in "iu" and isinstance(num_classes, int) and num_classes > 1 and seed % 2:  # sound ones, too
        labels = generator.integers(0, min(num_classes, 127), labels.shape).astype(labels.dtype)
        confidence = 0.9
    try:
        found = label_probabilities(labels, num_classes, confidence, ignore_label)
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert found.shape == (*labels.shape, num_classes) and found.dtype == np.float32
    # C numbers, each rounded by 2^-24 of itself.
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    known = labels != ignore_label
    np.testing.assert_array_equal(found.argmax(-1)[known], labels[known])
    assert np.ptp(found[~known]) == 0 if (~known).any() else True


@settings(max_examples=80)
@given(
    arrays_of.arrays(
        st.sampled_from(["f2", "f4", "f8", ">f4", "i4"]),
        arrays_of.array_shapes(max_dims=4, max_side=5),
        elements={"min_value": 0, "max_value": 1},
    ),
    st.one_of(st.none(), st.floats()),
    st.sampled_from([None, 1e-5, 0.1]),
    st.integers(-2, 5),
    st.lists(st.floats(1e-3, 1e3), max_size=4),
    st.one_of(st.floats(1e-3, 1e3), st.lists(st.floats(1e-3, 1e3), max_size=5)),
)
def test_helpers_of_pydensecrf_give_finite_numbers_or_name_the_mistake(sm, scale, clip, chdim, sdims, schan):
    try:
        unary = utils.unary_from_softmax(sm, scale, clip)
    except UserError as error:
        assert "scale is" in str(error)
    else:
        assert unary.shape == (len(sm), sm[0].size) and unary.dtype == np.float32 and not np.isnan(unary).any()
        assert clip is None or np.isfinite(unary).all()
    try:
        features = utils.create_pairwise_bilateral(sdims, schan, sm, chdim)
    except UserError as error:
        assert "create_pairwise" in str(error) and "\n" not in str(error)
    else:
        channels = 1 if chdim == -1 else sm.shape[chdim]
        assert features.shape == (len(sdims) + channels, sm.size // channels) and np.isfinite(features).all()


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


def test_tensors_of_any_framework_are_arrays_or_refused_by_name(small):
    """NumPy takes most tensors as they are; those that it cannot take, and the way out, are named in one line."""
    torch, keras, tf = (pytest.importorskip(name) for name in ("torch", "keras", "tensorflow"))
    image, probabilities = small
    crf = DenseCRF(iterations=2)
    expected = crf(image, probabilities)
    for module, array in ((torch.from_numpy, torch.from_numpy), (tf.constant, tf.constant), (np.asarray, list)):
        np.testing.assert_array_equal(crf(module(image), array(probabilities)), expected)
    # bfloat16 has steps of 2^-9 of a probability.
    short = tf.cast(probabilities, tf.bfloat16)
    np.testing.assert_allclose(crf(image, short), crf(image, tf.cast(short, tf.float32)), atol=1e-6)
    for wrong, message in (
        (torch.tensor(probabilities, requires_grad=True), "requires grad.*expected an array in main memory"),
        (torch.tensor(probabilities, device="meta"), "expected an array in main memory"),
        (keras.Input(probabilities.shape), "backend 'tensorflow' takes tensors in a graph"),
        ([[1], [2, 3]], "cannot be taken as an array"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            crf(image, wrong)
        assert "\n" not in str(raised.value)


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
