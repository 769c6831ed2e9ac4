"""Comparisons: the figures by hand, the interval where its answer is known, what cannot be compared."""

import dataclasses

import numpy as np
import pytest

from deeplab_tf.errors import UserError
from deeplab_tf.evaluation import ImageCounts, compare
from deeplab_tf.evaluation.comparison import mean_iou_interval

NAMES = ("road", "sky", "bird")


def run(images: int, quality: float, seed: int, spread: float = 0.1) -> ImageCounts:
    """Counts of a run that gets a part of the pixels right, more in some images; classes 0 and 1 are confused."""
    truth = np.random.default_rng(0).integers(500, 1500, (images, 2))
    share = np.clip(np.random.default_rng(seed).normal(quality, spread, (images, 2)), 0, 1)
    right = np.round(share * truth).astype(np.int64)
    wrong = truth - right
    counts = np.zeros((images, 3, 3), np.int64)
    counts[:, 0, :2], counts[:, 1, :2], counts[:, 2, :2] = right, truth, right + wrong[:, ::-1]
    return ImageCounts(NAMES, tuple(f"{i}.jpg" for i in range(images)), counts)


def brute_force_iou(counts, images):
    both, truth, predicted = (sum(counts[i, k] for i in images) for k in range(3))
    return np.array([b / (t + p - b) if t + p - b else np.nan for b, t, p in zip(both, truth, predicted, strict=True)])


def test_figures_and_interval_by_brute_force():
    a, b = run(12, 0.8, 1), run(12, 0.7, 2)
    result = compare(a, b, samples=400, seed=5)
    np.testing.assert_allclose(result.first[:3], brute_force_iou(a.network, range(12)))
    assert result.second[3] == pytest.approx(np.nanmean(brute_force_iou(b.network, range(12))))
    times = np.random.default_rng(5).multinomial(12, np.full(12, 1 / 12), size=400)
    differences = []
    for sample in times:
        images = np.repeat(np.arange(12), sample)
        ious = [brute_force_iou(counts.network, images) for counts in (a, b)]
        differences.append([*(ious[0] - ious[1])[:2], np.nanmean(ious[0]) - np.nanmean(ious[1])])
    low, high = np.percentile(differences, (2.5, 97.5), axis=0)
    np.testing.assert_allclose(result.low[[0, 1, 3]], low)
    np.testing.assert_allclose(result.high[[0, 1, 3]], high)
    assert np.isnan(result.low[2]) and not result.significant[2]  # no bird anywhere


def test_the_interval_of_one_mean_by_brute_force():
    counts = run(25, 0.8, 1).network
    times = np.random.default_rng(5).multinomial(25, np.full(25, 1 / 25), size=250)
    means = [np.nanmean(brute_force_iou(counts, np.repeat(np.arange(25), sample))) for sample in times]
    found = mean_iou_interval(counts, samples=250, seed=5)
    np.testing.assert_allclose(found, np.percentile(means, (2.5, 97.5)))
    before = run(25, 0.7, 2).network
    means_before = [np.nanmean(brute_force_iou(before, np.repeat(np.arange(25), sample))) for sample in times]
    changes = np.subtract(means, means_before)
    found = mean_iou_interval(counts, before=before, samples=250, seed=5)
    np.testing.assert_allclose(found, np.percentile(changes, (2.5, 97.5)))
    assert mean_iou_interval(counts[:19]) is None and mean_iou_interval(np.zeros_like(counts)) is None


def test_the_interval_holds_the_mean_of_other_images():
    """Nineteen times of twenty, as far as a hundred trials can tell."""
    truth = np.nanmean(brute_force_iou(run(20_000, 0.8, 0).network, range(20_000)))
    intervals = [mean_iou_interval(run(60, 0.8, seed).network, samples=300) for seed in range(1, 101)]
    assert 85 <= sum(low <= truth <= high for low, high in intervals) <= 100


def test_noise_is_rarely_taken_for_progress_and_progress_is_seen():
    """Two runs of one quality differ "significantly" about as often as the level says."""
    verdicts = [compare(run(60, 0.8, 2 * s), run(60, 0.8, 2 * s + 1), samples=300).significant[3] for s in range(100)]
    assert np.mean(verdicts) < 0.12
    better = compare(run(200, 0.82, 1), run(200, 0.78, 2))
    assert better.significant[3] and better.low[3] > 0
    assert "better" in better.table("A", "B").splitlines()[6]


def test_images_are_matched_by_name_and_may_be_fewer():
    a, b = run(10, 0.8, 1), run(10, 0.7, 2)
    order = np.random.default_rng(0).permutation(10)
    shuffled = ImageCounts(NAMES, tuple(b.filenames[i] for i in order), b.network[order])
    np.testing.assert_array_equal(compare(a, shuffled).low, compare(a, b).low)
    few = ImageCounts(NAMES, a.filenames[:4], a.network[:4])
    assert compare(few, shuffled).images == 4


def test_after_the_crf_where_both_have_one():
    a, b = run(10, 0.8, 1), run(10, 0.7, 2)
    a_crf = dataclasses.replace(a, crf=run(10, 0.9, 3).network)
    assert not compare(a_crf, b).after_crf
    both = compare(a_crf, dataclasses.replace(b, crf=b.network))
    assert both.after_crf and both.first[0] > 0.75


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ("road", "sky", "cat")}, "different classes"),
        ({"filenames": tuple(f"{i}.png" for i in range(10))}, "0.jpg is missing"),
        ({"network": run(10, 0.7, 2).network + 1}, "the true masks of the two evaluations differ"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        compare(run(10, 0.8, 1), dataclasses.replace(run(10, 0.7, 2), **change))


def test_few_images_get_no_verdict():
    """What 200 images show beyond doubt is not called better by two of them."""
    few = compare(run(2, 0.9, 1, spread=0), run(2, 0.5, 2, spread=0))
    assert few.low[3] > 0 and not few.significant.any()
    assert "better" not in few.table("A", "B") and "no verdicts: 2 images are too few, they need 20" in few.table(
        "A", "B"
    )
    assert compare(run(20, 0.9, 1, spread=0), run(20, 0.5, 2, spread=0)).significant[3]
