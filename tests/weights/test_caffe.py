"""Caffemodels with the released layer names, written field by field, against PyTorch networks of the same numbers."""

import struct

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deeplab_tf import DeepLab, weights
from deeplab_tf.errors import UserError

MEAN = np.array([104.008, 116.669, 122.675], "float32")  # B, G, R


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


def new_layer(name: str, kind: str, *arrays, extra: bytes = b"") -> bytes:
    blobs = b"".join(content(7, blob(array)) for array in arrays)
    return content(100, content(1, name.encode()) + content(2, kind.encode()) + blobs + extra)


def old_layer(name: str, kind: int, *arrays) -> bytes:
    blobs = b"".join(content(6, blob(array, old=True)) for array in arrays)
    return content(2, content(4, name.encode()) + number(5, kind) + blobs)


class Numbers:
    """Random weights in Caffe's layout by Caffe's names; made when first asked for."""

    def __init__(self):
        self.rng = np.random.default_rng(0)
        self.convolutions: dict[str, list[np.ndarray]] = {}
        self.norms: dict[str, list[np.ndarray]] = {}

    def conv(self, x, name, filters, size, stride=1, rate=1, bias=True):
        if name not in self.convolutions:
            shape = (filters, x.shape[1], size, size)
            kernel = self.rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype("float32")
            self.convolutions[name] = [kernel, *([self.rng.normal(0, 0.1, filters).astype("float32")] * bias)]
        kernel, *bias = map(torch.from_numpy, self.convolutions[name])
        return F.conv2d(x, kernel, *bias or [None], stride, rate * (size - 1) // 2, rate)

    def norm(self, x, name):
        """Caffe's BatchNorm (mean and variance over a factor), then its Scale."""
        count = x.shape[1]
        if name not in self.norms:
            factor = 999.98
            self.norms[name] = [
                *(self.rng.normal(0, 0.1, count) * factor, self.rng.uniform(0.5, 2, count) * factor, [factor]),
                *(self.rng.uniform(0.2, 0.6, count), self.rng.normal(0, 0.1, count)),
            ]
        mean, variance, (factor,), gamma, beta = (torch.tensor(a, dtype=torch.float32) for a in self.norms[name])
        return F.batch_norm(x, mean / factor, variance / factor, gamma, beta, eps=1e-5)


def vgg16(n: Numbers, x, branches: list[tuple[str, str, int]]):
    for stage, widths in enumerate(((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3), start=1):
        for i, width in enumerate(widths, start=1):
            x = F.relu(n.conv(x, f"conv{stage}_{i}", width, 3, rate=2 if stage == 5 else 1))
        x = F.max_pool2d(x, 3, stride=2 if stage <= 3 else 1, padding=1)
    scores = 0
    for branch, classifier, rate in branches:
        y = F.relu(n.conv(x, f"fc6{branch}", 1024, 3, rate=rate))
        scores = scores + n.conv(F.relu(n.conv(y, f"fc7{branch}", 1024, 1)), classifier, 21, 1)
    return scores


def resnet101(n: Numbers, x):
    def conv_norm(x, unit, filters, size, stride=1, rate=1):
        name = "_conv1" if unit == "conv1" else unit.removeprefix("res")
        return n.norm(n.conv(x, unit, filters, size, stride, rate, bias=False), name)

    x = F.max_pool2d(F.relu(conv_norm(x, "conv1", 64, 7, 2)), 3, stride=2, padding=1)
    stages = {2: "a b c", 3: "a b1 b2 b3", 4: "a " + " ".join(f"b{i}" for i in range(1, 23)), 5: "a b c"}
    for stage, width, rate in ((2, 64, 1), (3, 128, 1), (4, 256, 2), (5, 512, 4)):
        for block in stages[stage].split():
            unit, stride = f"res{stage}{block}_branch", 2 if (stage, block) == (3, "a") else 1
            y = F.relu(conv_norm(x, f"{unit}2a", width, 1, stride))
            y = F.relu(conv_norm(y, f"{unit}2b", width, 3, rate=rate))
            y = conv_norm(y, f"{unit}2c", 4 * width, 1)
            x = F.relu(y + (conv_norm(x, f"{unit}1", 4 * width, 1, stride) if block == "a" else x))
    return sum(n.conv(x, f"fc1_voc12_c{i}", 21, 3, rate=rate) for i, rate in enumerate((6, 12, 18, 24)))


def bgr(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images[..., ::-1].astype("float32") - MEAN).permute(0, 3, 1, 2)


def assert_close(ours, theirs: torch.Tensor) -> None:
    expected = theirs.permute(0, 2, 3, 1).numpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ours), expected, atol=1e-4 * np.abs(expected).max())


