"""The reader of .pth files against torch.load, and on hostile and damaged ones."""

import collections
import io
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from deeplab_tf.pickles import DataUnpickler
from deeplab_tf.weights import torch_archive

LAYOUTS = pytest.mark.parametrize("new_layout", [True, False], ids=["zip", "legacy"])


def contents():
    rng = np.random.default_rng(0)
    shared = torch.from_numpy(rng.normal(size=(6, 4)).astype(np.float32))
    return {
        "state_dict": collections.OrderedDict(
            weight=torch.from_numpy(rng.normal(size=(3, 2, 5, 5)).astype(np.float32)),
            parameter=torch.nn.Parameter(torch.arange(6, dtype=torch.float64).reshape(2, 3)),
            half=torch.ones(3, dtype=torch.float16) / 3,
            bfloat16=torch.linspace(-2, 2, 7).to(torch.bfloat16),
            count=torch.tensor(7),
            flags=torch.tensor([True, False]),
            bytes=torch.arange(5, dtype=torch.uint8),
            transposed=shared.T,
            part=shared[2:5, 1:3],
            empty=torch.zeros(0, 4),
            expanded=torch.ones(1, 3).expand(1, 3),
        ),
        "epoch": 12,
        "names": ["a", ("b", None)],
    }


@LAYOUTS
def test_tensors_are_those_of_torch_load(tmp_path, new_layout):
    path = tmp_path / "x.pth"
    torch.save(contents(), path, _use_new_zipfile_serialization=new_layout)
    found = torch_archive.load(path)
    expected = torch.load(path, weights_only=True)
    assert found["epoch"] == 12 and found["names"] == ["a", ("b", None)]
    assert found["state_dict"].keys() == expected["state_dict"].keys()
    for name, tensor in expected["state_dict"].items():
        ours = found["state_dict"][name]
        assert ours.shape == tuple(tensor.shape) and ours.is_floating == tensor.is_floating_point()
        wanted = tensor.detach().float().numpy() if tensor.dtype == torch.bfloat16 else tensor.detach().numpy()
        assert ours.numpy().dtype == wanted.dtype
        np.testing.assert_array_equal(ours.numpy(), wanted, err_msg=name)


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def hostile(tmp_path, new_layout, content: bytes):
    """A file whose object is the given pickle."""
    path = tmp_path / "x.pth"
    if new_layout:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", content)
    else:
        dumped = [pickle.dumps(value, 2) for value in (torch_archive._MAGIC, torch_archive._PROTOCOL, {})]
        path.write_bytes(b"".join([*dumped, content, pickle.dumps([], 2)]))
    return path


@LAYOUTS
@pytest.mark.parametrize(
    "function, arguments",
    [
        (exec, ("open('made', 'w')",)),
        (print, ("run",)),
        (getattr, ("x", "upper")),
        (np.zeros, (3,)),
        (torch.load, ("y.pth",)),
        (pickle.loads, (b"N.",)),
    ],
)
def test_no_code_of_a_file_is_run(tmp_path, monkeypatch, new_layout, function, arguments, capsys):
    monkeypatch.chdir(tmp_path)
    path = hostile(tmp_path, new_layout, pickle.dumps({"x": Calls(function, *arguments)}, 2))
    with pytest.raises(ValueError, match="refers to .*; expected tensors and plain data alone"):
        torch_archive.load(path)
    assert not (tmp_path / "made").exists() and "run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "shape, strides, offset",
    [((3, 4), (4, 1), 1), ((13,), (1,), 0), ((2,), (100,), 0), ((-1,), (1,), 0), ((2,), (-1,), 3), ((2,), (1,), -1),
     ((2,), (1, 1), 0), ((1 << 40, 1 << 40), (0, 0), 0), ((2.5,), (1,), 0)],
)  # fmt: skip
def test_a_tensor_outside_of_its_storage_is_refused(shape, strides, offset):
    storage = torch_archive._Storage("<f4", 12, lambda: bytes(48))
    with pytest.raises(ValueError, match="does not fit its 12 stored items|something else than whole numbers"):
        torch_archive._tensor(storage, offset, shape, strides)


@LAYOUTS
def test_damaged_files_end_in_one_error(tmp_path, new_layout):
    path = tmp_path / "x.pth"
    torch.save(contents(), path, _use_new_zipfile_serialization=new_layout)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        if rng.random() < 0.3:
            damaged = damaged[: rng.integers(len(damaged))]
        for _ in range(rng.integers(1, 6)):
            if damaged:
                damaged[rng.integers(len(damaged))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            content = torch_archive.load(path)
            for tensor in (
                content["state_dict"].values() if isinstance(content, dict) and "state_dict" in content else ()
            ):
                tensor.numpy()
        except (ValueError, zipfile.BadZipFile):
            refused += 1
        except AttributeError:  # something else than a tensor where one was
            refused += 1
    assert refused > 50


def test_a_compressed_or_endless_member_is_refused(tmp_path):
    path, packed = tmp_path / "x.pth", tmp_path / "packed.pth"
    torch.save({"x": torch.zeros(100_000)}, path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as other:
        for name in archive.namelist():
            other.writestr(name, archive.read(name))
    with pytest.raises(ValueError, match="data/0 has"):
        torch_archive.load(packed)
    (tmp_path / "none.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="not a PyTorch file, or damaged"):
        torch_archive.load(tmp_path / "none.pth")


def test_a_pickle_cannot_ask_for_memory():
    """LONG_BINPUT 2^28 - 1: pickle in C takes 4 GB for it."""
    tracemalloc.start()
    DataUnpickler(io.BytesIO(b"\x80\x02]r\xff\xff\xff\x0f.")).load()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e7
