"""The model card: what is in the files of a run stands in it, and its commands are those that were run."""

import json
import types

import pytest

from deeplab_tf import flags, model_card, run_folder
from deeplab_tf.errors import UserError
from deeplab_tf.flags import FIELDS, FLAGS

CLASSES = {"name": "image_folder/cells", "class_names": ["a|b", "line\nbreak", "c"], "palette": [[0, 0, 0]] * 3}
NETWORK = {"backbone": "resnet_tiny", "head": "aspp_s", "output_stride": 8, "scales": [1.0], "num_classes": 3}
MADE_WITH = {
    **{"dataset": "image_folder/cells", "split": "val", "limit": None, "checkpoint": "ckpt-20", "fingerprint": "f00d"},
    **{"input_scale": 1.0, "scales": [1.0], "mirror": False, "tile_size": None, "tile_overlap": None, "pad_to": None},
    "crf": None,
}


def evaluation(**changed) -> dict:
    figures = {"mean_iou": 0.51239, "pixel_accuracy": 0.9, "mean_accuracy": None, "iou": dict.fromkeys("xyz", 0.25)}
    stages = {"network": figures, **({"crf": figures | {"mean_iou": 0.6}} if changed.get("crf") else {})}
    return {"made_with": MADE_WITH | changed, "images": 7, **stages}


@pytest.fixture
def run(tmp_path):
    """The folder of a run, as the commands read it, with one evaluation."""
    folder = tmp_path / "my run"
    run_folder.write_description(folder, NETWORK, CLASSES | {"ignore_label": 255})
    trained = {"dataset": "image_folder/cells", "data_dir": "/home/me/data", "train_split": "train", "scales": "1"}
    run_folder.write_flags(folder, {"all": trained | {"license": "Apache-2.0", "val_split": "val", "mirror": "true"}})
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/ckpt-20.index").touch()
    (folder / "evaluation.json").write_text(json.dumps(evaluation()))
    return folder


def test_a_card_says_what_the_run_says(run):
    model_card.update(run)
    card = json.loads((run / model_card.JSON_FILE).read_text())
    assert card["license"] == "Apache-2.0" and card["checkpoint"] == "ckpt-20" and card["training"]["steps"] == 20
    assert card["data"] == {"dataset": "image_folder/cells", "train_split": "train", "val_split": "val"}
    assert card["classes"]["class_names"] == CLASSES["class_names"] and card["network"] == NETWORK
    assert card["training"]["flags"]["mirror"] == "true"
    (figures,) = card["evaluations"]
    assert figures["network"]["mean_iou"] == 0.51239 and figures["images"] == 7
    text = (run / model_card.TEXT_FILE).read_text()
    assert text.startswith("---\nlibrary_name: keras\n") and 'license: "Apache-2.0"\n---\n\n# my run\n' in text
    assert "| `evaluation.json` | 7 | network | 51.24 | 90.00 | - |" in text and "| a\\|b | 25.00 |" in text
    assert "--mirror=true" in text and "/home/me" not in text


@pytest.mark.parametrize(
    ("changed", "name", "typed"),
    [
        ({}, "evaluation", []),
        ({"crf": {"iterations": 10}}, "evaluation", ["--crf"]),
        ({"scales": [0.5, 1.0], "mirror": True}, "evaluation_x", ["--eval_scales=0.5,1", "--eval_mirror=true"]),
        (
            {"split": "test", "limit": 5},
            "evaluation_best_first5",
            ["--checkpoint=best", "--val_split=test", "--limit=5"],
        ),
        ({"dataset": "camvid", "tile_size": 513}, "evaluation_y", ["--dataset=camvid", "--tile_size=513"]),
    ],
)
def test_its_commands_are_those_of_the_evaluations(run, changed, name, typed):
    (run / "evaluation.json").unlink()
    (run / f"{name}.json").write_text(json.dumps(evaluation(**changed)))
    (figures,) = model_card.of_run(run)["evaluations"]
    assert figures["command"] == " ".join(["python evaluate.py", f"'--model_dir={run}'", *typed])
    flags.parse([f"--model_dir={run}", *typed], "evaluate.py", of_a_run=True)
    for flag in FIELDS:
        FLAGS[flag].unparse()


def test_damaged_and_old_files_are_passed_over(run):
    (run / "evaluation_old.json").write_text('{"network": {}}')
    (run / "evaluation_damaged.json").write_text("{")
    assert len(model_card.of_run(run)["evaluations"]) == 1
    (run / "config.flags").unlink()
    assert model_card.of_run(run)["license"] is None
    assert "**Licence:** not stated" in model_card.as_markdown(model_card.of_run(run))


def test_an_export_has_the_figures_of_its_own_weights_alone(run):
    segmenter = types.SimpleNamespace(model_dir=run, settings={"fingerprint": "f00d", "checkpoint": "ckpt-20"})
    (run / "evaluation_best.json").write_text(json.dumps(evaluation(fingerprint="beef")))
    assert [one["file"] for one in model_card.of_segmenter(segmenter)["evaluations"]] == ["evaluation.json"]


def test_another_folder_has_no_card(tmp_path):
    model_card.update(tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="holds no trained model"):
        model_card.of_run(tmp_path)
