"""Caffemodels field by field, in the formats of 2015 (`layers`) and of today (`layer`)."""

import numpy as np


# The wire format of protobuf, by hand: a tag (number << 3 | wire type), then a varint or a length and bytes.
def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def content(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def blob(array, old: bool = False) -> bytes:
    array = np.asarray(array, "<f4")
    if old:
        dims = [1] * (4 - array.ndim) + list(array.shape)
        shape = b"".join(number(i, dim) for i, dim in enumerate(dims, start=1))
    else:
        shape = content(7, content(1, b"".join(map(varint, array.shape))))
    return content(5, array.tobytes()) + shape


def convolution(stride: int = 1, rate: int = 1) -> bytes:
    """A new layer's convolution_param: stride 6, dilation 18."""
    return content(106, number(6, stride) + number(18, rate))


def old_convolution(rate: int = 1) -> bytes:
    """An old layer's convolution_param: hole 17."""
    return content(10, number(17, rate))


def pool(field: int, kernel_size: int, stride: int, average: bool = False) -> bytes:
    """A pooling_param, field 121 of a new layer and 19 of an old one."""
    return content(field, number(1, int(average)) + number(2, kernel_size) + number(3, stride))


def new_layer(name: str, kind: str, *arrays, extra: bytes = b"") -> bytes:
    blobs = b"".join(content(7, blob(array)) for array in arrays)
    return content(100, content(1, name.encode()) + content(2, kind.encode()) + blobs + extra)


def old_layer(name: str, kind: int, *arrays, extra: bytes = b"") -> bytes:
    blobs = b"".join(content(6, blob(array, old=True)) for array in arrays)
    return content(2, content(4, name.encode()) + number(5, kind) + blobs + extra)
