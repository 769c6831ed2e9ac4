"""Files are whole or not there, whatever stops the writing; what cannot be written is one line."""

import errno
import os
import subprocess
import sys

import pytest

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
