"""PyTorch's `.pth` files without PyTorch: tensors, numbers, text and containers of these, and nothing else.

A file is a pickle that refers to storages, in either of two layouts: a zip archive with one member for each storage
(PyTorch 1.6 and later), or the pickles and the storages one after another. Of what a pickle may name, only what builds
tensors is known here, so no code of the file is run; what a file says of a tensor is checked against the bytes that it
has, and the bytes are read when the tensor is asked for.
"""

import collections
import contextlib
import dataclasses
import io
import math
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

from deeplab_tf.pickles import DataUnpickler

_ITEM_TYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MOST_PICKLE_BYTES = 64 << 20
_SIZE_BYTES = 8  # of a storage's number of items, before its bytes


def load(path: str | pathlib.Path) -> Any:
    """Reads a file of `torch.save`, with a `Tensor` of this module in the place of each tensor.

    Raises:
        ValueError: the file is damaged, in no format of PyTorch's, or holds something else than data.
        OSError: it cannot be read.
    """
    path = pathlib.Path(path)
    path.open("rb").close()  # a file that cannot be opened is not a damaged one
    with _one_error():
        return _load_zip(path) if zipfile.is_zipfile(path) else _load_legacy(path)


@contextlib.contextmanager
def _one_error() -> Iterator[None]:
    """Whatever a damaged file makes pickle and zipfile raise becomes a ValueError."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"not a PyTorch file, or damaged: {str(error) or type(error).__name__}") from error


@dataclasses.dataclass(frozen=True)
class _Storage:
    """A run of `count` items of a type; `read()` gives their bytes."""

    item_type: str
    count: int
    read: Callable[[], bytes]

    @property
    def item_bytes(self) -> int:
        return 2 if self.item_type == "bfloat16" else np.dtype(self.item_type).itemsize


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor that has not been read yet.

    Attributes:
        shape: its size along each axis.
    """

    shape: tuple[int, ...]
    _storage: _Storage
    _offset: int
    _strides: tuple[int, ...]

    @property
    def is_floating(self) -> bool:
        """Whether its items are floating-point numbers."""
        return self._storage.item_type == "bfloat16" or np.dtype(self._storage.item_type).kind == "f"

    def numpy(self) -> np.ndarray:
        """Its items: a new array of `shape`; bfloat16 as float32.

        Raises:
            ValueError: the file has fewer bytes than it says.
        """
        content, item_bytes = self._storage.read(), self._storage.item_bytes
        if len(content) != self._storage.count * item_bytes:
            raise ValueError(
                f"found {len(content)} bytes, expected {self._storage.count * item_bytes}; is it complete?"
            )
        if self._storage.item_type == "bfloat16":  # the upper half of a float32
            items = (np.frombuffer(content, "<u2").astype("<u4") << 16).view("<f4")
        else:
            items = np.frombuffer(content, self._storage.item_type)
        if not math.prod(self.shape):
            return np.zeros(self.shape, items.dtype)
        strides = tuple(stride * items.itemsize for stride in self._strides)
        return np.lib.stride_tricks.as_strided(items[self._offset :], self.shape, strides, writeable=False).copy()


def _tensor(storage: _Storage, offset: int, shape: tuple, strides: tuple, *_) -> Tensor:
    """`torch._utils._rebuild_tensor_v2`: checks that the tensor lies within its storage."""
    whole = isinstance(storage, _Storage) and isinstance(offset, int) and len(shape) == len(strides) <= 32
    if not whole or not all(isinstance(number, int) and number >= 0 for number in (offset, *shape, *strides)):
        raise ValueError("a tensor is described by something else than whole numbers")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if math.prod(shape) > storage.count or (math.prod(shape) and last >= storage.count):
        raise ValueError(f"a tensor of shape {list(shape)} does not fit its {storage.count} stored items")
    return Tensor(tuple(shape), storage, offset, tuple(strides))


def _parameter(tensor: Tensor, *_) -> Tensor:
    """`torch._utils._rebuild_parameter`."""
    return tensor


_KNOWN = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): tuple,
    **{("torch", name): item_type for name, item_type in _ITEM_TYPES.items()},
}


class _Unpickler(DataUnpickler):
    """Knows tensors and ordered dictionaries; `storage` finds what a persistent id stands for."""

    known = _KNOWN
    expected = "tensors and plain data"

    def __init__(self, file: BinaryIO, storage: Callable[[str, str, int], _Storage] | None = None):
        super().__init__(file, encoding="utf-8")
        self._storage = storage

    def persistent_load(self, persistent_id: Any) -> _Storage:
        kind, item_type, key, _, count, *view = persistent_id
        if self._storage is None or kind != "storage" or item_type not in _ITEM_TYPES.values() or any(view):
            raise pickle.UnpicklingError("it refers to a storage in a way that is not known")
        if not isinstance(count, int) or count < 0:
            raise pickle.UnpicklingError(f"a storage has {count!r} items")
        return self._storage(item_type, str(key), count)


def _load_zip(path: pathlib.Path) -> Any:
    """A zip archive with <name>/data.pkl and <name>/data/<key>, none of them compressed."""
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        name = next((name for name in members if name.endswith("/data.pkl")), None)
        if name is None:
            raise ValueError("a zip file without data.pkl is not PyTorch's")
        folder = name.removesuffix("data.pkl")
        if members[name].file_size > _MOST_PICKLE_BYTES:
            raise ValueError(f"its data.pkl is larger than {_MOST_PICKLE_BYTES >> 20} MB")
        if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder") != b"little":
            raise ValueError("it was written on a big-endian machine")

        def storage(item_type: str, key: str, count: int) -> _Storage:
            member = members[f"{folder}data/{key}"]
            made = _Storage(item_type, count, lambda: _member(path, member))
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != count * made.item_bytes:
                raise ValueError(f"{member.filename} has {member.file_size} bytes, expected {count * made.item_bytes}")
            return made

        return _Unpickler(io.BytesIO(archive.read(name)), storage).load()


def _member(path: pathlib.Path, member: zipfile.ZipInfo) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(member)


def _load_legacy(path: pathlib.Path) -> Any:
    """A magic number, a version, facts of the machine, the object, the storages' keys; then each storage's bytes."""
    starts: dict[str, tuple[int, int]] = {}  # of each storage: its first byte, its number of items

    def read(key: str, byte_count: int) -> bytes:
        with path.open("rb") as file:
            file.seek(starts[key][0])
            return file.read(byte_count)

    items: dict[str, _Storage] = {}

    def storage(item_type: str, key: str, count: int) -> _Storage:
        made = _Storage(item_type, count, lambda: read(key, count * made.item_bytes))
        if items.setdefault(key, made).item_type != item_type or items[key].count != count:
            raise ValueError(f"storage {key} is described in two ways")
        return items[key]

    with path.open("rb") as file:
        if _Unpickler(file).load() != _MAGIC or _Unpickler(file).load() != _PROTOCOL:
            raise ValueError("it does not begin as PyTorch's files do")
        _Unpickler(file).load()
        content = _Unpickler(file, storage).load()
        size = path.stat().st_size
        for key in map(str, _Unpickler(file).load()):
            (count,) = struct.unpack("<q", file.read(_SIZE_BYTES))
            starts[key] = file.tell(), count
            end = file.tell() + count * items[key].item_bytes
            if count != items[key].count or end > size:
                raise ValueError(f"storage {key} has {count} items, expected {items[key].count}; is it complete?")
            file.seek(end)
        if items.keys() - starts.keys():
            raise ValueError("storages are missing; is it complete?")
    return content
