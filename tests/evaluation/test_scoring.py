"""Scores of folders: against Cityscapes' own scripts, evaluate(), and the definitions of the boundary measures."""

import json

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from deeplab_tf.classes import CITYSCAPES, CITYSCAPES_TRAIN_IDS
from deeplab_tf.errors import UserError
from deeplab_tf.evaluation import boundaries, evaluate, trimap
from deeplab_tf.evaluation.scoring import MaskFolder, id_table, score_folders
from deeplab_tf.evaluation.tables import named_subsets
from tests.helpers import run_command


def blocks(rng, values, height, width, size=8):
    """Random squares of some values, uint8 [height, width]."""
    small = rng.choice(values, (-(-height // size), -(-width // size)))
    return np.kron(small, np.ones((size, size)))[:height, :width].astype(np.uint8)


def write(folder, masks):
    for name, mask in masks.items():
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    return folder


@pytest.fixture
def folders(tmp_path):
    """Three masks of four classes, some without a label, and predictions that are partly right."""
    rng = np.random.default_rng(1)
    truths, predictions = {}, {}
    for i, (height, width) in enumerate([(40, 56), (33, 61), (70, 30)]):
        truths[f"{i}"] = blocks(rng, [0, 1, 2, 3, 255], height, width)
        noise = blocks(rng, [0, 1, 2, 3], height, width, 5)
        wrong = (truths[f"{i}"] == 255) | (blocks(rng, [0, 0, 1], height, width, 3) == 1)
        predictions[f"{i}"] = np.where(wrong, noise, truths[f"{i}"])
    return write(tmp_path / "predictions", predictions), write(tmp_path / "labels", truths)


def test_cityscapes_own_scripts_agree_to_all_digits(tmp_path):
    official = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    rng = np.random.default_rng(0)
    ids = list(CITYSCAPES_TRAIN_IDS)
    truths, predictions = {}, {}
    for i in range(3):
        truths[f"city{i}/a_{i}_gtFine_labelIds"] = truth = blocks(rng, ids, 64, 96)
        noise = blocks(rng, ids, 64, 96)  # also ids that are not evaluated
        predictions[f"a_{i}_labelIds"] = np.where(blocks(rng, [0, 1, 1], 64, 96, 4) == 1, truth, noise)
    write(tmp_path / "labels", truths), write(tmp_path / "predictions", predictions)
    score = score_folders(
        MaskFolder(tmp_path / "predictions", "_labelIds", id_table("cityscapes")),
        MaskFolder(tmp_path / "labels", "_gtFine_labelIds", id_table("cityscapes")),
        CITYSCAPES,
    )
    arguments = official.args
    arguments.evalInstLevelScore, arguments.quiet, arguments.JSONOutput = False, True, False
    expected = official.evaluateImgLists(
        sorted(map(str, (tmp_path / "predictions").glob("*"))), sorted(map(str, (tmp_path / "labels").rglob("*.png"))),
        arguments,
    )  # fmt: skip
    assert dict(zip(CITYSCAPES, score.iou, strict=True)) == {n: expected["classScores"][n] for n in CITYSCAPES}
    assert score.means()["IoU"] == pytest.approx(expected["averageScoreClasses"], rel=1e-15)
    assert score.unlabelled > 0.05
    thirteen = named_subsets(["synthia16", "synthia13"])["synthia13"]
    assert len(thirteen) == 13 and "wall" not in thirteen and "terrain" not in thirteen
    mean = np.mean([expected["classScores"][name] for name in thirteen])
    assert score.means(thirteen)["IoU"] == pytest.approx(mean, rel=1e-15)
    assert "mean of synthia13" in score.table(named_subsets(["synthia13"]))


def test_evaluate_agrees_to_all_digits(segmenter, make_examples, tmp_path):
    examples = make_examples([(40, 56), (33, 33), (50, 41)])
    truths, predictions = {}, {}

    def keep(index, example, unrefined, refined):
        truths[str(index)], predictions[str(index)] = example["label"], unrefined.labels

    subsets = named_subsets([segmenter.class_names[0], segmenter.class_names[2]])
    evaluation = evaluate(segmenter, examples, trimap_widths=trimap.WIDTHS, subsets=subsets, on_example=keep)
    labels, predicted = write(tmp_path / "labels", truths), write(tmp_path / "predictions", predictions)
    score = score_folders(MaskFolder(predicted), MaskFolder(labels), segmenter.info.class_names)
    np.testing.assert_array_equal(score.iou, evaluation.network.iou)
    np.testing.assert_array_equal(score.recall, evaluation.network.class_accuracy)
    assert score.means()["IoU"] == evaluation.network.mean_iou
    assert score.pixel_accuracy == evaluation.network.pixel_accuracy
    assert list(score.trimap.values()) == evaluation.network_trimap.mean_iou
    columns = score.columns()
    assert evaluation.by_class("network").keys() == columns.keys()
    for name, values in evaluation.by_class("network").items():
        np.testing.assert_array_equal(values, columns[name])
    written = evaluation.as_json()["network"]
    assert list(written["boundary_f1"].values()) == [None if np.isnan(x) else x for x in score.boundary_f1]
    assert written["means"] == score.as_json(subsets)["means"]
    lines, folder_lines = (text.splitlines() for text in (evaluation.table(), score.table(subsets)))
    for name in (*segmenter.info.class_names, "mean", "mean of 2 chosen"):  # the same rows
        found, expected = (
            [line.split()[-6:] for line in rows if line.startswith(name + "  ")] for rows in (lines, folder_lines)
        )
        assert found == expected and len(found[0]) == 6
    assert lines[-1].split(": ")[1] == folder_lines[-1].split(": ")[1]
    assert score.unlabelled == 0


def test_any_number_of_cores_gives_the_same(folders):
    one, three = (score_folders(*map(MaskFolder, folders), cores=cores) for cores in (1, 3))
    assert one.as_json() == three.as_json()
    assert one.class_names == ("0", "1", "2", "3") and one.images == 3 and one.left_out == ()


def test_precision_recall_and_f1_by_their_definitions(folders):
    score = score_folders(*map(MaskFolder, folders))
    truth, predicted = (
        np.concatenate([np.asarray(Image.open(p)).ravel() for p in sorted(f.glob("*"))]) for f in folders[::-1]
    )
    predicted, truth = predicted[truth != 255], truth[truth != 255]
    for c in range(4):
        right = ((truth == c) & (predicted == c)).sum()
        precision, recall = right / (predicted == c).sum(), right / (truth == c).sum()
        assert score.precision[c] == precision and score.recall[c] == recall
        assert score.f1[c] == pytest.approx(2 * precision * recall / (precision + recall), rel=1e-14)
        assert score.iou[c] == right / ((truth == c) | (predicted == c)).sum()


def eroded_band(mask, distance):
    """What the authors' boundary_iou takes: the mask without its repeated erosion, in an image padded by zeros."""
    padded = np.pad(mask, 1)
    return mask & ~scipy.ndimage.binary_erosion(padded, np.ones((3, 3)), distance)[1:-1, 1:-1]


@pytest.mark.parametrize("size", [(60, 110), (7, 5), (1, 300), (1, 1)])
def test_boundary_iou_by_its_definition(size):
    rng = np.random.default_rng(5)
    truth, predicted = (blocks(rng, [0, 1, 2, 3], *size, 13) for _ in range(2))
    distance = max(1, int(round(0.02 * np.hypot(*size))))
    expected = np.zeros((3, 3), int)
    for c in range(3):
        a, b = eroded_band(truth == c, distance), eroded_band(predicted == c, distance)
        expected[:, c] = (a & b).sum(), a.sum(), b.sum()
    np.testing.assert_array_equal(boundaries.boundary_counts(truth, predicted, 3), expected)


@pytest.mark.parametrize("size", [(60, 110), (180, 240), (7, 5), (1, 300)])
def test_boundary_f1_by_its_definition(size):
    rng = np.random.default_rng(6)
    truth, predicted = (blocks(rng, [0, 1, 2, 3], *size, 13) for _ in range(2))
    tolerance = 0.0075 * np.hypot(*size)

    def contour(labels, c):
        mask = labels == c
        cross = scipy.ndimage.generate_binary_structure(2, 1)
        return mask & ~scipy.ndimage.binary_erosion(mask, cross, border_value=1)

    def near(points, others):
        if not others.any():
            return 0.0
        return (scipy.ndimage.distance_transform_edt(~others)[points] <= tolerance).mean() if points.any() else 0.0

    found = boundaries.boundary_f1(truth, predicted, 3)
    for c in range(3):
        a, b = contour(truth, c), contour(predicted, c)
        if not (a.any() or b.any()):
            assert np.isnan(found[c])
            continue
        precision, recall = near(b, a), near(a, b)
        expected = 2 * precision * recall / (precision + recall) if precision + recall else 0
        assert found[c] == pytest.approx(expected, rel=1e-12)


def test_what_has_no_label_costs_nothing(tmp_path):
    """As on VOC: a ring without labels around an object, and the prediction's boundary somewhere in it."""
    truth, prediction = np.zeros((2, 60, 80), np.uint8)
    truth[15:45, 20:60] = 255
    truth[20:40, 25:55] = 1
    prediction[18:43, 21:58] = 1
    folders = write(tmp_path / "predictions", {"a": prediction}), write(tmp_path / "labels", {"a": truth})
    score = score_folders(*map(MaskFolder, folders))
    assert all((values == 1).all() for values in score.columns().values())
    assert set(score.trimap.values()) == {1.0}


def test_tables_of_ids_in_files(tmp_path, folders):
    (tmp_path / "ids.txt").write_text("0 1\n1 0\n2 0\n3 255\n")
    ids = id_table(str(tmp_path / "ids.txt"))
    score = score_folders(MaskFolder(folders[0], ids=ids), MaskFolder(folders[1], ids=ids), ["other", "zero"])
    plain = score_folders(*map(MaskFolder, folders))
    assert score.confusion[1, 1] == plain.confusion[0, 0]
    assert score.confusion.sum() == plain.confusion[:3].sum()
    assert score.confusion[0, 2] == plain.confusion[1:3, 3].sum()
    for text, message in (("0 1 2", "two numbers a line"), ("0 x", "two numbers a line"), ("0 300", "from 0 to 255")):
        (tmp_path / "ids.txt").write_text(text)
        with pytest.raises(UserError, match=message):
            id_table(str(tmp_path / "ids.txt"))
    with pytest.raises(UserError, match="'nowhere' is neither cityscapes nor a file"):
        id_table("nowhere")


def test_names_what_is_wrong(folders, tmp_path):
    predictions, labels = folders
    with pytest.raises(UserError, match="nowhere: no such folder"):
        score_folders(MaskFolder("nowhere"), MaskFolder(labels))
    with pytest.raises(UserError, match="expected names that end in _x.* or .png or"):
        score_folders(MaskFolder(predictions, "_x"), MaskFolder(labels))
    write(predictions, {"b/0": np.zeros((4, 4), np.uint8)})
    with pytest.raises(UserError, match="holds .*0.png and .*b/0.png"):
        score_folders(MaskFolder(predictions), MaskFolder(labels))
    with pytest.raises(UserError, match="no mask here has the name of one in"):
        score_folders(
            MaskFolder(predictions / "b"), MaskFolder(write(tmp_path / "other", {"z": np.eye(4, dtype="u1")}))
        )
    with pytest.raises(
        UserError, match="0.png: has shape .4, 4., its truth .40, 56.: expected the same .and 0 more.: no"
    ):
        score_folders(MaskFolder(predictions / "b"), MaskFolder(labels))
    (predictions / "b/0.png").unlink()
    with pytest.raises(UserError, match="classes: 'car' is not one of 0, 1, 2, 3"):
        score_folders(MaskFolder(predictions), MaskFolder(labels)).means(["car"])


def test_what_cannot_be_scored_is_left_out(folders):
    predictions, labels = folders
    (predictions / "0.png").write_bytes(b"broken")
    Image.fromarray(np.full((33, 61), 9, np.uint8)).save(predictions / "1.png")
    write(predictions, {"new": np.zeros((4, 4), np.uint8)})
    (labels / "2.png").rename(labels / "2.PNG")
    write(labels, {"further": np.zeros((4, 4), np.uint8)})
    score = score_folders(MaskFolder(predictions), MaskFolder(labels), ["a", "b", "c", "d"])
    assert score.images == 1 and score.not_predicted == 1
    broken, nine, new = score.left_out
    assert "0.png" in broken and "1.png: found the value 9, expected classes 0 to 3" in nine and "no truth" in new


@pytest.mark.slow
def test_command(folders, tmp_path):
    (folders[0] / "0.png").write_bytes(b"broken")
    flags = ("--predictions=predictions", "--labels=labels", "--classes=1,2", "--score_file=scores.json")
    result = run_command("tools/score.py", *flags, cwd=tmp_path)
    assert result.returncode == 1
    assert "scored     2 masks of predictions" in result.stdout and "mean of 2 chosen" in result.stdout
    assert "left out   predictions/0.png" in result.stderr and "error: 1 left out" in result.stderr
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["images"] == 2 and set(written["means"]) == {"all", "2 chosen"}
    mean = np.mean([written["classes"]["boundary_f1"][name] for name in ("1", "2")])
    assert written["means"]["2 chosen"]["boundary_f1"] == pytest.approx(mean)
