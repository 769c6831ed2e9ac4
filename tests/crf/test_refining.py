"""Refining folders, and the command that does it."""

import os
import pathlib
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import PIL.Image
import pytest

from deeplab_tf.crf import DenseCRF, MapReader, map_files, refine_many
from deeplab_tf.crf.label_maps import label_probabilities
from deeplab_tf.errors import UserError
from tests.helpers import REPOSITORY


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


def refine(folders, *args, **kwargs):
    return refine_many(folders / "images", folders / "maps", folders / "out", *args, **kwargs)


def read(path):
    with PIL.Image.open(path) as mask:
        return np.asarray(mask)


def write_labels(folder, labels):
    folder.mkdir(exist_ok=True)
    for stem in "ab":
        mask = PIL.Image.fromarray(labels)
        mask.putpalette([1, 2, 3, 4, 5, 6] + [0] * 762)  # a short palette would be written with a bit a pixel
        mask.save(folder / f"{stem}.png")
    return folder


def test_probabilities(small, folders):
    assert refine(folders).written == 2
    for stem in "ab":
        with PIL.Image.open(folders / f"out/{stem}.png") as mask:
            assert mask.mode == "P" and mask.getpalette()[3:6] == [128, 0, 0]
            np.testing.assert_array_equal(np.asarray(mask), DenseCRF()(*small, return_labels=True))


def test_label_maps_keep_their_palette(small, folders):
    image, probabilities = small
    labels = probabilities.argmax(-1).astype(np.uint8)
    labels[:2] = 255
    label_dir = write_labels(folders / "labels", labels)
    refine_many(folders / "images", label_dir, folders / "out", reader=MapReader(confidence=0.6))
    with PIL.Image.open(folders / "out/a.png") as mask:
        assert mask.getpalette()[:6] == [1, 2, 3, 4, 5, 6]
        expected = DenseCRF()(image, label_probabilities(labels, 3, 0.6), return_labels=True)
        np.testing.assert_array_equal(np.asarray(mask), expected)
    refine_many(folders / "images", label_dir, folders / "five", reader=MapReader(0.6, num_classes=5))
    expected = DenseCRF()(image, label_probabilities(labels, 5, 0.6), return_labels=True)
    np.testing.assert_array_equal(read(folders / "five/a.png"), expected)


def test_settings_are_checked_at_once(folders):
    for settings, message in (
        ({"confidence": 60.0}, "--label_confidence=60.0: expected between 0 and 1"),
        ({"confidence": 0.1, "num_classes": 4}, "expected between 1/4 .classes. and 1"),
        ({"cam_threshold": 0.3, "cam_power": 4}, "--cam_threshold and --cam_power: expected one of the two"),
        ({"cam_threshold": 2}, "--cam_threshold=2: expected between 0 and 1"),
        ({"cam_power": 0}, "--cam_power=0: expected more than 0"),
    ):
        with pytest.raises(UserError, match=message):
            MapReader(**settings)
    with pytest.raises(UserError, match="--format=overlays: expected masks or probabilities"):
        refine(folders, formats=["overlays"])
    with pytest.raises(UserError, match="images: the masks would be written among the inputs"):
        refine_many(folders / "images", folders / "maps", folders / "maps/../images")
    with pytest.raises(UserError, match="nowhere"):
        refine_many(folders / "nowhere", folders / "maps", folders / "out")
    with pytest.raises(UserError, match="nowhere: no such folder"):
        refine_many(folders / "images", folders / "nowhere", folders / "out")
    (folders / "empty").mkdir()
    with pytest.raises(UserError, match="a.png: has no map in .*empty; expected a and .npy or .npz or"):
        refine_many(folders / "images", folders / "empty", folders / "out")
    with pytest.raises(UserError, match="--label_confidence=0.3: expected between 1/3"):
        labels = write_labels(folders / "labels", np.full((20, 24), 2, np.uint8))
        refine_many(folders / "images", labels, folders / "out", reader=MapReader(0.3))