IMAGES = np.random.default_rng(1).integers(0, 256, (1, 97, 97, 3), dtype=np.uint8)
VGG_HEADS = {
    "large_fov": [("", "fc8_voc12", 12)],
    "aspp_l": [(f"_{i}", f"fc8_voc12_{i}", rate) for i, rate in enumerate((6, 12, 18, 24), start=1)],
}


@pytest.mark.parametrize("head, generation", [("large_fov", "old"), ("aspp_l", "new")])
def test_vgg16(head, generation, tmp_path):
    numbers = Numbers()
    expected = vgg16(numbers, bgr(IMAGES), VGG_HEADS[head])
    written = content(1, b"vgg") + (old_layer("relu1", 18) if generation == "old" else new_layer("relu1", "ReLU"))
    for name, arrays in numbers.convolutions.items():
        written += old_layer(name, 4, *arrays) if generation == "old" else new_layer(name, "Convolution", *arrays)
    (tmp_path / "x.caffemodel").write_bytes(written)

    model = DeepLab("vgg16", head, 21, scales=(1.0,), preprocessing="torch")
    report = weights.load(model, tmp_path / "x.caffemodel")
    assert len(report.taken) == len(numbers.convolutions) and not report.left and not report.initialised
    assert report.preprocessing == "caffe"
    assert_close(model(IMAGES), expected)


@pytest.fixture(scope="module")
def released_resnet101():
    """The score maps of ResNet-101 at one scale and with three, and the caffemodel with the branches of all scales."""
    numbers = Numbers()
    x = bgr(IMAGES)
    single = resnet101(numbers, x)
    fused = single
    for size in (73, 49):
        scores = resnet101(numbers, F.interpolate(x, size=(size, size), mode="bilinear", align_corners=True))
        scores = F.interpolate(scores, single.shape[2:], mode="bilinear", align_corners=True)
        fused = torch.maximum(fused, scores)
    layers = []
    for name, arrays in numbers.convolutions.items():
        layers.append((name, "Convolution", arrays))
        norm = {"conv1": "_conv1"}.get(name, name.removeprefix("res"))
        if norm in numbers.norms:
            layers.append((f"bn{norm}", "BatchNorm", numbers.norms[norm][:3]))
            layers.append((f"scale{norm}", "Scale", numbers.norms[norm][3:]))
    return fused, layers


def caffemodel(path, layers, suffixes=("",)) -> str:
    path.write_bytes(
        b"".join(new_layer(n + suffix, kind, *arrays) for suffix in suffixes for n, kind, arrays in layers)
    )
    return str(path)


def test_resnet101_of_three_scales(released_resnet101, tmp_path):
    expected, layers = released_resnet101
    source = caffemodel(tmp_path / "x.caffemodel", layers, ("", "_res075", "_res05"))
    model = DeepLab("resnet101", "aspp_l", 21)
    report = weights.load(model, source)
    assert len(report.taken) == 104 * 2 + 4 and not report.left and not report.initialised
    assert f"{2 * len(layers)} layers repeat these for the other scales" in str(report) and len(report.notes) == 1
    assert_close(model(IMAGES), expected)


def tiny_layers(model: DeepLab) -> list:
    """The weights of a small network as a caffemodel has them."""
    layers = []
    for layer in model.network.layers:
        arrays = layer.get_weights()
        if len(arrays) == 4:
            gamma, beta, mean, variance = arrays
            layers.append((layer.name, "BatchNorm", [mean * 2, variance * 2, [2.0]]))
            layers.append((layer.name.replace("bn", "scale", 1), "Scale", [gamma, beta]))
        elif arrays:
            name = layer.name.replace("fc1", "fc1_coco")
            layers.append((name, "Convolution", [arrays[0].transpose(3, 2, 0, 1), *arrays[1:]]))
    return layers


