"""Caffemodels with the released layer names, written field by field, against PyTorch networks of the same numbers."""

import re
import struct

import numpy as np
import pytest
import torch

from benchmarks import pytorch_networks
from deeplab_tf import DeepLab, weights
from deeplab_tf.errors import UserError
from tests.helpers import assert_same_scores, randomise
from tests.weights.caffe_writer import content, new_layer, old_layer, varint

pytestmark = pytest.mark.usefixtures("whole_network")


def arrays_of(network) -> dict[str, list[np.ndarray]]:
    """The weights of a PyTorch network by the released names, as Caffe stores them."""
    arrays = {}
    for name, module in network.caffe_layers().items():
        if isinstance(module, torch.nn.BatchNorm2d):  # mean and variance over a factor; then a layer Scale
            factor = 999.98
            statistics = [module.running_mean * factor, module.running_var * factor, [factor]]
            arrays[name] = [np.asarray(value) for value in statistics]
            arrays[name.replace("bn", "scale", 1)] = [module.weight.detach().numpy(), module.bias.detach().numpy()]
        else:
            name = name.replace("fc1_", "fc1_voc12_").replace("fc8", "fc8_voc12")
            arrays[name] = [parameter.detach().numpy() for parameter in module.parameters()]
    return arrays


def assert_close(ours, theirs: torch.Tensor) -> None:
    expected = theirs.permute(0, 2, 3, 1).numpy()
    assert np.abs(expected).max() > 0.1
    assert_same_scores(ours, expected)


IMAGES = np.random.default_rng(1).integers(0, 256, (1, 97, 97, 3), dtype=np.uint8)


@pytest.mark.parametrize("head, rates, generation", [("large_fov", (12,), "old"), ("aspp_l", (6, 12, 18, 24), "new")])
@pytest.mark.slow
def test_vgg16(head, rates, generation, tmp_path):
    network = randomise(pytorch_networks.VGG16(rates=rates))
    with torch.no_grad():
        expected = network(pytorch_networks.preprocess(torch.from_numpy(IMAGES)))
    arrays = arrays_of(network)
    written = [content(1, b"vgg"), old_layer("relu1", 18) if generation == "old" else new_layer("relu1", "ReLU")]
    for name, blobs in arrays.items():
        written += [old_layer(name, 4, *blobs) if generation == "old" else new_layer(name, "Convolution", *blobs)]
    (tmp_path / "x.caffemodel").write_bytes(b"".join(written))

    model = DeepLab("vgg16", head, 21, scales=(1.0,))
    report = weights.load(model, tmp_path / "x.caffemodel")
    assert len(report.taken) == len(arrays) and not report.left and not report.initialised
    assert report.preprocessing == "caffe"
    assert_close(model(IMAGES), expected)


@pytest.fixture(scope="module")
def released_resnet101():
    """The score maps of ResNet-101 at one scale and with three, and the caffemodel with the branches of all scales."""
    network = randomise(pytorch_networks.ResNet())
    with torch.no_grad():
        x = pytorch_networks.preprocess(torch.from_numpy(IMAGES))
        fused = pytorch_networks.score_maps(network, x, (0.5, 0.75, 1))[-1]
    kinds = {"bn": "BatchNorm", "sc": "Scale"}
    layers = [(name, kinds.get(name[:2], "Convolution"), blobs) for name, blobs in arrays_of(network).items()]
    return fused, layers


def caffemodel(path, layers, suffixes=("",)) -> str:
    """Writes layers once for each of the suffixes, which stand before the number of a branch: fc1_voc12_res05_c0."""
    with path.open("wb") as file:
        for suffix in suffixes:
            for name, kind, arrays in layers:
                file.write(new_layer(re.sub(r"(?=_c\d$)|(?<!_c\d)$", suffix, name, count=1), kind, *arrays))
    return str(path)


@pytest.mark.slow
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
        # Divided by the file's factor and shifted, in float32.
        np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean - shift, atol=1e-6)
        np.testing.assert_allclose(ours.moving_variance + 1e-5, theirs.moving_variance + 1e-3, rtol=1e-6)


def test_branches_with_weights_of_their_own_are_left_and_said(tiny, tmp_path):
    layers = tiny_layers(tiny)
    name, kind, arrays = layers[0]
    branch = [(f"{name}_res05", kind, [arrays[0] + 1]), (f"{name}_res075", kind, arrays)]
    model = DeepLab("resnet_tiny", "aspp_l", 5)
    report = weights.load(model, caffemodel(tmp_path / "x.caffemodel", [*layers, *branch]))
    assert "2 layers repeat these" in str(report) and "1 of them, such as conv1_res05, have weights" in str(report)
    np.testing.assert_array_equal(model.network.get_layer("conv1").kernel, arrays[0].transpose(2, 3, 1, 0))


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
@pytest.mark.slow
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
    layers["fc8"] = [np.zeros((1000, filters)), np.zeros(1000)]  # for whole images
    written = (
        old_layer(name, 4, *arrays) if generation == "old" else new_layer(name, "InnerProduct", *arrays)
        for name, arrays in layers.items()
    )
    (tmp_path / "x.caffemodel").write_bytes(b"".join(written))
    assert weights.describe(tmp_path / "x.caffemodel") == {"backbone": "vgg16", "preprocessing": "caffe"}
    model = DeepLab("vgg16", "large_fov", 5, scales=(1.0,))
    assert list(weights.load(model, tmp_path / "x.caffemodel").initialised) == ["fc8"]
    chosen = model.network.get_layer("fc6").bias.numpy().astype(int)
    assert sorted(chosen) == list(range(filters))
    expected = fc6.reshape(filters, 512, 7, 7)[chosen][:, :, ::3, ::3].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(model.network.get_layer("fc6").kernel, expected)
    following = model.network.get_layer("fc7").bias.numpy().astype(int)
    np.testing.assert_array_equal(model.network.get_layer("fc7").kernel[0, 0], fc7[np.ix_(following, chosen)].T)