def test_what_cannot_be_refined_is_left_out(small, folders):
    _, probabilities = small

    def broken(name, content):
        PIL.Image.fromarray(small[0]).save(folders / f"images/{pathlib.Path(name).stem}.jpg")
        path = folders / "maps" / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, dict):
            np.savez(path, **content)
        else:
            np.save(path, content)

    broken("c.npy", b"broken")
    broken("d.npy", np.zeros((5, 5, 3), np.float32))
    broken("e.npy", np.full((20, 24, 300), 1 / 300, np.float16))
    broken("f.npz", (folders / "maps/b.npz").read_bytes()[:200])
    broken("g.npz", {"scores": np.zeros(3), "labels": np.zeros(3)})
    broken("h.npy", np.full((20, 24, 3), np.nan, np.float32))
    broken("i.npy", probabilities), broken("i.npz", {"x": probabilities})  # two maps
    broken("j.npy", probabilities), PIL.Image.fromarray(small[0]).save(folders / "images/j.png")  # two images
    broken("k.npy", probabilities), (folders / "images/k.jpg").write_bytes(b"broken")
    broken("l.npy", probabilities), (folders / "maps/l.npy").unlink()
    broken("m.npy", probabilities), (folders / "maps/m.npy").unlink()
    PIL.Image.new("RGB", (24, 20), "red").save(folders / "maps/m.PNG")
    refined = refine(folders)
    assert refined.written == 2 and sorted(path.name for path in (folders / "out").iterdir()) == ["a.png", "b.png"]
    lines = {pathlib.Path(line.partition(":")[0]).name: line for line in refined.left_out}
    for name, message in {
        "c.npy": "cannot be read as a NumPy file",
        "d.npy": "(5, 5",
        "e.npy": "has 300 classes; a mask holds 256 at most",
        "f.npz": "cannot be read as a NumPy file",
        "g.npz": "holds scores, labels; expected one array",
        "h.npy": "not finite",
        "i.jpg": "maps holds i.npy and i.npz; expected one of each stem",
        "j.jpg": "another image has the stem j",
        "j.png": "another image has the stem j",
        "k.jpg": "cannot be read as an image",
        "l.jpg": "has no map in",
        "m.PNG": "a colour mask",
    }.items():
        assert message in lines.pop(name)
    assert not lines


def test_what_is_done_is_not_done_again(small, folders):
    (folders / "images/a.png").rename(folders / "images/hidden")
    assert refine(folders, formats=["masks", "probabilities"]).written == 1
    (folders / "images/hidden").rename(folders / "images/a.png")
    stamp = (folders / "out/b.png").stat().st_mtime_ns
    again = refine(folders, formats=["masks", "probabilities"])
    assert (again.written, again.done_before) == (1, 1)
    assert (folders / "out/b.png").stat().st_mtime_ns == stamp
    assert refine(folders).done_before == 2  # the masks of both formats are the masks of one
    os.utime(folders / "maps/b.npz", ns=(0, 1))
    assert refine(folders).written == 1
    assert refine(folders, DenseCRF(iterations=3)).written == 2
    assert refine(folders, DenseCRF(iterations=3, threads=1)).done_before == 2
    (folders / "out/a.png").write_bytes(b"torn")
    assert refine(folders, DenseCRF(iterations=3)).written == 1
    np.testing.assert_array_equal(read(folders / "out/a.png"), DenseCRF(iterations=3)(*small, return_labels=True))


def test_probabilities_can_be_written_and_refined_again(small, folders):
    refine(folders, formats=["probabilities"])
    with np.load(folders / "out/a.npz") as content:
        assert content["probabilities"].dtype == np.float16
        # float16 has steps of 2^-11 below 1.
        np.testing.assert_allclose(content["probabilities"], DenseCRF()(*small), atol=1e-3)
    assert refine_many(folders / "images", folders / "out", folders / "twice").written == 2


def test_a_glob_and_a_list_name_images(folders):
    assert refine_many(str(folders / "images/*.png"), folders / "maps", folders / "out").written == 2
    assert refine_many([folders / "images/a.png"], folders / "maps", folders / "one").written == 1
    assert os.listdir(folders / "one") == ["a.png"]


@pytest.mark.parametrize("align_corners", [False, True])
def test_small_scores_as_pytorch_interpolates_them(small, folders, align_corners):
    functional = pytest.importorskip("torch.nn.functional")
    import torch

    image, _ = small
    scores = np.random.default_rng(0).normal(0, 3, (1, 7, 4, 5)).astype(np.float32)
    large = functional.interpolate(torch.tensor(scores), size=(20, 24), mode="bilinear", align_corners=align_corners)
    probabilities = functional.softmax(large, dim=1)[0].numpy().transpose(1, 2, 0)
    reader = MapReader(scores=True, align_corners=align_corners)
    for stem, array in (("a", scores[0]), ("b", scores[0].transpose(1, 2, 0))):
        np.save(folders / f"maps/{stem}.npy", array)
    (folders / "maps/b.npz").unlink()
    # One interpolation and one softmax in float32: a few roundings of 6e-8 of scores of up to 10.
    np.testing.assert_allclose(reader.read(folders / "maps/a.npy", (20, 24)).probabilities, probabilities, atol=1e-6)
    assert refine(folders, reader=reader).written == 2
    expected = DenseCRF()(image, probabilities, return_labels=True)
    assert (read(folders / "out/a.png") == expected).mean() > 0.99
    np.testing.assert_array_equal(read(folders / "out/a.png"), read(folders / "out/b.png"))
    np.save(folders / "maps/a.npy", np.zeros((7, 30, 90), np.float32))
    assert "not in the proportion of the image, 20x24" in refine(folders, reader=reader).left_out[0]


