"""Archives of strangers: huge, damaged and encrypted members are one line."""

import zipfile

import pytest

from deeplab_tf.data import archives
from deeplab_tf.errors import UserError


@pytest.fixture
def archive(tmp_path):
    """A zip file with one image of zeros, and that member."""
    with zipfile.ZipFile(tmp_path / "raw.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("images/a.png", bytes(100_000))
    (member,) = archives.files_below(tmp_path, "images").values()
    return tmp_path / "raw.zip", member


def test_a_huge_member_is_not_unpacked(archive, monkeypatch):
    assert archive[1].read_bytes() == bytes(100_000)
    monkeypatch.setattr(archives, "_LARGEST", 99_999)
    with pytest.raises(UserError, match="raw.zip/images/a.png: 0.0 GiB unpacked, more than any image"):
        archive[1].read_bytes()


def test_a_damaged_member_is_one_line(archive):
    path, member = archive
    content = bytearray(path.read_bytes())
    content[44:60] = b"\xa5" * 16
    path.write_bytes(content)
    archives._open_zip.cache_clear()
    with pytest.raises(UserError, match="raw.zip/images/a.png: cannot be read .*get the archive again"):
        member.read_bytes()
