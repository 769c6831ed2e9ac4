"""A flag that a command shows is a flag that it obeys: for each, two values have two outcomes.

The commands run in this process up to the library, whose calls are recorded. What such a call does with an argument is
proven by the library's own tests; `PROOFS` names files of them.
"""

import collections
import pathlib
import runpy
import sys
import types

import numpy as np
import pytest

import deeplab_tf.training.assembly  # noqa: F401  Before parts of what it imports are replaced below.
from deeplab_tf import flags
from deeplab_tf.flags import FIELDS, FLAGS, OBEYED
from deeplab_tf.run_folder import EVALUATION_FLAGS, evaluation_name
from deeplab_tf.training.recipe import fields
from tests.helpers import REPOSITORY

COMMANDS = [command for command in OBEYED if not command.startswith(("benchmarks/", "docs/"))]

# The flags without which a command does nothing; for the flags under test the last one typed wins.
BASE = {
    "datasets/prepare.py": [],
    "train.py": ["--model_dir=run"],
    "evaluate.py": ["--model_dir=run"],
    "predict.py": ["--model_dir=run", "--input=photos"],
    "export_saved_model.py": ["--model_dir=run", "--export_dir=exported"],
    "tools/search_crf.py": ["--model_dir=run"],
    "tools/demo.py": ["--model_dir=run"],
    "tools/refine.py": ["--input=photos", "--maps=maps", "--output_dir=out"],
    "tools/score.py": ["--predictions=a", "--labels=b"],
    "tools/compare.py": ["--this=a.json", "--other=b.json"],
    "tools/convert_weights.py": ["--initial_weights=x.h5", "--output=y.weights.h5"],
    "tools/reproduce.py": ["--table=1", "--dry_run"],
}
# Two values of each flag; with further flags where it matters only beside them.
VALUES = {
    "model_dir": ("run", "run2"),
    "dataset": ("shapes", "voc2012"),
    "data_dir": ("data1", "data2"),
    "raw_dir": ("raw1", "raw2"),
    "class_names": ("a.txt", "b.txt"),
    "color_table": ("a.txt", "b.txt"),
    "class_map": ("a.txt", "b.txt"),
    "train_list": ("a.txt", "b.txt"),
    "val_list": ("a.txt", "b.txt"),
    "val_fraction": ("0.1", "0.2"),
    "beam_pipeline_options": ("runner=A", "runner=B"),
    "train_split": ("train", "val"),
    "train_masks": ("masks1", "masks2"),
    "val_split": ("val", "test"),
    "head": ("aspp_s", "aspp_l"),
    "output_stride": ("8", "16"),
    "scales": ("1", "0.5,1"),
    "dropout": ("0.1", "0.2"),
    "initial_weights": ("x.h5", "y.h5"),
    "weights_dir": ("w1", "w2"),
    "weights_key": ("model", "ema_model"),
    "input_scale": ("0.5", "1"),
    "freeze": ("none", "backbone"),
    "crop_size": ("65", "129"),
    "batch_size": ("2", "4"),
    "accumulation_steps": ("1", "2"),
    "random_scale": ("0.5,1.5", "1"),
    "color_jitter": ("0.2", "0.4"),
    "ema_decay": ("0.9", "0.99"),
    "tpu": ("a", "b"),
    "clip_norm": ("1", "4"),
    "fast_layers": ("res5.*", "res[45].*"),
    "class_weights": ("balanced", "weights.txt"),
    "hard_fraction": ("0.5", "1"),
    "profile_steps": ("1,2", "3,4"),
    "license": ("MIT", "Apache-2.0"),
    "trimap_chart": ("a.svg", "b.svg"),
    "eval_scales": ("0.5", "1"),
    "tile_size": ("513", "1025"),
    "pad_to": ("257", "513"),
    "tile_overlap": ("64", "128"),
    "report_dir": ("r1", "r2"),
    "compare": ("run", "run2"),
    "submission_dir": ("s1", "s2"),
    "this": ("a.json", "b.json"),
    "other": ("a.json", "b.json"),
    "input": ("photos", "photos/2.png"),
    "output_dir": ("out1", "out2"),
    "format": ("masks", "overlays,coco"),
    "longer_side": ("513", "640"),
    "maps": ("maps1", "maps2"),
    "crf_file": ("a.json", "b.json"),
    "label_confidence": ("0.6", "0.7"),
    "cam_threshold": ("0.2", "0.3"),
    "cam_power": ("2", "4"),
    "predictions": ("p1", "p2"),
    "labels": ("l1", "l2"),
    "prediction_suffix": ("_a", "_b"),
    "label_suffix": ("_a", "_b"),
    "prediction_ids": ("a", "b"),
    "label_ids": ("a", "b"),
    "classes": ("a", "a,b"),
    "score_file": ("a.json", "b.json"),
    "table": ("1", "2"),
    "output": ("y.weights.h5", "z.weights.h5"),
    "export_dir": ("e1", "e2"),
    "outputs": ("labels", "labels,confidence"),
    "formats": ("saved_model", "onnx"),
    "litert_size": ("65,65", "65,129"),
    "calibration_images": ("photos", "photos/2.png"),
}
BESIDE = {
    "litert_size": ["--formats=litert"],
    "calibration_images": ["--formats=onnx_int8"],
    "train_split": {"export_saved_model.py": ["--formats=litert_int8"]},
    "classes": ["--dataset=shapes"],
    "dataset": {
        "tools/convert_weights.py": ["--model_dir=new"],
        "export_saved_model.py": ["--formats=onnx_int8"],
    },
    "model_dir": {"tools/convert_weights.py": ["--dataset=shapes"]},
    "tile_overlap": ["--tile_size=513"],
    "eval_align_corners": {"tools/convert_weights.py": ["--model_dir=new", "--dataset=shapes"]},
    "data_dir": {
        "export_saved_model.py": ["--formats=onnx_int8"],
        "tools/score.py": ["--dataset=image_folder/mine"],
        "tools/convert_weights.py": ["--model_dir=new", "--dataset=shapes"],
    },
}
# Where the library proves that the argument makes a difference: a file of tests, and a word in it.
PROOFS = collections.defaultdict(tuple)
for _file, _words in {
    "tests/datasets/test_image_folder.py": "class_names color_table train_list val_list val_fraction on_error",
    "tests/datasets/test_own_annotations.py": "class_map ignore_label split_seed",
    "tests/data/test_pipeline.py": "crop_size",
    "tests/models/test_networks.py": "head",
    "tests/inference/test_segmenter.py": "mirror vertical_flip scales tile_size pad_to",
    "tests/inference/test_align_corners.py": "align_corners",
    "tests/training/test_recipe.py": "max_steps batch_size scales profile_steps tile_size freeze",
    "tests/serving/test_export.py": "outputs precision",
}.items():
    for _word in _words.split():
        PROOFS[_word] += (_file,)