def activations():
    """Two activation maps at the size of `small`, float32 [2, 20, 24], each high on one side."""
    ramp = np.linspace(0, 1, 24, dtype=np.float32)
    return np.stack([np.tile(ramp**3, (20, 1)), np.tile((1 - ramp) ** 3, (20, 1))])


@pytest.mark.parametrize("tensors", [False, True])
def test_activation_maps_with_a_threshold(small, folders, tensors):
    """As IRN's cam_to_ir_label: threshold, the largest is the label, a CRF over the classes found, keys + 1."""
    image, _ = small
    content = {"keys": np.array([7, 14]), "cam": activations()[:, ::4, ::4], "high_res": activations()}
    if tensors:
        torch = pytest.importorskip("torch")
        content |= {"keys": torch.tensor([7, 14]), "cam": torch.tensor(content["cam"])}
    for stem in "ab":
        np.save(folders / f"maps/{stem}.npy", content)
    (folders / "maps/b.npz").unlink()
    padded = np.pad(content["high_res"], ((1, 0), (0, 0), (0, 0)), constant_values=0.3)
    labels = padded.argmax(axis=0)
    expected = np.array([0, 8, 15])[DenseCRF()(image, label_probabilities(labels, 3, 0.7), return_labels=True)]
    assert refine(folders, reader=MapReader(cam_threshold=0.3), formats=["masks", "probabilities"]).written == 2
    np.testing.assert_array_equal(read(folders / "out/a.png"), expected)
    assert len(np.unique(expected)) == 3
    with np.load(folders / "out/a.npz") as written:
        assert written["classes"].tolist() == [0, 8, 15] and written["probabilities"].shape == (20, 24, 3)
    assert "expected --cam_threshold or --cam_power" in refine_many(
        folders / "images", folders / "maps", folders / "none"
    ).left_out[0]  # fmt: skip


def test_activation_maps_with_a_power(small, folders):
    """As PSA: the background is (1 - the largest)^alpha, and the CRF takes all of them as a softmax's output."""
    image, _ = small
    np.save(folders / "maps/a.npy", dict(zip([7, 14], activations(), strict=True)))
    np.save(folders / "maps/b.npy", {})  # no class at all: background
    (folders / "maps/b.npz").unlink()
    maps_ = activations()
    scores = np.concatenate([(1 - maps_.max(axis=0, keepdims=True)) ** 4, maps_]).transpose(1, 2, 0)
    probabilities = scores / scores.sum(axis=-1, keepdims=True)
    assert refine(folders, reader=MapReader(cam_power=4)).written == 2
    expected = np.array([0, 8, 15])[DenseCRF()(image, probabilities, return_labels=True)]
    np.testing.assert_array_equal(read(folders / "out/a.png"), expected)
    assert not read(folders / "out/b.png").any()


def test_activation_maps_of_other_forms_are_refused(folders):
    reader = MapReader(cam_threshold=0.3)
    path = folders / "maps/a.npy"
    for content, message in (
        ({"keys": np.array([1]), "maps": activations()}, "holds a dict with keys, maps; expected keys and high_res"),
        ({"keys": np.array([1]), "cam": activations()}, "holds keys of shape .1,. and maps of shape .2, 20, 24."),
        ({"keys": np.array([1, 300]), "cam": activations()}, "holds the keys 1 to 300"),
        ({"keys": np.array([1, 2]), "cam": activations() * 3}, "holds activations from 0 to 3, expected 0 to 1"),
        ({"keys": np.array([1, 2]), "cam": activations() * np.nan}, "holds activations from nan"),
        ({1: np.zeros((3, 3)), 2: np.zeros((4, 4))}, "different shapes"),
        ({"keys": None, "cam": activations()}, "holds keys that are no real numbers"),
        ({"keys": [[1, 2], [3]], "cam": activations()}, "holds keys that are no real numbers"),
        ({"keys": 10**30, "cam": activations()}, "holds keys that are no real numbers"),
        ({"keys": [1, 2], "high_res": "abc"}, "holds high_res that are no real numbers"),
        ({"keys": [1, 2], "cam": activations().astype("c8")}, "holds cam that are no real numbers"),
        ({1: {}}, "holds activation maps that are no real numbers"),
        ({1: [[1], [2, 3]]}, "holds activation maps that are no real numbers"),
        ({10**30: np.zeros((3, 3))}, "holds keys that are no real numbers"),
        ({f"key {i}\n": 0 for i in range(1000)}, "holds a dict with key 0 , key 1 , .*, key 5 ; expected keys and"),
        (["a", "list"], "holds a ndarray; expected an array, or a dict"),
        (pathlib.PurePosixPath("x"), "refers to pathlib.*PurePosixPath; expected arrays, numbers and tensors alone"),
    ):
        np.save(path, np.array(content, dtype=object))
        with pytest.raises(UserError, match=message):
            reader.read(path, (20, 24))


