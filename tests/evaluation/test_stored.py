"""Stored evaluations: what was evaluated, which of them answer a comparison, and what is evaluated again."""

import dataclasses
import json

import numpy as np
import pytest

from deeplab_tf import Segmenter
from deeplab_tf.crf import DenseCRF
from deeplab_tf.errors import UserError
from deeplab_tf.evaluation import (
    StoredEvaluation,
    charts,
    compare,
    compare_stored,
    compare_with_run,
    evaluate,
    evaluate_and_draw,
    trimap,
)
from tests.helpers import run_command

DATA = {"dataset": "shapes", "split": "val"}


@pytest.fixture
def examples(make_examples):
    return make_examples([(40, 56), (33, 33), (50, 41), (64, 20), (40, 56)])


def variant(segmenter, **options) -> Segmenter:
    return Segmenter(segmenter.model, info=segmenter.info, **options)


def write(segmenter, examples, folder, **options):
    return evaluate_and_draw(segmenter, examples, folder, **DATA, pictures=0, **options)


def test_the_file_says_what_was_evaluated(segmenter, examples, tmp_path):
    evaluated = variant(segmenter, crf=DenseCRF(iterations=2, bilateral_weight=5.0), mirror=True, scales=(0.5, 1.0))
    evaluated.checkpoint = "ckpt-7"
    evaluation = write(evaluated, examples, tmp_path, limit=5, name="first5")
    made_with = json.loads((tmp_path / "evaluation_first5.json").read_text())["made_with"]
    assert made_with == evaluation.made_with
    assert (made_with["dataset"], made_with["split"]) == ("shapes", "val")
    assert (made_with["limit"], made_with["checkpoint"], made_with["mirror"]) == (5, "ckpt-7", True)
    assert made_with["scales"] == [0.5, 1.0] and made_with["tile_size"] is None
    assert made_with["crf"]["bilateral_weight"] == 5.0
    assert made_with["fingerprint"] == segmenter.settings["fingerprint"]
    found = StoredEvaluation.load(tmp_path / "evaluation_first5.json")
    assert found.images == 5 and found.mean_iou["crf"] == pytest.approx(evaluation.crf.mean_iou)
    np.testing.assert_array_equal(found.image_counts.crf, evaluation.image_counts.crf)
    assert not (tmp_path / "evaluation.json").exists()


@pytest.mark.slow
def test_no_evaluation_destroys_one_made_with_other_settings(segmenter, network, examples, tmp_path):
    """Without the CRF, with it, and with other parameters: each is there in the end, although all had one name."""
    for options in ({}, {"crf": DenseCRF(iterations=1)}, {"crf": DenseCRF(iterations=2)}, {"mirror": True}, {}):
        write(variant(segmenter, **options), examples[:2], tmp_path)
    stored = [StoredEvaluation.load(path) for path in tmp_path.glob("evaluation*.json")]
    made = {(one.made_with["mirror"], (one.made_with["crf"] or {}).get("iterations", 0)) for one in stored}
    assert made == {(False, 0), (False, 1), (False, 2), (True, 0)}
    assert StoredEvaluation.load(tmp_path / "evaluation.json").made_with["crf"] is None  # the last one

    (tmp_path / "evaluation.json").write_text("{}")  # of a version that did not record what was evaluated
    write(segmenter, examples[:2], tmp_path)
    assert [path for path in tmp_path.glob("evaluation_??????.json") if path.read_text() == "{}"]
    before = set(tmp_path.iterdir())
    write(Segmenter(network(atrous="deinterlace"), info=segmenter.info), examples[:2], tmp_path)  # Other weights.
    assert set(tmp_path.iterdir()) == before


@pytest.fixture
def evaluations_made(monkeypatch):
    """Counts how often `compare_with_run` evaluates the other run."""
    made = []
    monkeypatch.setattr("deeplab_tf.evaluation.stored.evaluate", lambda *args: made.append(args) or evaluate(*args))
    return made


def test_stored_counts_are_used_where_they_were_made_the_same_way(segmenter, examples, tmp_path, evaluations_made):
    this, other = variant(segmenter), variant(segmenter)
    this.checkpoint, other.checkpoint = "ckpt-9", "ckpt-5"
    write(other, examples, tmp_path / "other")
    evaluation = write(this, examples[:4], tmp_path / "this", limit=4)
    comparison = compare_with_run(evaluation, other, tmp_path / "other", examples[:4])
    assert not evaluations_made and comparison.images == 4