class Calls(list):
    """What leaves a command: the name of each call into the library and its arguments."""

    def stub(self, name: str, result=None):
        """A function that records its calls and returns `result`."""

        def call(*args, **kwargs):
            self.append((name, repr(args), repr(sorted(kwargs.items()))))
            return result

        return call


@pytest.fixture
def outcome(tmp_path, monkeypatch, capsys):
    """A function that runs a command with arguments and returns all that it did, as text."""
    monkeypatch.chdir(tmp_path)
    for folder in ("run", "run2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "segmenter.json").write_text("{}")
    for name in ("a.txt", "b.txt", "a.json", "b.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "weights.txt").write_text("1\n2\n")
    (tmp_path / "photos").mkdir()
    for i in range(5):
        (tmp_path / f"photos/{i}.png").write_bytes(b"")
    calls = Calls()
    library(calls, monkeypatch)

    def run(command: str, arguments: list[str]) -> str:
        calls.clear()
        for name in FIELDS:
            FLAGS[name].unparse()
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [command, *arguments])
        try:
            runpy.run_path(str(REPOSITORY / command), run_name="__main__")
            status = 0
        except SystemExit as error:
            status = error.code
        finally:
            monkeypatch.chdir(tmp_path)
        said = capsys.readouterr()
        assert status == 0 and not said.err, said.err
        return f"{list(calls)} {said.out}"

    yield run
    for name in FIELDS:
        FLAGS[name].unparse()


def library(calls: Calls, monkeypatch) -> None:
    """Puts recorders where the commands call the library."""
    record = lambda name, result=None: monkeypatch.setattr(name, calls.stub(name, result), raising=False)  # noqa: E731
    info = types.SimpleNamespace(
        name="shapes", class_names=("a", "b"), num_classes=2, splits={"train": 9, "val": 1449, "test": 9}
    )
    model = types.SimpleNamespace(
        backbone="resnet101", head="aspp_l", output_stride=8, scales=(1.0,), average_pool=False, num_classes=2
    )
    segmenter = types.SimpleNamespace(
        **{"info": info, "class_names": ("a", "b"), "model": model, "crf": None, "save": calls.stub("save")},
        **{"mirror": False, "vertical_flip": False, "scales": (1.0,)},
    )
    evaluation = types.SimpleNamespace(table=lambda *args: "", images=3, seconds=1.0)
    path = pathlib.Path("x")
    trained = types.SimpleNamespace(steps=3, seconds=1.0, checkpoint="c", best_checkpoint=None, best_mean_iou=None)
    predictions = types.SimpleNamespace(
        images=1, done_before=0, seconds=1.0, output_dir="o", unreadable=[], stopped=False, renamed=[]
    )

    class Segmenter:
        load = staticmethod(calls.stub("Segmenter.load", segmenter))

        def __new__(cls, *args, **kwargs):
            return segmenter

    monkeypatch.setattr("deeplab_tf.inference.Segmenter", Segmenter, raising=False)
    record("deeplab_tf.data.prepare", "directory")
    record("deeplab_tf.data.preparation.describe", "described")
    record("deeplab_tf.data.summary.summarize", "summary")
    record("deeplab_tf.data.prepared_directory", "directory")
    record("deeplab_tf.data.catalogue.read_info", info)
    record("deeplab_tf.data.split_size", 1449)
    record("deeplab_tf.data.info", info)
    record("deeplab_tf.data.catalogue.info", info)
    record("deeplab_tf.data.evaluation_pipeline", range(3))
    record("deeplab_tf.training.train", trained)
    record("deeplab_tf.training.check_same_run")
    record("deeplab_tf.training.make_strategy")
    record("deeplab_tf.training.is_chief", True)
    record("deeplab_tf.training.write_config")
    record("deeplab_tf.evaluation.evaluate_and_draw", evaluation)
    record("deeplab_tf.evaluation.compare_with_run", evaluation)
    record("deeplab_tf.evaluation.write_report", path)
    record("deeplab_tf.evaluation.Submission", types.SimpleNamespace(folder="folder"))
    record("deeplab_tf.inference.predicting.predict", predictions)
    record("deeplab_tf.serving.export_saved_model", path)
    record("deeplab_tf.serving.export_onnx", path)
    record("deeplab_tf.serving.export_litert", path)
    record("deeplab_tf.serving.calibration.from_folder", [])
    record("deeplab_tf.serving.calibration.from_data_set", [])
    record("deeplab_tf.serving.write_card")
    page = types.SimpleNamespace(check_port=lambda port: None, serve=calls.stub("demo_page.serve"))
    monkeypatch.setitem(sys.modules, "deeplab_tf.inference.demo_page", page)  # itself it imports Gradio
    monkeypatch.setattr("deeplab_tf.inference.demo_page", page, raising=False)
    crf = types.SimpleNamespace(bilateral_weight=1.0, bilateral_spatial_std=1.0, bilateral_color_std=1.0)
    best = types.SimpleNamespace(crf=crf, mean_iou=0.5)
    found = types.SimpleNamespace(without_crf=0.4, best=best, trials=[])
    record("deeplab_tf.evaluation.crf_search.search_crf", found)
    refined = types.SimpleNamespace(written=1, done_before=0, output_dir="o", left_out=[])
    record("deeplab_tf.crf.refine_many", refined)
    monkeypatch.setattr("deeplab_tf.crf.DenseCRF.load", calls.stub("DenseCRF.load"))
    score = types.SimpleNamespace(
        table=calls.stub("table", ""), images=1, not_predicted=0, unlabelled=0, left_out=[], save=calls.stub("save")
    )
    record("deeplab_tf.evaluation.scoring.score_folders", score)
    record("deeplab_tf.evaluation.scoring.id_table", "table")
    monkeypatch.setattr("deeplab_tf.evaluation.scoring.id_table", lambda value: value)
    monkeypatch.setattr("deeplab_tf.evaluation.tables.named_subsets", lambda value: value)
    one = types.SimpleNamespace(path="a.json", trimap={"widths": [1]})
    stored = types.SimpleNamespace(load=calls.stub("StoredEvaluation.load", one))
    chart = types.SimpleNamespace(savefig=lambda path, dpi: pathlib.Path(path).write_text(""))
    record("deeplab_tf.evaluation.charts.trimap_figure", chart)
    monkeypatch.setattr("deeplab_tf.evaluation.StoredEvaluation", stored, raising=False)
    record("deeplab_tf.evaluation.compare_stored", (evaluation, {}))
    record("deeplab_tf.DeepLab", model)
    source = types.SimpleNamespace(network={"backbone": "b", "head": "h", "num_classes": 2}, kind="k", crf=None)
    record("deeplab_tf.weights.examine", source)
    record("deeplab_tf.weights.load", types.SimpleNamespace(classes=2))
    record("deeplab_tf.weights.save")


def typed(flag: str) -> tuple[str, str]:
    """Two ways to type a flag; of numbers without an entry, two neighbours of the default."""
    if FIELDS[flag].kind == "bool":
        return f"--{flag}", f"--no{flag}"
    if FIELDS[flag].kind == "enum":
        return tuple(f"--{flag}={value}" for value in FIELDS[flag].choices[:2])
    if flag in VALUES:
        return tuple(f"--{flag}={value}" for value in VALUES[flag])
    kind, default = FIELDS[flag].kind, FIELDS[flag].default
    assert kind in ("integer", "float"), f"--{flag} is shown, and no two values stand here"
    return (f"--{flag}=3", f"--{flag}=4") if kind == "integer" else (f"--{flag}={default}", f"--{flag}={default / 2}")


PAIRS = [(command, flag) for command in COMMANDS if command != "tools/reproduce.py" for flag in OBEYED[command]]


@pytest.mark.parametrize(("command", "flag"), PAIRS)
def test_two_values_have_two_outcomes(command, flag, outcome, monkeypatch):
    beside = BESIDE.get(flag, [])
    beside = beside.get(command, []) if isinstance(beside, dict) else beside
    beside = [other for other in beside if other.partition("=")[0].lstrip("-") in OBEYED[command]]
    if (command, flag) == ("tools/convert_weights.py", "model_dir"):  # which makes a run
        monkeypatch.setitem(VALUES, "model_dir", ("new1", "new2"))
    first, second = (outcome(command, [*BASE[command], *beside, value]) for value in typed(flag))
    assert first != second


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_what_is_obeyed_by_topic_and_nothing_else(command):
    shown = [line.split()[0] for line in flags.help_text(command, "").splitlines() if line.startswith("  --")]
    assert {name.removeprefix("--").removeprefix("[no]") for name in shown} == set(OBEYED[command])
    assert len(shown) == len(OBEYED[command]) == len(set(OBEYED[command]))


@pytest.mark.parametrize(("flag", "files"), PROOFS.items())
def test_the_library_proves_the_rest(flag, files):
    for file in files:
        assert flag in (REPOSITORY / file).read_text()


def test_every_field_of_the_recipe_is_a_flag_with_its_default():
    for field in fields():
        assert FLAGS[field.name].default == field.default and "train.py" in OBEYED and field.name in OBEYED["train.py"]


def parse(command, *arguments, **options):
    for name in FIELDS:
        FLAGS[name].unparse()
    flags.parse(list(arguments), command, **options)


def test_a_typed_flag_that_is_not_obeyed_is_refused_and_in_a_flagfile_passed_over(tmp_path):
    for argument in ("--batch_size=3", "--nomirror", "-batch_size=3"):
        with pytest.raises(flags.UserError, match="predict.py does not obey --(batch_size|mirror); train.py obeys it"):
            parse("predict.py", argument)
    (tmp_path / "x.flags").write_text("# all kinds\n--batch_size=3\n--nomirror\n--tile_size=65\n--tile_overlap=8\n")
    parse("predict.py", f"--flagfile={tmp_path / 'x.flags'}")
    assert FLAGS.tile_size == 65 and FLAGS.mirror is False


def test_flags_of_the_run_come_first_and_unknown_ones_of_other_versions_are_passed_over(tmp_path):
    (tmp_path / "segmenter.json").write_text("{}")
    (tmp_path / "config.flags").write_text("# model\n--dataset=camvid\n--eval_mirror=true\n--of_another_version=3\n")
    parse("evaluate.py", f"--model_dir={tmp_path}", of_a_run=True)
    assert FLAGS.dataset == "camvid" and FLAGS.eval_mirror
    parse("evaluate.py", "--model_dir", str(tmp_path), "--noeval_mirror", of_a_run=True)
    assert not FLAGS.eval_mirror
    (tmp_path / "x.flags").write_text(f"--model_dir={tmp_path}\n")
    parse("evaluate.py", f"--flagfile={tmp_path / 'x.flags'}", of_a_run=True)
    assert FLAGS.dataset == "camvid"
    parse("train.py", f"--model_dir={tmp_path}")
    assert FLAGS.dataset == "shapes"


def test_every_flag_of_inference_is_in_the_name_of_an_evaluation():
    FLAGS.mark_as_parsed()
    options = {"crf", *flags.inference_options()} - {"checkpoint"}
    assert options <= {name.removeprefix("eval_") for name in EVALUATION_FLAGS}


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ([], ""),
        (["--val_split=val", "--noeval_mirror", "--eval_scales=0.5,1"], ""),  # as the run has them
        (["--eval_mirror"], "mirror"),
        (["--eval_vertical_flip"], "flip"),
        (["--crf"], "crf"),
        (["--eval_scales=", "--tile_size=513"], "scalesnone_tiles513"),
        (["--dataset=cityscapes/coarse", "--val_split=train[60:]"], "cityscapes-coarse_train-60-"),
    ],
)
def test_an_evaluation_unlike_the_runs_own_has_a_name_of_its_own(typed, name, tmp_path):
    (tmp_path / "segmenter.json").write_text("{}")
    (tmp_path / "config.flags").write_text("--dataset=camvid\n--val_split=val\n--eval_scales=0.5,1\n")
    parse("evaluate.py", f"--model_dir={tmp_path}", *typed, of_a_run=True)
    changed = flags.changed_of_the_run(tmp_path)
    assert evaluation_name(changed=changed) == name
    assert evaluation_name("best", 7, changed) == "_".join(filter(None, ["best", name, "first7"]))


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("train.py", ["--max_steps=1" + 30 * "0"], "--max_steps=.*: expected at most"),
        ("train.py", ["--seed=9223372036854775808"], "--seed="),
        ("train.py", ["--learning_rate=nan"], "--learning_rate=nan: expected a finite number"),
        ("train.py", ["--scales=nan"], "--scales=nan"),
        ("train.py", ["--scales=1,big"], "--scales: found '1,big', expected numbers"),
        ("train.py", ["--hard_fraction=7"], "--hard_fraction=7"),
        ("train.py", ["--class_names=nix.txt"], "--class_names=nix.txt: found no such file"),
        ("train.py", ["--modell_dir=3"], "Unknown command line flag 'modell_dir'"),
        ("train.py", ["run"], "unexpected argument 'run'"),
        ("train.py", ["--flagfile=nix.flags"], "nix.flags"),
        ("predict.py", ["--format=mask"], "--format=mask: expected one or more of masks"),
        ("predict.py", ["--tile_size=100"], "--tile_size=100: expected more than twice .* --tile_overlap=128"),
        ("export_saved_model.py", ["--outputs=label"], "--outputs=label: expected one or more of labels"),
        ("tools/refine.py", ["--label_confidence=60"], "--label_confidence=60.0: expected at most 1"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_flag(command, arguments, message):
    with pytest.raises(flags.UserError, match=message) as error:
        parse(command, *arguments)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_no_bytes_in_a_flagfile_are_a_stack_trace(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "segmenter.json").write_text("{}")
    for i in range(40):
        content = rng.integers(0, 256, 200, dtype=np.uint8).tobytes()
        content = content if i % 2 else b"--" + bytes(byte for byte in content if 32 <= byte < 127)
        for name, of_a_run in (("x.flags", False), ("config.flags", True)):
            (tmp_path / name).write_bytes(content)
            arguments = [f"--model_dir={tmp_path}"] if of_a_run else [f"--flagfile={tmp_path / name}"]
            try:
                parse("evaluate.py", *arguments, of_a_run=of_a_run)
            except flags.UserError as error:
                assert str(error).isprintable()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file/run", "x" * 300):
        with pytest.raises(flags.UserError, match="--model_dir=") as error:
            parse("train.py", f"--model_dir={path}", writes=("model_dir",))
        assert "\n" not in str(error.value)
    parse("train.py", f"--model_dir={tmp_path / 'new/run'}", writes=("model_dir",))
