"""Refining folders, and the command that does it."""

import pathlib
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from deeplab_tf.crf import DenseCRF
from deeplab_tf.crf.refining import label_probabilities, refine_folder
from deeplab_tf.errors import UserError

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def folders(small, tmp_path):
    """Folders of two images and of their probabilities, one [H, W, C] and one [C, H, W]."""
    image, probabilities = small
    for name in ("images", "maps"):
        (tmp_path / name).mkdir()
    for stem in "ab":
        PIL.Image.fromarray(image).save(tmp_path / "images" / f"{stem}.png")
    np.save(tmp_path / "maps/a.npy", probabilities)
    np.savez(tmp_path / "maps/b.npz", probabilities=probabilities.transpose(2, 0, 1), other=np.zeros(3))
    return tmp_path


def test_probabilities(small, folders):
    assert refine_folder(folders / "images", folders / "maps", folders / "out") == 2
    for stem in "ab":
        with PIL.Image.open(folders / f"out/{stem}.png") as mask:
            assert mask.mode == "P" and mask.getpalette()[3:6] == [128, 0, 0]
            np.testing.assert_array_equal(np.asarray(mask), DenseCRF()(*small, return_labels=True))


def test_label_maps_keep_their_palette(small, folders, tmp_path):
    image, probabilities = small
    labels = probabilities.argmax(-1).astype(np.uint8)
    labels[:2] = 255
    (tmp_path / "labels").mkdir()
    for stem in "ab":
        mask = PIL.Image.fromarray(labels)
        mask.putpalette([1, 2, 3, 4, 5, 6])
        mask.save(tmp_path / f"labels/{stem}.png")
    refine_folder(folders / "images", tmp_path / "labels", folders / "out", confidence=0.6)
    with PIL.Image.open(folders / "out/a.png") as mask:
        assert mask.getpalette()[:6] == [1, 2, 3, 4, 5, 6]
        expected = DenseCRF()(image, label_probabilities(labels, 3, 0.6), return_labels=True)
        np.testing.assert_array_equal(np.asarray(mask), expected)


def test_label_probabilities():
    found = label_probabilities(np.array([[0, 2, 255]]), 4, 0.7)
    np.testing.assert_allclose(found, [[[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1], [0.25] * 4]], rtol=1e-6)
    with pytest.raises(UserError, match="found labels 0 to 5"):
        label_probabilities(np.array([[0, 5]]), 4)


def test_names_what_is_wrong(folders):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        refine_folder(folders / "nowhere", folders / "maps", folders / "out")
    (folders / "maps/b.npz").unlink()
    with pytest.raises(UserError, match="no map for b.png"):
        refine_folder(folders / "images", folders / "maps", folders / "out")
    (folders / "maps/b.npy").write_bytes(b"broken")
    with pytest.raises(UserError, match="b.npy: no readable NumPy file"):
        refine_folder(folders / "images", folders / "maps", folders / "out")
    np.save(folders / "maps/b.npy", np.zeros((5, 5, 3), np.float32))
    with pytest.raises(UserError, match="b.npy: dense CRF: the probabilities have shape"):
        refine_folder(folders / "images", folders / "maps", folders / "out")
    np.save(folders / "maps/b.npy", np.full((20, 24, 300), 1 / 300, np.float16))
    with pytest.raises(UserError, match="b.npy: has 300 classes"):
        refine_folder(folders / "images", folders / "maps", folders / "out")


def test_names_what_is_wrong_with_the_folders(folders):
    with pytest.raises(UserError, match="images: the masks would be written among the inputs"):
        refine_folder(folders / "images", folders / "maps", folders / "maps/../images")
    whole = (folders / "maps/b.npz").read_bytes()
    (folders / "maps/b.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="b.npz: no readable NumPy file"):
        refine_folder(folders / "images", folders / "maps", folders / "out")
    np.savez(folders / "maps/b.npz", scores=np.zeros(3), labels=np.zeros(3))
    with pytest.raises(UserError, match="b.npz: holds scores, labels; expected one array"):
        refine_folder(folders / "images", folders / "maps", folders / "out")
    PIL.Image.new("L", (24, 20)).save(folders / "maps/b.PNG")
    with pytest.raises(UserError, match="maps: holds b.PNG and b.npz"):
        refine_folder(folders / "images", folders / "maps", folders / "out")
    (folders / "maps/b.npz").unlink()
    PIL.Image.new("RGB", (24, 20), "red").save(folders / "maps/b.PNG")
    with pytest.raises(UserError, match="b.PNG: a colour mask"):
        refine_folder(folders / "images", folders / "maps", folders / "out")
    (folders / "images/b.png").write_bytes(b"broken")
    with pytest.raises(UserError, match="^[^:]*images/b.png: cannot be read as an image"):
        refine_folder(folders / "images", folders / "maps", folders / "out")


def test_turned_photographs(small, folders):
    """An image that its EXIF data turns is refined the way it is shown."""
    image, probabilities = small
    exif = PIL.Image.Exif()
    exif[274] = 6  # shown turned to the right
    PIL.Image.fromarray(np.rot90(image)).save(folders / "images/a.png", exif=exif)
    refine_folder(folders / "images", folders / "maps", folders / "out")
    with PIL.Image.open(folders / "out/a.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), DenseCRF()(image, probabilities, return_labels=True))


def test_command(folders):
    np.save(folders / "maps/b.npy", np.full((20, 24, 3), np.nan, np.float32))
    (folders / "maps/b.npz").unlink()
    command = [sys.executable, str(REPOSITORY / "tools/refine.py")]
    command += ["--input=images", "--maps=maps", "--output_dir=out"]
    result = subprocess.run(command, cwd=folders, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert "1 masks in out" in result.stdout
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "b.npy" in error and "not finite" in error
