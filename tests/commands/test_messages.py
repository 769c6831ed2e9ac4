"""Lines that the commands print about what they have done: each is true, and nothing is left unsaid."""

import pathlib
import runpy
import shlex
import subprocess
import sys
import types

import pytest

from deeplab_tf.flags import FIELDS, FLAGS
from tests.helpers import REPOSITORY


@pytest.fixture
def predict(tmp_path, monkeypatch, capsys):
    """A function that runs predict.py on an input, with what its library returns, and returns its standard output.

    The line of an error, if there is one, comes last.
    """
    monkeypatch.chdir(tmp_path)
    pathlib.Path("run").mkdir()
    pathlib.Path("run/segmenter.json").write_text("{}")

    def run(source: str, result: types.SimpleNamespace, *typed: str) -> str:
        monkeypatch.setattr("deeplab_tf.inference.Segmenter", types.SimpleNamespace(load=lambda *_, **__: None))
        monkeypatch.setattr("deeplab_tf.inference.predicting.predict", lambda *_, **__: result)
        monkeypatch.setattr("deeplab_tf.inference.video.predict_video", lambda *_, **__: result)
        opened = types.SimpleNamespace(release=lambda: None)
        monkeypatch.setattr("deeplab_tf.inference.frames.open_capture", lambda _: opened)
        pathlib.Path(source).touch()
        arguments = ["predict.py", "--model_dir=run", f"--input={source}", "--output_dir=out", *typed]
        monkeypatch.setattr(sys, "argv", arguments)
        try:
            runpy.run_path(str(REPOSITORY / "predict.py"), run_name="__main__")
        except SystemExit as ended:
            assert ended.code == 1
        finally:
            for name in FIELDS:
                FLAGS[name].unparse()
        said = capsys.readouterr()
        return said.out + said.err

    return run


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """A function that runs train.py in a folder, whose library returns these checkpoints, and returns its output."""
    monkeypatch.chdir(tmp_path)

    def run(model_dir: str, last: str, best: str | None) -> str:
        result = types.SimpleNamespace(
            steps=20_000, seconds=60.0, checkpoint=last, best_checkpoint=best, best_mean_iou=best and 0.5
        )
        evaluation = types.SimpleNamespace(table=lambda: "", images=3, seconds=1.0)
        nothing = lambda *_, **__: None  # noqa: E731
        for name in ("check_same_run", "make_strategy"):
            monkeypatch.setattr(f"deeplab_tf.training.{name}", nothing, raising=False)
        monkeypatch.setattr("deeplab_tf.training.is_chief", lambda _: True, raising=False)
        monkeypatch.setattr("deeplab_tf.training.train", lambda *_, **__: result, raising=False)
        monkeypatch.setattr("deeplab_tf.data.prepare", nothing, raising=False)
        monkeypatch.setattr("deeplab_tf.data.evaluation_pipeline", nothing, raising=False)
        monkeypatch.setattr("deeplab_tf.evaluation.evaluate_and_draw", lambda *_, **__: evaluation, raising=False)
        monkeypatch.setattr("deeplab_tf.inference.Segmenter", types.SimpleNamespace(load=nothing), raising=False)
        monkeypatch.setattr(sys, "argv", ["train.py", f"--model_dir={model_dir}"])
        try:
            runpy.run_path(str(REPOSITORY / "train.py"), run_name="__main__")
        finally:
            for name in FIELDS:
                FLAGS[name].unparse()
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("model_dir", ["runs/a", "runs/b with spaces", "runs/Ärger's"])
def test_the_next_lines_of_a_training_can_be_pasted(train, model_dir):
    lines = train(model_dir, "c/ckpt-20", "b/ckpt-20").splitlines()
    (place,) = (i for i, line in enumerate(lines) if line.startswith("next "))
    tensorboard, predict = (shlex.split(line.removeprefix("next")) for line in lines[place : place + 2])
    assert tensorboard == ["tensorboard", f"--logdir={model_dir}"]
    assert predict[:3] == ["python", "predict.py", f"--model_dir={model_dir}"]