@pytest.mark.parametrize(
    "content",
    [
        b"\x93NUMPY\1\0\x06\0{'des(\n" + bytes(9),  # NumPy lets Python read the header
        b"\x93NUMPY\1\0\xff\xff{" + b" " * 70_000,  # a message of several lines
        b"\x93NUMPY\1\0\x28\x23{" + b"'x' " * 2249 + b"}  ",  # a message that holds the whole header
    ],
)
def test_damaged_arrays_are_one_line(content, tmp_path):
    (tmp_path / "a.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("probabilities.npy", content)
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("probabilities.npy", b"no array")  # np.load gives the bytes
    for name in ("a.npy", "a.npz", "b.npz"):
        with pytest.raises(UserError, match=f"{name}: cannot be read as a NumPy file") as raised:
            map_files.read_array(tmp_path / name)
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 250 + len(str(tmp_path))


def test_no_code_of_a_map_is_run(folders):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(folders / "harm"),)

    np.save(folders / "maps/a.npy", {"keys": Harm(), "cam": np.zeros(3)})
    with pytest.raises(UserError, match="a.npy: .*refers to .*mkdir; expected arrays, numbers"):
        map_files.read_array(folders / "maps/a.npy")
    assert not (folders / "harm").exists()
    np.save(folders / "maps/a.npy", {"keys": Harm()})
    content = (folders / "maps/a.npy").read_bytes()
    (folders / "maps/a.npy").write_bytes(content.replace(b"mkdir", b"mk\nir"))
    with pytest.raises(UserError, match="a.npy") as raised:
        map_files.read_array(folders / "maps/a.npy")
    assert "\n" not in str(raised.value)
    damaged = pickle.dumps({"keys": np.arange(3)})
    for cut in range(0, len(damaged), 7):
        (folders / "maps/a.npy").write_bytes((folders / "maps/a.npy").read_bytes()[:128] + damaged[:cut])
        with pytest.raises(UserError, match="a.npy"):
            map_files.read_array(folders / "maps/a.npy")


def test_turned_photographs(small, folders):
    """An image that its EXIF data turns is refined the way it is shown."""
    image, probabilities = small
    exif = PIL.Image.Exif()
    exif[274] = 6  # shown turned to the right
    PIL.Image.fromarray(np.rot90(image)).save(folders / "images/a.png", exif=exif)
    refine(folders)
    np.testing.assert_array_equal(read(folders / "out/a.png"), DenseCRF()(image, probabilities, return_labels=True))


@pytest.mark.slow
def test_apache_beam_writes_the_same(folders):
    pytest.importorskip("apache_beam")
    np.save(folders / "maps/c.npy", np.full((20, 24, 3), np.nan, np.float32))
    PIL.Image.new("RGB", (24, 20)).save(folders / "images/c.png")
    refine_many(folders / "images", folders / "maps", folders / "plain")
    refined = refine(folders, beam_pipeline_options="runner=DirectRunner")
    assert refined.written == 2 and "c.npy" in refined.left_out[0]
    assert sorted(os.listdir(folders / "out")) == ["a.png", "b.png"]
    for name in ("a.png", "b.png"):
        assert (folders / "out" / name).read_bytes() == (folders / "plain" / name).read_bytes()
    assert refine(folders, beam_pipeline_options="runner=DirectRunner").done_before == 2


@pytest.mark.slow
def test_command(folders):
    np.save(folders / "maps/b.npy", np.full((20, 24, 3), np.nan, np.float32))
    (folders / "maps/b.npz").unlink()
    PIL.Image.new("RGB", (24, 20)).save(folders / "images/unmapped.png")
    command = [sys.executable, str(REPOSITORY / "tools/refine.py")]
    command += ["--input=images", "--maps=maps", "--output_dir=out"]
    result = subprocess.run(command, cwd=folders, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert "refined    1 images in out" in result.stdout
    named = [line for line in result.stderr.splitlines() if line.startswith("left out   ")]
    assert "unmapped.png: has no map" in named[0] and "b.npy" in named[1] and "not finite" in named[1]
    assert "error: 2 left out" in result.stderr
    (folders / "maps/b.npy").unlink(), (folders / "images/unmapped.png").unlink(), (folders / "images/b.png").unlink()
    result = subprocess.run(command, cwd=folders, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and "refined    0 images in out, 1 had been done before" in result.stdout