@pytest.mark.parametrize(
    "change",
    [
        *("mirror", "crf", "weights"),
        *(pytest.param(change, marks=pytest.mark.slow) for change in ("scales", "tiles", "checkpoint", "split")),
    ],
)
def test_otherwise_the_other_run_is_evaluated_again_and_nothing_is_written(
    change, segmenter, network, examples, tmp_path, evaluations_made
):
    other = variant(segmenter)
    options = {"mirror": {"mirror": True}, "scales": {"scales": (0.5,)}, "tiles": {"tile_size": 48, "tile_overlap": 16}}
    stored_as = variant(segmenter, **options.get(change, {}))
    if change == "crf":
        other = variant(segmenter, crf=DenseCRF(iterations=1))
        stored_as = variant(segmenter, crf=DenseCRF(iterations=2))
    if change == "weights":
        stored_as = Segmenter(network(atrous="deinterlace"), info=segmenter.info)
    if change == "checkpoint":
        stored_as.checkpoint = "ckpt-5"
    folder = tmp_path / "other"
    evaluate_and_draw(stored_as, examples, folder, dataset="shapes", split="train" if change == "split" else "val")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    this = write(variant(segmenter, crf=other.crf), examples, tmp_path / "this")
    comparison = compare_with_run(this, other, folder, examples)
    assert len(evaluations_made) == 1
    np.testing.assert_array_equal(comparison.first, comparison.second)  # one network in both, however it is stored
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_with_the_crf_answers_for_the_network_alone(segmenter, examples, tmp_path, evaluations_made):
    write(variant(segmenter, crf=DenseCRF(iterations=1)), examples, tmp_path / "other")
    this = write(variant(segmenter), examples, tmp_path / "this")
    assert not compare_with_run(this, variant(segmenter), tmp_path / "other", examples).after_crf
    assert not evaluations_made


def test_other_masks_under_the_same_names_are_evaluated_again(segmenter, examples, tmp_path, evaluations_made):
    write(variant(segmenter), [e | {"label": np.zeros_like(e["label"])} for e in examples], tmp_path / "other")
    this = write(variant(segmenter), examples, tmp_path / "this")
    compare_with_run(this, variant(segmenter), tmp_path / "other", examples)
    assert len(evaluations_made) == 1


def test_two_files_as_they_are(segmenter, examples, tmp_path):
    plain, mirrored = variant(segmenter), variant(segmenter, mirror=True)
    a, b = write(mirrored, examples, tmp_path, name="mirror"), write(plain, examples, tmp_path)
    first, second = (StoredEvaluation.load(tmp_path / f"evaluation{name}.json") for name in ("_mirror", ""))
    comparison, different = compare_stored(first, second)
    assert different == {"mirror": (True, False)}
    np.testing.assert_array_equal(comparison.first, compare(a.image_counts, b.image_counts).first)


def test_what_is_not_a_whole_evaluation_is_refused(segmenter, examples, tmp_path):
    evaluation = write(segmenter, examples, tmp_path)
    path = tmp_path / "evaluation.json"
    for text in ("", "[]", "{}", '{"images": 3}', "\udcff"):
        other = tmp_path / "evaluation_other.json"
        other.write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(UserError, match="not an evaluation"):
            StoredEvaluation.load(other)
    dataclasses.replace(evaluation, made_with={}).save(path)
    with pytest.raises(UserError, match="does not say what was evaluated"):
        StoredEvaluation.load(path)
    write(segmenter, examples, tmp_path)
    evaluate(segmenter, examples[:3]).image_counts.save(tmp_path / "evaluation_images.npz")
    with pytest.raises(UserError, match="different evaluations"):
        StoredEvaluation.load(path)


def test_names_that_are_hard_to_write_down(segmenter, examples, tmp_path):
    names = ("$\\frac{$", "$x^$", "a\x01b", "US$", "sky", "sky", "\ud800", "b")
    named = Segmenter(segmenter.model, info=dataclasses.replace(segmenter.info, class_names=names))
    for example, name in zip(
        examples, (b"x" * 300 + b".jpg", b"a\0b.jpg", b"\xff\xfe.jpg", b"../up.jpg", b""), strict=True
    ):
        example["filename"] = name
    evaluation = evaluate_and_draw(named, examples, tmp_path, **DATA, pictures=5)
    assert len(list((tmp_path / "overlays").glob("*.png"))) == 5
    written = json.loads((tmp_path / "evaluation.json").read_text())["network"]["iou"]
    assert len(written) == 8 and "sky (2)" in written
    from deeplab_tf.evaluation import write_report

    write_report(tmp_path, evaluation, named, examples, title="names")


@pytest.mark.slow
def test_the_trimap_curves_of_two_runs_stand_in_one_chart(segmenter, examples, tmp_path):
    """Fig. 10b: two networks, each before and after its CRF."""
    refined = variant(segmenter, crf=DenseCRF(iterations=1))
    write(refined, examples, tmp_path / "a")
    write(variant(refined, crf=refined.crf, mirror=True), examples, tmp_path / "b")
    stored = {name: StoredEvaluation.load(tmp_path / name / "evaluation.json") for name in "ab"}
    (axes,) = charts.trimap_figure({name: evaluation.trimap for name, evaluation in stored.items()}).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == ["a network", "a network + CRF", "b network", "b network + CRF"]
    for name, evaluation in stored.items():
        np.testing.assert_allclose(
            lines[f"{name} network"].get_ydata(), 100 * np.array(evaluation.trimap["network"], float)
        )
        np.testing.assert_array_equal(lines[f"{name} network"].get_xdata(), trimap.WIDTHS)
    colors = [line.get_color() for line in axes.lines]
    assert colors[0] == colors[1] != colors[2] == colors[3]
    flags = ("--this=a/evaluation.json", "--other=b/evaluation.json", "--trimap_chart=fig10.svg")
    output = run_command("tools/compare.py", *flags, cwd=tmp_path).stdout
    assert "mirror" in output and "fig10.svg" in output
    assert (tmp_path / "fig10.svg").read_text().count("network + CRF") >= 2
