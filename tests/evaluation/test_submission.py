"""Submissions: VOC's layout, and Cityscapes' by its official evaluation."""

import json

import numpy as np
import pytest
from PIL import Image

from deeplab_tf import Segmenter, data
from deeplab_tf.classes import CITYSCAPES_TRAIN_IDS, DatasetInfo
from deeplab_tf.errors import UserError
from deeplab_tf.evaluation import Submission, evaluate_and_draw


def test_layout_of_the_voc_server(tmp_path):
    info = data.info("voc2012")
    labels = np.arange(21, dtype=np.uint8).reshape(3, 7)
    Submission(info, tmp_path).write("2008_000006.jpg", labels)
    with Image.open(tmp_path / "results/VOC2012/Segmentation/comp6_test_cls/2008_000006.png") as mask:
        assert mask.mode == "P" and mask.format == "PNG"
        np.testing.assert_array_equal(np.asarray(mask), labels)
        assert mask.getpalette()[3:9] == [128, 0, 0, 0, 128, 0]  # VOC's colours of aeroplane and bicycle


def test_a_data_set_without_a_server_is_refused(tmp_path):
    with pytest.raises(UserError, match="shapes; submissions can be written for voc2012 and cityscapes"):
        Submission(data.info("shapes"), tmp_path)
    with pytest.raises(UserError, match="cityscapes has 19 classes in its benchmark, found 2"):
        Submission(DatasetInfo("cityscapes", ("a", "b"), np.zeros((2, 3), np.uint8)), tmp_path)


@pytest.fixture
def raw_cityscapes(tmp_path, photograph):
    """Small scenes in Cityscapes' layout, with the ids of all label maps, ignored ones too."""
    rng = np.random.default_rng(0)
    ids = list(CITYSCAPES_TRAIN_IDS)
    for i, (split, city) in enumerate([("train", "aachen"), ("val", "munster"), ("val", "munster"), ("val", "lindau")]):
        scene = f"{city}/{city}_{i:06}_000019"
        blocks = np.kron(rng.choice(ids, (8, 12)), np.ones((8, 8))).astype(np.uint8)
        for path, picture in (
            (f"leftImg8bit/{split}/{scene}_leftImg8bit.png", photograph(64, 96, i)),
            (f"gtFine/{split}/{scene}_gtFine_labelIds.png", blocks),
        ):
            (tmp_path / "raw" / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(tmp_path / "raw" / path)
    return tmp_path / "raw"


def test_cityscapes_own_evaluation_agrees(raw_cityscapes, network, tmp_path, monkeypatch):
    official = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    info = data.info("cityscapes")
    directory = data.prepare("cityscapes", tmp_path / "data", raw_cityscapes)
    segmenter = Segmenter(network(num_classes=19), info=info)
    submission = Submission(info, tmp_path / "submission")
    examples = data.evaluation_pipeline(directory, "val")
    evaluation = evaluate_and_draw(
        segmenter, examples, tmp_path / "run", dataset="cityscapes", split="val", pictures=0, submission=submission
    )

    truths = sorted(map(str, raw_cityscapes.glob("gtFine/val/*/*_gtFine_labelIds.png")))
    arguments = official.args
    arguments.predictionPath, arguments.predictionWalk = str(submission.folder), None
    arguments.evalInstLevelScore, arguments.quiet, arguments.JSONOutput = False, True, False
    predictions = [official.getPrediction(arguments, path) for path in truths]
    assert len(predictions) == 3
    scores = official.evaluateImgLists(predictions, truths, arguments)["classScores"]
    written = json.loads((tmp_path / "run/evaluation.json").read_text())["network"]["iou"]
    assert list(written) == list(info.class_names)
    compared = 0
    for name, value in written.items():
        if value is not None:
            assert value == pytest.approx(scores[name], abs=1e-6)
            compared += 1
    assert compared >= 15 and 0 < evaluation.network.mean_iou < 1
    Image.open(predictions[0]).verify()
