"""Lines that the commands print about what they have done: each is true, and nothing is left unsaid."""

import pathlib
import runpy
import subprocess
import sys
import types

import pytest

from deeplab_tf.flags import FIELDS, FLAGS

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


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
