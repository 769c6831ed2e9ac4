"""An evaluation against the same thing done image by image, one step after another."""

import dataclasses
import json
import re

import numpy as np
import pytest

from deeplab_tf import Segmenter
from deeplab_tf.counts import ImageCounts, iou, mean_iou
from deeplab_tf.crf import DenseCRF
from deeplab_tf.errors import UserError
from deeplab_tf.evaluation import ConfusionMatrix, evaluate
from deeplab_tf.evaluation.trimap import TrimapCurve, boundary_distance


@pytest.fixture(scope="module")
def with_crf(segmenter):
    return Segmenter(segmenter.model, DenseCRF(iterations=2), segmenter.info)


@pytest.fixture
def examples(make_examples):
    return make_examples([(40, 56), (33, 33), (50, 41), (64, 20), (40, 56)])


def test_against_one_step_after_another(with_crf, examples):
    seen = []
    evaluation = evaluate(
        with_crf,
        examples,
        trimap_widths=(1, 3),
        on_example=lambda index, example, unrefined, refined: seen.append((index, example["filename"], refined.labels)),
    )
    stages = {"network": ConfusionMatrix.empty(8), "crf": ConfusionMatrix.empty(8)}
    curves = {stage: TrimapCurve(8, (1, 3)) for stage in stages}
    for i, example in enumerate(examples):
        unrefined = with_crf.without_crf(example["image"])
        refined = with_crf.refined(example["image"], unrefined)
        for stage, labels in (("network", unrefined.labels), ("crf", refined.labels)):
            stages[stage].add(example["label"], labels)
            curves[stage].add(example["label"], labels, boundary_distance(example["label"]))
        assert seen[i][:2] == (i, example["filename"])
        np.testing.assert_array_equal(seen[i][2], refined.labels)
    np.testing.assert_array_equal(evaluation.network.counts, stages["network"].counts)
    np.testing.assert_array_equal(evaluation.crf.counts, stages["crf"].counts)
    np.testing.assert_array_equal(evaluation.network_trimap.counts, curves["network"].counts)
    np.testing.assert_array_equal(evaluation.crf_trimap.counts, curves["crf"].counts)
    assert evaluation.images == 5 and (stages["network"].counts != stages["crf"].counts).any()


def test_counts_by_image_add_up_to_the_whole(with_crf, examples, tmp_path):
    evaluation = evaluate(with_crf, examples)
    evaluation.image_counts.save(tmp_path / "counts.npz")
    counts = ImageCounts.load(tmp_path / "counts.npz")
    assert counts.filenames == tuple(f"{i}.jpg" for i in range(5))
    assert counts.class_names == evaluation.class_names
    for array, matrix in ((counts.network, evaluation.network), (counts.crf, evaluation.crf)):
        np.testing.assert_array_equal(iou(array.sum(0)), matrix.iou)
        assert mean_iou(array.sum(0)) == pytest.approx(matrix.mean_iou)
    one = evaluate(with_crf, examples[2:3])
    assert mean_iou(counts.crf[2]) == pytest.approx(one.crf.mean_iou)


def test_the_table_tells_what_the_crf_changes_and_how_sure_that_is(with_crf, examples):
    evaluation = evaluate(with_crf, examples)
    change = f"{100 * (evaluation.crf.mean_iou - evaluation.network.mean_iou):+.2f}"
    assert "interval" not in evaluation.table()  # of five images
    counts = evaluation.image_counts
    network, crf = (np.tile(array, (5, 1, 1)) for array in (counts.network, counts.crf))
    counts = ImageCounts(counts.class_names, tuple(f"{i}.jpg" for i in range(25)), network, crf)
    table = dataclasses.replace(evaluation, image_counts=counts, images=25).table()
    (line,) = [line for line in table.splitlines() if line.startswith("change of the mean IoU by the CRF")]
    found, low, high = re.search(r": (\S+), 95% interval (\S+) to (\S+) \(paired", line).groups()
    assert found == change and float(low) < float(found) < float(high)


def test_the_file_says_what_was_measured(with_crf, examples, tmp_path):
    evaluation = evaluate(with_crf, examples, trimap_widths=(1, 3))
    evaluation.save(tmp_path / "evaluation.json")
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["crf"]["mean_iou"] == pytest.approx(evaluation.crf.mean_iou)
    assert written["trimap"]["widths"] == [1, 3]
    assert written["trimap"]["crf"] == pytest.approx(evaluation.crf_trimap.mean_iou)
    assert f"{100 * evaluation.crf.mean_iou:.2f}" in evaluation.table()


def test_means_over_some_classes_are_those_by_hand(with_crf, examples):
    names = with_crf.class_names
    chosen = [names[1], names[4], names[5]]
    evaluation = evaluate(with_crf, examples, subsets={"three": chosen})
    for stage, matrix in (("network", evaluation.network), ("crf", evaluation.crf)):
        wanted = np.nanmean(matrix.iou[[1, 4, 5]])
        assert evaluation.as_json()[stage]["means"]["three"]["iou"] == pytest.approx(wanted, rel=1e-15)
        assert f"{100 * wanted:.2f}" in next(
            line for line in evaluation.table().splitlines() if "mean of three" in line
        )
        assert evaluation.as_json()[stage]["means"]["all"]["iou"] == matrix.mean_iou
    with pytest.raises(UserError, match="classes: 'unicorn' is not one of background, ball"):
        evaluate(with_crf, examples, subsets={"one": ["unicorn"]})


def test_a_label_that_is_no_class_is_named(segmenter, examples):
    wrong = examples[:1] + [examples[1] | {"label": np.full_like(examples[1]["label"], 8)}]
    with pytest.raises(UserError, match="label values 8 to 8, expected 0 to 7"):
        evaluate(segmenter, wrong)


def test_no_images_is_nothing_counted(segmenter):
    evaluation = evaluate(segmenter, [])
    assert evaluation.images == 0 and evaluation.image_counts.network.shape == (0, 3, 8)
    assert dataclasses.asdict(evaluation.image_counts)["filenames"] == ()


def test_another_file_is_no_counts(tmp_path):
    (tmp_path / "x.npz").write_text("text")
    with pytest.raises(UserError, match="x.npz: not the counts file of an evaluation"):
        ImageCounts.load(tmp_path / "x.npz")
