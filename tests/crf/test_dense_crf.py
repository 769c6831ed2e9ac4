"""The promises of `DenseCRF`, whichever way it is computed."""

import concurrent.futures
import json
import subprocess
import sys

import numpy as np
import pytest

from deeplab_tf.crf import DenseCRF
from deeplab_tf.errors import UserError

PARAMETERS = [
    {},
    {"bilateral_weight": 6.0, "bilateral_spatial_std": 40.0, "bilateral_color_std": 6.0},
    {"bilateral_weight": 10.0, "bilateral_spatial_std": 80.0, "bilateral_color_std": 13.0, "spatial_weight": 1.0},
    {"spatial_weight": 5.0, "spatial_std": 1.0, "iterations": 3},
]


@pytest.mark.yardstick
@pytest.mark.parametrize("class_threshold", [0.0, 0.01])
@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.slow
def test_agrees_with_pydensecrf_on_photographs(photographs, parameters, class_threshold):
    for image, probabilities in photographs:
        expected = DenseCRF(backend="pydensecrf", **parameters)(image, probabilities)
        found = DenseCRF(class_threshold=class_threshold, **parameters)(image, probabilities)
        agreement = (found.argmax(-1) == expected.argmax(-1)).mean()
        difference = np.abs(found - expected).mean()
        print(f"{parameters}: same labels {agreement:.4%}, mean difference of the marginals {difference:.1e}")
        assert agreement >= 0.999
        assert difference < 1e-3


def test_changes_photographs_for_the_better(photographs):
    image, probabilities = photographs[0]
    refined = DenseCRF()(image, probabilities)
    assert 0.005 < (refined.argmax(-1) != probabilities.argmax(-1)).mean() < 0.1


def test_marginals_sum_to_one(small):
    marginals = DenseCRF()(*small)
    assert marginals.dtype == np.float32
    assert marginals.shape == small[1].shape
    # A softmax: every class divided by the rounded sum, 2^-24 each, and an exponential good to a few of these.
    np.testing.assert_allclose(marginals.sum(axis=-1), 1, atol=1e-5)


@pytest.mark.yardstick
# One register, full and not; two; six, in two pieces. (Every length of row is compiled: more would take long.)
@pytest.mark.parametrize("classes", [1, 7, 8, 9, 42])
def test_any_number_of_classes(small, classes):
    image, _ = small
    probabilities = np.random.default_rng(classes).dirichlet(np.ones(classes), image.shape[:2]).astype(np.float32)
    found = DenseCRF(class_threshold=0)(image, probabilities)
    if classes == 1:
        # One exponential over itself.
        np.testing.assert_allclose(found, 1, atol=1e-6)
    else:
        # Scores of up to 20 have float32 steps of 2e-6; ten iterations of sums in another order add up some of them.
        np.testing.assert_allclose(found, DenseCRF(backend="pydensecrf")(image, probabilities), atol=1e-4)


def test_zero_weights_return_the_input(small):
    image, probabilities = small
    found = DenseCRF(bilateral_weight=0, spatial_weight=0)(image, probabilities)
    # exp(log(p)) over its sum: a logarithm of up to 10 is rounded by 5e-7, and p < 1 changes by that fraction.
    np.testing.assert_allclose(found, probabilities, atol=1e-6)


def test_zero_iterations_return_the_input(small):
    image, probabilities = small
    # As with zero weights.
    np.testing.assert_allclose(DenseCRF(iterations=0)(image, probabilities), probabilities, atol=1e-6)


def test_classes_permute(small):
    image, probabilities = small
    order = [2, 0, 1]
    found = DenseCRF()(image, np.ascontiguousarray(probabilities[..., order]))
    # The sum over the classes in another order, ten times: ten roundings of scores of up to 20.
    np.testing.assert_allclose(found, DenseCRF()(image, probabilities)[..., order], atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_flips_commute(small, axis):
    """Up to the approximation: the lattice is not mirror-symmetric."""
    image, probabilities = small
    crf = DenseCRF(4, 20, 20, 3, 3)
    flipped = crf(np.flip(image, axis), np.flip(probabilities, axis))
    # Of the lattice's approximation (test_exact.py), not of rounding: a pixel in doubt may move by several per cent.
    np.testing.assert_allclose(np.flip(flipped, axis), crf(image, probabilities), atol=0.08)
    assert np.abs(np.flip(flipped, axis) - crf(image, probabilities)).mean() < 0.003


def test_threads_do_not_matter(photographs):
    image, probabilities = photographs[0]
    one = DenseCRF(threads=1, iterations=3)(image, probabilities)
    # Threads add up the lattice's points in another order: a rounding, 2e-6 of scores of up to 20, per iteration.
    np.testing.assert_allclose(DenseCRF(threads=3, iterations=3)(image, probabilities), one, atol=2e-5)


def test_calls_from_several_threads(photographs):
    crf = DenseCRF(iterations=2)
    alone = [crf(*pair) for pair in photographs]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda pair: crf(*pair), photographs))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)


