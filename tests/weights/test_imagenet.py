"""keras.applications' networks with random weights: equal features on photographs, dense and sparse."""

import keras
import numpy as np
import pytest

from deeplab_tf import DeepLab, weights
from deeplab_tf.errors import UserError
from tests.helpers import assert_same_scores, randomise


@pytest.fixture(scope="module")
def resnet():
    """Their ResNet-101 without its classifier."""
    application = keras.applications.ResNet101(weights=None, include_top=False, input_shape=(None, None, 3))
    randomise(application)
    return application


@pytest.fixture(scope="module")
def vgg():
    """Their VGG-16 with its dense layers."""
    application = keras.applications.VGG16(weights=None)
    randomise(application)
    for layer in ("fc1", "fc2"):  # Filters are known by their biases, so no two may be equal.
        application.get_layer(layer).bias.assign(np.linspace(-0.2, 0.2, 4096))
    return application


def features(model: DeepLab, layer: str, images: np.ndarray) -> np.ndarray:
    network = keras.Model(model.network.inputs, model.network.get_layer(layer).output)
    return keras.ops.convert_to_numpy(network(model.preprocess(images)))


@pytest.mark.slow
def test_resnet101_has_their_features(resnet, photographs, tmp_path, monkeypatch):
    theirs = resnet(keras.applications.resnet.preprocess_input(photographs.astype("float32"))).numpy()
    resnet.save_weights(tmp_path / "x.weights.h5")
    monkeypatch.setattr(keras.applications, "ResNet101", lambda weights, include_top: resnet)
    for source, output_stride in (("imagenet", 32), (tmp_path / "x.weights.h5", 8)):
        model = DeepLab("resnet101", "linear", 3, output_stride, scales=(1.0,), preprocessing="keras")
        report = weights.load(model, source)
        assert list(report.initialised) == ["fc1"] and not report.left and report.preprocessing == "keras"
        every = 32 // output_stride
        ours = features(model, "res5c_relu", photographs)[:, ::every, ::every]
        assert_same_scores(ours, theirs)


@pytest.mark.slow
def test_vgg16_has_their_features(vgg, photographs, monkeypatch):
    """With pools of 3x3, the paper's, in their network."""
    x = keras.Input((None, None, 3))
    y = x
    for layer in vgg.layers[1:]:
        if layer.name.endswith("pool"):
            y = keras.layers.MaxPooling2D(3, strides=2, padding="same")(y)
        elif layer.name.startswith("block"):
            y = layer(y)
    theirs = keras.Model(x, y)(keras.applications.vgg16.preprocess_input(photographs.astype("float32"))).numpy()
    monkeypatch.setattr(keras.applications, "VGG16", lambda weights, include_top: vgg)
    model = DeepLab("vgg16", "large_fov", 3, 32, scales=(1.0,), preprocessing="keras")
    report = weights.load(model, "imagenet")
    assert list(report.initialised) == ["fc8"] and report.left == ("predictions",)
    ours = features(model, "pool5", photographs)
    assert_same_scores(ours, theirs)


@pytest.mark.slow
def test_vgg16_with_the_whole_kernel_has_the_dense_layers_scores(vgg, photographs, monkeypatch):
    """At output stride 32 the middle of fc_7x7's map sees what the dense layers see of pool5's 7x7."""
    monkeypatch.setattr(keras.applications, "VGG16", lambda weights, include_top: vgg)
    model = DeepLab("vgg16", "fc_7x7_r4", 3, 32, scales=(1.0,), preprocessing="keras")
    weights.load(model, "imagenet")
    pool5 = np.random.default_rng(0).uniform(0, 1, (1, 7, 7, 512)).astype("float32")
    theirs = vgg.get_layer("fc2")(vgg.get_layer("fc1")(pool5.reshape(1, -1))).numpy()
    ours = model.network.get_layer("fc7")(model.network.get_layer("fc6")(pool5)).numpy()[:, 3, 3]
    assert_same_scores(ours, theirs)


@pytest.mark.parametrize("head, taps", [("fc_4x4_r4", [0, 2, 4, 6]), ("large_fov", [0, 3, 6]), ("aspp_l", [0, 3, 6])])
@pytest.mark.slow
def test_fc6_and_fc7_are_subsampled(head, taps, vgg, monkeypatch):
    monkeypatch.setattr(keras.applications, "VGG16", lambda weights, include_top: vgg)
    model = DeepLab("vgg16", head, 3, preprocessing="keras")
    weights.load(model, "imagenet")
    theirs = vgg.get_layer("fc1").kernel.numpy().reshape(7, 7, 512, 4096)[np.ix_(taps, taps)]
    fc2 = vgg.get_layer("fc2").kernel.numpy()
    fc1_bias, fc2_bias = vgg.get_layer("fc1").bias.numpy(), vgg.get_layer("fc2").bias.numpy()
    branches = [""] if head != "aspp_l" else ["_1", "_2", "_3", "_4"]
    subsets = []
    for branch in branches:
        fc6, fc7 = model.network.get_layer(f"fc6{branch}"), model.network.get_layer(f"fc7{branch}")
        of_fc6 = [int(np.flatnonzero(fc1_bias == value)[0]) for value in fc6.bias.numpy()]
        of_fc7 = [int(np.flatnonzero(fc2_bias == value)[0]) for value in fc7.bias.numpy()]
        assert len(set(of_fc6)) == fc6.filters == len(set(of_fc7))
        np.testing.assert_array_equal(fc6.kernel, theirs[..., of_fc6])
        np.testing.assert_array_equal(fc7.kernel[0, 0], fc2[np.ix_(of_fc6, of_fc7)])
        subsets.append(tuple(of_fc6))
    assert len(set(subsets)) == len(branches)
    if head == "large_fov":
        kernels = []
        for seed in (0, 1):
            weights.load(model, "imagenet", seed=seed)
            kernels.append(model.network.get_layer("fc6").kernel.numpy())
        np.testing.assert_array_equal(kernels[0], theirs[..., subsets[0]])
        assert (kernels[0] != kernels[1]).any()


@pytest.mark.slow
def test_files_of_keras_2(tmp_path):
    """As keras.applications' released .h5 files are: a group for each layer, with the names of its arrays in order."""
    import h5py

    application = keras.applications.ResNet50(weights=None, include_top=False)
    randomise(application)
    with h5py.File(tmp_path / "resnet50_notop.h5", "w") as file:
        for layer in application.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                group.create_dataset(name, data=weight.numpy())
    model = DeepLab("resnet50", "linear", 3, preprocessing="keras")
    report = weights.load(model, tmp_path / "resnet50_notop.h5")
    assert list(report.initialised) == ["fc1"] and not report.left
    kernel = application.get_layer("conv4_block6_2_conv").kernel
    np.testing.assert_array_equal(model.network.get_layer("res4f_branch2b").kernel, kernel)


def test_there_is_none_for_resnet_tiny(tiny):
    with pytest.raises(UserError, match="no such weights for resnet_tiny; only for vgg16, resnet50, resnet101"):
        weights.load(tiny, "imagenet")


def test_a_failed_download_is_one_line(monkeypatch, unchanged):
    def offline(**_):
        raise Exception("URL fetch failure on https://...: None -- no route to host\nmore")

    monkeypatch.setattr(keras.applications, "ResNet50", offline)
    model = DeepLab("resnet50", "linear", 3, preprocessing="keras")
    check = unchanged(model)
    with pytest.raises(UserError, match="could not provide ResNet50's weights .*no route") as caught:
        weights.load(model, "imagenet")
    assert "\n" not in str(caught.value)
    check()
