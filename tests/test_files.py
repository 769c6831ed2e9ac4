"""Files are whole or not there, whatever stops the writing; what cannot be written is one line."""

import contextlib
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from deeplab_tf import files
from deeplab_tf.errors import UserError


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "folder" / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.written_aside(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_one_line(tmp_path):
    with (
        pytest.raises(UserError, match="a.txt: cannot be written .No space left on device"),
        files.written_aside(tmp_path / "a.txt") as aside,
    ):
        aside.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/a.txt: cannot be written"):
        files.write_text(tmp_path / "file" / "a.txt", "")
    with pytest.raises(UserError, match="cannot be written .File name too long"):
        files.write_text(tmp_path / ("x" * 300), "")


KILLED = """
import os, signal, sys
from deeplab_tf import files
with files.written_aside(sys.argv[1]) as aside:
    aside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a.png")], check=False)
    (left,) = tmp_path.iterdir()
    with files.written_aside(tmp_path / "b.png") as living:
        living.write_text("half")
        (tmp_path / ".hidden.png").write_text("of the user")
        files.remove_remains(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([living.name, ".hidden.png"])
    assert not left.exists()


@contextlib.contextmanager
def no_room(most_bytes: int):
    """Within the block no file may grow beyond a size: as on a disk that is full."""
    handler, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def export(segmenter, folder):
    from deeplab_tf.serving import export_saved_model

    export_saved_model(segmenter, folder)


def prepare(segmenter, folder):
    from deeplab_tf import data

    data.prepare("shapes", folder)


def save_picture(segmenter, folder):
    from deeplab_tf.pictures import save_picture

    save_picture(folder / "x.png", np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))


def predict(segmenter, folder):
    from deeplab_tf.inference.predicting import predict

    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder.parent / "a.png")
    image = np.random.default_rng(0).integers(0, 256, (120, 120, 3), np.uint8)
    Image.fromarray(image).save(folder.parent / "b.bmp")
    with no_room(20_000):
        predict(segmenter, [folder.parent / "a.png", folder.parent / "b.bmp"], folder, ("overlays",))


@pytest.mark.parametrize(
    "write", [*(pytest.param(write, marks=pytest.mark.slow) for write in (export, prepare)), save_picture, predict]
)
def test_every_writer_says_in_one_line_that_the_disk_is_full(write, segmenter, tmp_path):
    """TensorFlow's, tensorflow-datasets' and Pillow's; and nothing half-written stays."""
    limit = contextlib.nullcontext() if write is predict else no_room(20_000)
    with pytest.raises(UserError, match="cannot be written") as raised, limit:
        write(segmenter, tmp_path / "out")
    assert "\n" not in str(raised.value)
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    left = [path.name for path in left if path.suffix in (".png", ".pb") or "tfrecord" in path.name]
    assert left == (["a.png"] if write is predict else [])  # written before


def test_weights_are_not_begun_where_they_have_no_room(segmenter, tmp_path, monkeypatch):
    """A failure half-way would leave an HDF5 file that cannot be closed, and a crash at the end of the process."""
    from deeplab_tf import weights

    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10**7, 10**7 - 10**6, 10**6))
    with pytest.raises(UserError, match=r"x.weights.h5: cannot be written \(needs .* MB, the disk has 1.0 left\)"):
        weights.save(segmenter.model, tmp_path / "x.weights.h5")
    assert list(tmp_path.iterdir()) == []