def test_the_end_of_a_training_names_the_best_checkpoint(train):
    said = train("run", "c/ckpt-20", "b/ckpt-10")
    assert "best       ckpt-10, mean IoU 50.00 in validation: add --checkpoint=best\n" in said
    assert "predict.py --model_dir=run --checkpoint=best --input" in said
    said = train("run", "c/ckpt-20", "b/ckpt-20")
    assert "best       ckpt-20, mean IoU 50.00 in validation, the last one\n" in said and "--checkpoint" not in said
    assert "best " not in train("run", "c/ckpt-20", None)


def test_a_comparison_with_other_classes_is_refused_before_any_work(tmp_path, monkeypatch, refused):
    """Nothing of an evaluation is called."""
    for name, names in (("run", ("a", "b")), ("other", ("a", "c"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "segmenter.json").write_text(" ".join(names))
    load = lambda folder, **_: types.SimpleNamespace(  # noqa: E731
        class_names=tuple((pathlib.Path(folder) / "segmenter.json").read_text().split())
    )
    monkeypatch.setattr("deeplab_tf.inference.Segmenter", types.SimpleNamespace(load=load), raising=False)
    monkeypatch.setattr("deeplab_tf.data.prepared_directory", lambda *_: "directory", raising=False)
    info = types.SimpleNamespace(class_names=("a", "b"))
    monkeypatch.setattr("deeplab_tf.data.catalogue.read_info", lambda _: info)
    monkeypatch.setattr("deeplab_tf.evaluation.evaluate_and_draw", None, raising=False)
    line = refused("evaluate.py", "--model_dir=run", "--compare=other", cwd=tmp_path)
    assert line.startswith("--compare=other has different classes: found 'c' as class 1, the run has 'b'")


@pytest.mark.parametrize("command", ["train.py", "tools/refine.py"])
def test_help_is_no_failure(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [command, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(REPOSITORY / command), run_name="__main__")
    topic = "training" if command == "train.py" else "refinement"
    assert ended.value.code == 0 and f"\n{topic}:\n" in capsys.readouterr().out


def of_photographs(images: int, done_before: int, unreadable: list[str]) -> types.SimpleNamespace:
    return types.SimpleNamespace(
        images=images, done_before=done_before, unreadable=unreadable, seconds=1.0, output_dir="out", stopped=False
    )


def test_predict_says_what_it_wrote(predict):
    assert "written    masks, overlays to out\n" in predict("a.jpg", of_photographs(1, 0, []))
    assert "written    masks, overlays to out\n" in predict("a.jpg", of_photographs(0, 1, []))
    said = predict("a.jpg", of_photographs(0, 0, ["a.jpg: is no image"]))
    assert "written" not in said and said.endswith("error: 1 file left out: a.jpg: is no image\n")
    assert "error: 2 files left out: b; c" in predict("a.jpg", of_photographs(1, 0, ["b", "c"]))


@pytest.mark.parametrize(
    ("formats", "overlay", "written"),
    [
        ("overlays", "out/overlays/a.mp4", "out/overlays/a.mp4"),
        ("masks,overlays,coco", "out/overlays/a.mp4", "out/overlays/a.mp4; masks, coco to out"),
        ("masks", None, "masks to out"),
    ],
)
def test_predict_says_all_that_it_wrote_of_a_video(predict, formats, overlay, written):
    made = types.SimpleNamespace(overlay=overlay, frames=3, expected=3, seconds=1.0, dropped=0, stopped=False)
    assert predict("a.mp4", made, f"--format={formats}").endswith(f"written    {written}\n")


def test_warnings_of_the_library_have_no_prefix_of_a_log():
    script = """
import logging, sys
from deeplab_tf import flags
sys.argv = ["score.py"]
flags.run(lambda: logging.getLogger("deeplab_tf.crf.searching").warning("at the %s", "edge"), "tools/score.py")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "note       at the edge\n")
