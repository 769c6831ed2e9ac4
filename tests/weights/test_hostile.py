"""Weight files that lie: each is one line, and the model stays as it was."""

import zipfile

import h5py
import numpy as np
import pytest
import torch

from deeplab_tf import DeepLab, weights
from deeplab_tf.errors import UserError


def first_kernel(file: h5py.File) -> str:
    """The path of conv1's kernel."""
    found = []
    file.visititems(lambda path, item: found.append(path) if item.attrs.get("name") == "conv1" else None)
    return f"{found[0]}/0"


@pytest.fixture
def own_file(tiny, tmp_path):
    """A weight file of ours; its conv1 is about to be replaced."""
    weights.save(tiny, tmp_path / "x.weights.h5")
    return tmp_path / "x.weights.h5"


def external_link(file, path, shape):
    file[path] = h5py.ExternalLink("/etc/other.h5", "/kernel")


def external_storage(file, path, shape):
    file.create_dataset(path, shape, "f4", external=[("/etc/hostname", 0, int(np.prod(shape)) * 4)])


def virtual(file, path, shape):
    layout = h5py.VirtualLayout(shape, "f4")
    layout[:] = h5py.VirtualSource("other.h5", "kernel", shape)
    file.create_virtual_dataset(path, layout)


@pytest.mark.parametrize(
    "replace, match",
    [
        (lambda f, p, s: f.create_dataset(p, data=np.full(s, 1e300)), "not finite in float32"),
        (lambda f, p, s: f.create_dataset(p, data=np.ones(s, "c8")), "complex64, expected real numbers"),
        (lambda f, p, s: f.create_dataset(p, s, h5py.string_dtype()), "expected real numbers"),
        (lambda f, p, s: f.create_dataset(p, data=np.full(s, b"abc")), "expected real numbers"),
        (lambda f, p, s: f.create_dataset(p, s, h5py.vlen_dtype("f4")), "expected real numbers"),
        (lambda f, p, s: f.create_dataset(p, s, [("a", "f4"), ("b", "f4")]), "expected real numbers"),
        (lambda f, p, s: f.create_dataset(p, (1 << 20, 1 << 15)), r"found a kernel of shape \[1048576, 32768\]"),
        (lambda f, p, s: f.create_dataset(p, s, "f4", chunks=(7, 7, 3, 1 << 21), maxshape=(7, 7, 3, None)), "chunks"),
        (external_link, "lacks 1 layer: conv1"),
        (external_storage, "refers to another file"),
        (virtual, "refers to another file"),
    ],
)
def test_hdf5(replace, match, own_file, tiny, unchanged):
    with h5py.File(own_file, "r+") as file:
        path = first_kernel(file)
        shape = file[path].shape
        del file[path]
        replace(file, path, shape)
    check = unchanged(tiny)
    with pytest.raises(UserError, match=match) as caught:
        weights.load(tiny, own_file)
    assert "\n" not in str(caught.value)
    check()


def test_negative_variance(own_file, tiny, unchanged):
    tiny.network.get_layer("bn_conv1").moving_variance.assign(np.full(16, -0.5, "f4"))
    weights.save(tiny, own_file)
    check = unchanged(tiny)
    with pytest.raises(UserError, match="layer bn_conv1: its moving_variance holds negative numbers"):
        weights.load(tiny, own_file)
    check()


def test_a_pth_that_holds_itself(tiny, tmp_path):
    content = {}
    content["state_dict"] = content
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match="x.pth") as caught:
        weights.load(tiny, tmp_path / "x.pth")
    assert "\n" not in str(caught.value)


def test_a_complex_tensor_in_a_pth(tmp_path):
    state = {"layer1.0.conv1.weight": torch.ones(2, 2)}
    torch.save(state | {"x": torch.ones(2, dtype=torch.complex64)}, tmp_path / "x.pth")
    with pytest.raises(UserError) as caught:
        weights.load(DeepLab("resnet_tiny", "linear", 3), tmp_path / "x.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_a_heap_of_texts_at_which_hdf5_hangs(tiny, tmp_path, suffix, unchanged):
    """Free space of no size; HDF5 1.14.6 goes in a circle there, and no Ctrl-C ends it."""
    path = tmp_path / f"x{suffix}"
    weights.save(tiny, path) if suffix == ".weights.h5" else tiny.save(path)
    weights.load(tiny, path)

    def damaged(content: bytes) -> bytes:
        at = start = content.index(b"GCOL\1\0\0\0") + 16
        while number := int.from_bytes(content[at : at + 2], "little"):
            assert number and at < start + 4096
            at += 16 + -(-int.from_bytes(content[at + 8 : at + 16], "little") // 8) * 8
        return content[: at + 8] + bytes(8) + content[at + 16 :]

    if suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, damaged(content) if name == "model.weights.h5" else content)
    else:
        path.write_bytes(damaged(path.read_bytes()))
    check = unchanged(tiny)
    with pytest.raises(UserError, match=f"x{suffix}: a heap of texts in it is damaged"):
        weights.load(tiny, path)
    check()