def test_survives_a_fork(small):
    """A process forked after the threads were used runs the CRF as well."""
    code = """
import multiprocessing, numpy as np
from deeplab_tf.crf import DenseCRF
image = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
probabilities = np.full((200, 200, 4), 0.25, np.float32)
crf = DenseCRF(iterations=2, threads=2)
crf(image, probabilities)
child = multiprocessing.get_context("fork").Process(target=crf, args=(image, probabilities))
child.start(); child.join(60)
assert child.exitcode == 0, child.exitcode
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_left_out_classes_stay_close(photographs):
    """Leaving out classes that nobody believes in changes neither labels nor, to speak of, marginals."""
    image, probabilities = photographs[0]
    believed = np.zeros((*probabilities.shape[:2], 21), np.float32)
    believed[..., 2:13] = probabilities * (1 - 10 * 0.004)
    believed[..., [0, 1, *range(13, 21)]] = 0.004
    every = DenseCRF(class_threshold=0)(image, believed)
    some = DenseCRF()(image, believed)
    assert (every.argmax(-1) == some.argmax(-1)).mean() > 0.9999
    # By design: ten classes of 0.004 each are left out, and take part of the messages with them.
    assert np.abs(every - some).max() < 5e-3
    assert np.abs(every - some).mean() < 1e-4
    # A softmax, as above.
    np.testing.assert_allclose(some.sum(-1), 1, atol=1e-5)


def test_labels(small):
    image, probabilities = small
    labels = DenseCRF()(image, probabilities, return_labels=True)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, DenseCRF()(image, probabilities).argmax(-1))


@pytest.mark.parametrize("backend", ["numba", "tensorflow", pytest.param("pydensecrf", marks=pytest.mark.yardstick)])
def test_trace(small, backend):
    crf = DenseCRF(backend=backend)
    iterations = list(crf.trace(*small))
    assert len(iterations) == 10
    # The same steps; the last softmax is fused with the scores or not.
    np.testing.assert_allclose(iterations[-1].beliefs, crf(*small), atol=1e-6)
    for scores, beliefs in iterations:
        softmax = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        # Scores of up to 20, rounded by 1e-6, and the exponentials of two libraries.
        np.testing.assert_allclose(softmax, beliefs, atol=1e-5)


def test_trace_starts_from_the_unaries(small, exact):
    """The first scores are log P plus the messages of the input."""
    from deeplab_tf.crf.features import bilateral_features, spatial_features

    image, probabilities = small
    flat = probabilities.reshape(-1, 3)
    scores = next(DenseCRF(4, 20, 20, 3, 3).trace(image, probabilities)).scores
    expected = np.log(flat)
    expected += (
        4 * exact(bilateral_features(image, 20, 20)) @ flat + 3 * exact(spatial_features(image.shape[:2], 3)) @ flat
    )
    # The lattice's error (test_exact.py), times the weights.
    np.testing.assert_allclose(scores.reshape(-1, 3), expected, atol=0.05 * (4 + 3))
    assert np.abs(scores.reshape(-1, 3) - expected).mean() < 0.05


def test_save_and_load(tmp_path):
    crf = DenseCRF(5.0, 49.0, 4.0, 3.0, 3.0, 7, backend="pydensecrf", threads=3)
    crf.save(tmp_path / "crf.json")
    assert DenseCRF.load(tmp_path / "crf.json") == DenseCRF(5.0, 49.0, 4.0, 3.0, 3.0, 7)
    assert DenseCRF.load(tmp_path / "crf.json", backend="pydensecrf", threads=3) == crf
    assert json.loads((tmp_path / "crf.json").read_text())["bilateral_spatial_std"] == 49.0


def test_load_complains(tmp_path):
    with pytest.raises(UserError, match="search_crf"):
        DenseCRF.load(tmp_path / "crf.json")
    for text in ("{", "[]", '{"w1": 3}', '{"iterations": "ten"}'):
        (tmp_path / "crf.json").write_text(text)
        with pytest.raises(UserError, match="crf.json|iterations"):
            DenseCRF.load(tmp_path / "crf.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bilateral_weight": -1}, "bilateral_weight is -1"),
        ({"bilateral_color_std": 0}, "bilateral_color_std is 0"),
        ({"spatial_std": float("nan")}, "spatial_std is nan"),
        ({"iterations": 2.5}, "iterations is 2.5"),
        ({"threads": 0}, "threads is 0"),
        ({"backend": "cuda"}, "backend is 'cuda'"),
        ({"spatial_weight": "3"}, "spatial_weight is '3'"),
    ],
)
def test_bad_parameters(arguments, message):
    with pytest.raises(UserError, match=message):
        DenseCRF(**arguments)


def test_does_not_import_tensorflow():
    code = "import sys, deeplab_tf.crf; deeplab_tf.crf.DenseCRF(); assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
