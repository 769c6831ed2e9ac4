"""Fetching archives, from a server on this machine."""

import hashlib
import tarfile

import pytest

from deeplab_tf.data.download import Archive, fetch
from deeplab_tf.errors import UserError


@pytest.fixture
def archive(served, tmp_path):
    folder, address = served
    (tmp_path / "inside.txt").write_text("content")
    with tarfile.open(folder / "raw.tgz", "w:gz") as tar:
        tar.add(tmp_path / "inside.txt", "devkit/inside.txt")
    digest = hashlib.md5((folder / "raw.tgz").read_bytes()).hexdigest()
    return Archive(f"{address}/raw.tgz", f"md5:{digest}")


def test_an_archive_is_fetched_once_and_unpacked(archive, served, tmp_path):
    fetch(archive, tmp_path / "raw")
    assert (tmp_path / "raw/devkit/inside.txt").read_text() == "content"
    assert not (tmp_path / "raw/raw.tgz").exists()
    (served[0] / "raw.tgz").unlink()
    fetch(archive, tmp_path / "raw")


def test_a_file_that_is_there_already_is_used(archive, served, tmp_path):
    (tmp_path / "raw").mkdir()
    (served[0] / "raw.tgz").rename(tmp_path / "raw/raw.tgz")
    fetch(archive, tmp_path / "raw")
    assert (tmp_path / "raw/devkit/inside.txt").exists()


def test_a_changed_file_is_refused(archive, served, tmp_path):
    (served[0] / "raw.tgz").write_bytes(b"something else")
    with pytest.raises(UserError, match="raw.tgz: its md5 is .*, expected"):
        fetch(archive, tmp_path / "raw")
    assert not (tmp_path / "raw/devkit").exists()


def test_what_cannot_be_downloaded_is_said(archive, served, tmp_path):
    (served[0] / "raw.tgz").unlink()
    with pytest.raises(UserError, match="raw.tgz: cannot be downloaded .*fetch it by other means into"):
        fetch(archive, tmp_path / "raw")
    assert list((tmp_path / "raw").iterdir()) == []


def test_a_damaged_archive_is_one_line(archive, served, tmp_path):
    """Its checksum is right, so it was damaged where it is published."""
    content = (served[0] / "raw.tgz").read_bytes()
    content = content[: len(content) // 2]
    (served[0] / "raw.tgz").write_bytes(content)
    damaged = Archive(archive.url, f"md5:{hashlib.md5(content).hexdigest()}")
    with pytest.raises(UserError, match="raw.tgz: cannot be unpacked"):
        fetch(damaged, tmp_path / "raw")
