"""Caffemodels with the layers of the release, by their names and in their order: each is seen as what it is."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks import pytorch_networks
from deeplab_tf import DeepLab, weights
from deeplab_tf.errors import UserError
from deeplab_tf.inference import Segmenter
from tests.helpers import randomise, run_command
from tests.weights.caffe_writer import convolution, new_layer, old_convolution, old_layer, pool
from tests.weights.test_caffe import IMAGES, arrays_of, assert_close, caffemodel, tiny_layers

pytestmark = pytest.mark.usefixtures("whole_network")

STAGES = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)


def old_vgg(*head: tuple, average_pool: bool, pool_size: int = 3, conv5_rate: int = 2, arrays=None) -> bytes:
    """VGG-16 as the release of 2015 writes it: a layer for every operation. Kernels of one input where none are given.

    Args:
        head: (name, shape of the kernel, rate) of each layer after the pools.
        average_pool: whether there is pool5a.
        pool_size: side of the pools.
        conv5_rate: rate of conv5.
        arrays: kernel and bias by layer.
    """
    written = old_layer("data", 5)

    def conv(name, shape, rate):
        blobs = arrays[name] if arrays else (np.zeros(shape), np.zeros(shape[0]))
        return old_layer(name, 4, *blobs, extra=old_convolution(rate))

    for stage, widths in enumerate(STAGES, start=1):
        for i, width in enumerate(widths, start=1):
            written += conv(f"conv{stage}_{i}", (width, 1, 3, 3), conv5_rate if stage == 5 else 1)
            written += old_layer(f"relu{stage}_{i}", 18)
        written += old_layer(f"pool{stage}", 17, extra=pool(19, pool_size, 2 if stage <= 3 else 1))
    if average_pool:
        written += old_layer("pool5a", 17, extra=pool(19, 3, 1, average=True))
    for name, shape, rate in head:
        written += conv(name, shape, rate) + old_layer(f"drop_{name}", 6)
    return written


LARGE_FOV = (("fc6", (1024, 1, 3, 3), 12), ("fc7", (1024, 1, 1, 1), 1), ("fc8_voc12", (21, 1, 1, 1), 1))
FC_4X4 = (("fc6", (4096, 1, 4, 4), 4), ("fc7", (4096, 1, 1, 1), 1), ("fc8_voc12", (21, 1, 1, 1), 1))


def aspp(*rates: int) -> tuple:
    branches = enumerate(rates, start=1)
    return tuple(
        layer
        for i, rate in branches
        for layer in (
            (f"fc6_{i}", (1024, 1, 3, 3), rate),
            (f"fc7_{i}", (1024, 1, 1, 1), 1),
            (f"fc8_voc12_{i}", (21, 1, 1, 1), 1),
        )
    )


@pytest.mark.parametrize(
    "head, average_pool, expected, crf",
    [
        (LARGE_FOV, True, "large_fov", (4, 121, 5, 3, 3)),
        (aspp(6, 12, 18, 24), False, "aspp_l", (4, 65, 3, 2, 2)),
        (aspp(2, 4, 8, 12), False, "aspp_s", None),
        (FC_4X4, False, "fc_4x4_r4", None),
        ((("fc6", (4096, 1, 4, 4), 8), *FC_4X4[1:]), False, "fc_4x4_r8", None),
    ],
)
def test_vgg16_tells_head_rates_and_average_pool(head, average_pool, expected, crf, tmp_path):
    (tmp_path / "x.caffemodel").write_bytes(old_vgg(*head, average_pool=average_pool))
    assert weights.describe(tmp_path / "x.caffemodel") == {
        **{"backbone": "vgg16", "head": expected, "num_classes": 21, "preprocessing": "caffe"},
        **{"average_pool": average_pool, "output_stride": 8, "scales": (1.0,)},
    }
    found = weights.examine(tmp_path / "x.caffemodel").crf
    names = ("bilateral_weight", "bilateral_spatial_std", "bilateral_color_std", "spatial_weight", "spatial_std")
    assert crf == (tuple(found[name] for name in names) if found else None)


@pytest.mark.slow
def test_large_fov_of_2015_is_computed_with_its_average_pool(tmp_path):
    network = randomise(pytorch_networks.VGG16(rates=(12,)))
    layers = network.caffe_layers()
    with torch.no_grad():
        x = pytorch_networks.preprocess(torch.from_numpy(IMAGES))
        for stage, widths in enumerate(STAGES, start=1):
            for i in range(1, len(widths) + 1):
                x = F.relu(layers[f"conv{stage}_{i}"](x))
            x = F.max_pool2d(x, 3, stride=2 if stage <= 3 else 1, padding=1)
        x = F.avg_pool2d(x, 3, stride=1, padding=1)  # Zeros of the padding count, as in Caffe.
        expected = layers["fc8"](F.relu(layers["fc7"](F.relu(layers["fc6"](x)))))
    (tmp_path / "x.caffemodel").write_bytes(old_vgg(*LARGE_FOV, average_pool=True, arrays=arrays_of(network)))
    model = DeepLab(**weights.describe(tmp_path / "x.caffemodel"))
    report = weights.load(model, tmp_path / "x.caffemodel")
    assert not report.left and not report.initialised
    assert_close(model(IMAGES), expected)
    without = DeepLab("vgg16", "large_fov", 21, scales=(1.0,))
    with pytest.raises(UserError, match="build the model with average_pool=True"):
        weights.load(without, tmp_path / "x.caffemodel")


@pytest.mark.slow
def test_conversion_needs_no_flag(tmp_path):
    """The run has the network, the classes and the CRF of the release."""
    network = randomise(pytorch_networks.VGG16(rates=(12,)))
    written = old_vgg(*LARGE_FOV, average_pool=True, arrays=arrays_of(network))
    (tmp_path / "x.caffemodel").write_bytes(written)
    result = run_command("tools/convert_weights.py", "x.caffemodel", "--model_dir=released", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    segmenter = Segmenter.load(tmp_path / "released", crf=True)
    assert (segmenter.model.head, segmenter.model.average_pool, segmenter.info.name) == ("large_fov", True, "voc2012")
    assert (segmenter.crf.bilateral_spatial_std, segmenter.crf.normalization) == (121, "after")


@pytest.mark.parametrize(
    "head, options, match",
    [
        (FC_4X4, {"pool_size": 2}, "the DeepLab of 2x2 pools"),
        ((*LARGE_FOV, ("pool1_ms_voc12", (21, 1, 1, 1), 1)), {}, "DeepLab-MSc"),
        (aspp(3, 6, 9, 12), {}, r"no head here is made of fc6_1 \(rate 3\)"),
        (LARGE_FOV, {"conv5_rate": 4}, r"conv5 has the rates \[4\], expected 2"),
    ],
)
def test_other_networks_of_the_release_are_refused_by_name(head, options, match, tmp_path):
    (tmp_path / "x.caffemodel").write_bytes(old_vgg(*head, average_pool=False, **options))
    with pytest.raises(UserError, match=match) as caught:
        weights.describe(tmp_path / "x.caffemodel")
    assert "\n" not in str(caught.value)


def resnet_layers(model: DeepLab, rates: dict) -> bytes:
    """The new format, with strides and rates: conv4 of rate 2, conv5 of rate 4."""
    written = b""
    for name, kind, arrays in tiny_layers(model):
        rate = {"res4": 2, "res5": 4}.get(name[:4], 1) if name.endswith("2b") else rates.get(name[-2:], 1)
        extra = convolution(2 if name.startswith("res3a_branch2a") else 1, rate) if kind == "Convolution" else b""
        written += new_layer(name.replace("coco", "voc12"), kind, *arrays, extra=extra)
    return written


def test_heads_of_equal_shapes_differ_in_their_rates(tmp_path):
    theirs = randomise(DeepLab("resnet_tiny", "aspp_s", 21, scales=(1.0,)))
    (tmp_path / "x.caffemodel").write_bytes(resnet_layers(theirs, {"c0": 2, "c1": 4, "c2": 8, "c3": 12}))
    assert weights.describe(tmp_path / "x.caffemodel") == {
        **{"backbone": "resnet_tiny", "head": "aspp_s", "num_classes": 21, "preprocessing": "caffe"},
        **{"block_style": "caffe", "output_stride": 8, "scales": (1.0,)},
    }
    other = DeepLab("resnet_tiny", "aspp_l", 21)
    with pytest.raises(UserError, match="build the model with head='aspp_s' .it has head='aspp_l'"):
        weights.load(other, tmp_path / "x.caffemodel")
    report = weights.load(other, tmp_path / "x.caffemodel", overrule=["head"])
    assert "its head='aspp_s' is overruled by 'aspp_l'" in str(report)
    model = DeepLab(**weights.describe(tmp_path / "x.caffemodel"))
    weights.load(model, tmp_path / "x.caffemodel")
    # The same weights but for the batch norm's factor, a rounding of 2^-24; twenty layers.
    np.testing.assert_allclose(model(IMAGES), theirs(IMAGES), atol=1e-5 * np.abs(theirs(IMAGES)).max())


def test_strides_in_the_3x3_are_seen(tmp_path):
    theirs = DeepLab("resnet_tiny", "linear", 21, scales=(1.0,), block_style="pytorch")
    written = b""
    for name, kind, arrays in tiny_layers(theirs):
        extra = convolution(2 if name.startswith("res3a_branch2b") else 1) if kind == "Convolution" else b""
        written += new_layer(name, kind, *arrays, extra=extra)
    (tmp_path / "x.caffemodel").write_bytes(written)
    assert weights.describe(tmp_path / "x.caffemodel")["block_style"] == "pytorch"


def test_the_init_model_has_one_classifier_of_91_classes(tmp_path):
    """It was trained on COCO; the ASPP of VOC starts fresh, as under the authors' new names."""
    theirs = randomise(DeepLab("resnet_tiny", "linear", 91, scales=(1.0,)))
    source = caffemodel(tmp_path / "init.caffemodel", tiny_layers(theirs))
    assert {key: weights.describe(source)[key] for key in ("head", "num_classes")} == {
        "head": "linear",
        "num_classes": 91,
    }
    for head, fresh in (("aspp_l", ["fc1_c0", "fc1_c1", "fc1_c2", "fc1_c3"]), ("large_fov", ["fc1"])):
        report = weights.load(DeepLab("resnet_tiny", head, 21), source)
        assert list(report.initialised) == fresh


def test_branches_of_three_scales_tell_the_scales(tmp_path):
    layers = tiny_layers(randomise(DeepLab("resnet_tiny", "aspp_l", 21)))
    source = caffemodel(tmp_path / "x.caffemodel", layers, ("", "_res075", "_res05"))
    assert weights.describe(source)["scales"] == (0.5, 0.75, 1.0)
    with_own = [*layers, ("fc1_voc12_res075_c2", "Convolution", [np.ones((21, 256, 3, 3)), np.ones(21)])]
    report = weights.load(DeepLab("resnet_tiny", "aspp_l", 21), caffemodel(tmp_path / "y.caffemodel", with_own))
    assert "1 of them, such as fc1_voc12_res075_c2, have weights of their own" in str(report)


def test_a_layer_twice(tmp_path):
    layers = tiny_layers(DeepLab("resnet_tiny", "linear", 21))
    twice = [*layers, ("fc1_other", "Convolution", [np.ones((21, 256, 1, 1)), np.ones(21)])]
    with pytest.raises(UserError, match="holds layer fc1 twice"):
        weights.describe(caffemodel(tmp_path / "x.caffemodel", twice))