def test_another_epsilon_and_a_bias_before_batch_norm_are_folded(tiny, tmp_path):
    layers = tiny_layers(tiny)
    written = b""
    for name, kind, arrays in layers:
        epsilon = content(139, varint(3 << 3 | 5) + struct.pack("<f", 1e-3)) if kind == "BatchNorm" else b""
        if name == "conv1":
            arrays = [*arrays, np.full(16, 0.25)]
        written += new_layer(name, kind, *arrays, extra=epsilon)
    (tmp_path / "x.caffemodel").write_bytes(written)
    model = DeepLab("resnet_tiny", "aspp_l", 5)
    weights.load(model, tmp_path / "x.caffemodel")
    for name, shift in (("bn_conv1", 0.25), ("bn5b_branch2c", 0.0)):
        ours, theirs = model.network.get_layer(name), tiny.network.get_layer(name)
        np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean - shift, atol=1e-6)
        np.testing.assert_allclose(ours.moving_variance + 1e-5, theirs.moving_variance + 1e-3, rtol=1e-6)


def test_branches_with_weights_of_their_own_are_left_and_said(tiny, tmp_path):
    layers = tiny_layers(tiny)
    name, kind, arrays = layers[0]
    branch = [(f"{name}_res05", kind, [arrays[0] + 1]), (f"{name}_res075", kind, arrays)]
    report = weights.load(tiny, caffemodel(tmp_path / "x.caffemodel", [*layers, *branch]))
    assert "2 layers repeat these" in str(report) and "1 of them, such as conv1_res05, have weights" in str(report)
    np.testing.assert_array_equal(tiny.network.get_layer("conv1").kernel, arrays[0].transpose(2, 3, 1, 0))


def test_broken_caffemodels(tiny, tmp_path, unchanged):
    whole = b"".join(new_layer(*layer[:2], *layer[2]) for layer in tiny_layers(tiny))
    path = tmp_path / "x.caffemodel"
    model = DeepLab("resnet_tiny", "aspp_l", 5)
    check = unchanged(model)
    rng = np.random.default_rng(0)
    last = len(whole) - len(new_layer(*tiny_layers(tiny)[-1][:2], *tiny_layers(tiny)[-1][2]))
    cuts = [0, 1, 100, last // 2, len(whole) - 1]
    for broken in [*(whole[:cut] for cut in cuts), rng.bytes(1000), b"<html>Not found</html>"]:
        path.write_bytes(broken)
        with pytest.raises(UserError) as caught:
            weights.load(model, path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        check()


def test_a_blob_with_too_few_numbers(tiny, tmp_path):
    short = content(7, content(5, np.ones(5, "<f4").tobytes()) + content(7, content(1, bytes([16, 3, 7, 7]))))
    (tmp_path / "x.caffemodel").write_bytes(content(100, content(1, b"conv1") + content(2, b"Convolution") + short))
    with pytest.raises(UserError, match=r"layer conv1: found 5 numbers in a blob of shape \[16, 3, 7, 7\]"):
        weights.load(tiny, tmp_path / "x.caffemodel")


@pytest.mark.parametrize("generation", ["old", "new"])
def test_dense_layers_become_convolutions(generation, tmp_path):
    """The ImageNet VGG-16 of Caffe has dense layers, which older files write as [1, 1, out, in]."""
    rng = np.random.default_rng(0)
    filters = 1024  # of 4,096, to keep the file small
    layers, inputs = {}, 3
    for stage, widths in enumerate(((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3), start=1):
        for i, width in enumerate(widths, start=1):
            layers[f"conv{stage}_{i}"] = [np.zeros((width, inputs, 3, 3)), np.zeros(width)]
            inputs = width
    fc6, fc7 = rng.standard_normal((filters, 512 * 49), np.float32), rng.standard_normal((filters, filters), np.float32)
    layers |= {"fc6": [fc6, np.arange(filters)], "fc7": [fc7, np.arange(filters)]}
    written = (
        old_layer(name, 4, *arrays) if generation == "old" else new_layer(name, "InnerProduct", *arrays)
        for name, arrays in layers.items()
    )
    (tmp_path / "x.caffemodel").write_bytes(b"".join(written))
    model = DeepLab("vgg16", "large_fov", 5, scales=(1.0,))
    assert list(weights.load(model, tmp_path / "x.caffemodel").initialised) == ["fc8"]
    chosen = model.network.get_layer("fc6").bias.numpy().astype(int)
    assert sorted(chosen) == list(range(filters))
    expected = fc6.reshape(filters, 512, 7, 7)[chosen][:, :, ::3, ::3].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(model.network.get_layer("fc6").kernel, expected)
    following = model.network.get_layer("fc7").bias.numpy().astype(int)
    np.testing.assert_array_equal(model.network.get_layer("fc7").kernel[0, 0], fc7[np.ix_(following, chosen)].T)
