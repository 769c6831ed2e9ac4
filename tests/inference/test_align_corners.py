"""`align_corners=False`: deeplab-pytorch's inference, against a PyTorch network that computes in its way."""

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
import torch
import torch.nn.functional as F
from ai_edge_litert.interpreter import Interpreter

from benchmarks import pytorch_networks
from deeplab_tf import DeepLab, Segmenter, weights
from deeplab_tf.data import info
from deeplab_tf.errors import UserError
from deeplab_tf.models.folded import FoldedNetwork
from deeplab_tf.serving import export_litert, export_onnx, export_saved_model
from tests.helpers import photograph, randomise

pytestmark = pytest.mark.usefixtures("whole_network")

CLASSES = 8


class TheirNetwork(pytorch_networks.ResNet):
    """deeplab-pytorch's ResNet for one scale: the max pool rounds the size of its result up."""

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.layer1(x)), 3, 2, 1, ceil_mode=True)
        for stage in range(2, 6):
            x = getattr(self, f"layer{stage}")(x)
        return sum(branch(x) for branch in self.aspp.values())


def their_probabilities(network, image: np.ndarray, scales=(0.5, 0.75)) -> np.ndarray:
    """MSC: the image and its scaled copies, maximum at the size of the first map, resized to the image; softmax."""

    def resized(maps, size):
        return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)

    with torch.no_grad():
        x = pytorch_networks.preprocess(torch.from_numpy(image[np.newaxis]))
        scores = network(x)
        copies = [network(resized(x, [int(side * scale) for side in x.shape[2:]])) for scale in scales]
        fused = torch.stack([scores, *(resized(copy, scores.shape[2:]) for copy in copies)]).amax(0)
        return F.softmax(resized(fused, x.shape[2:]), dim=1)[0].permute(1, 2, 0).numpy()


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """The same weights in PyTorch and, read from its file, here."""
    theirs = randomise(TheirNetwork("resnet_tiny", CLASSES))
    path = tmp_path_factory.mktemp("weights") / "x.pth"
    torch.save({f"base.{name}": tensor for name, tensor in theirs.state_dict().items()}, path)
    model = DeepLab(**weights.describe(path))
    report = weights.load(model, path)
    assert "--eval_align_corners=false" in str(report)
    return theirs, model


@pytest.fixture(scope="module")
def segmenter(networks):
    return Segmenter(networks[1], info=info("shapes"), align_corners=False)


@pytest.fixture(scope="module")
def of_the_paper(networks):
    return Segmenter(networks[1])


# Every remainder by 8, of the image and of its scaled copies.
@pytest.mark.parametrize("size", [(97, 88), (90, 99), (101, 92), (95, 103), (94, 129)])
@pytest.mark.slow
def test_probabilities_are_those_of_deeplab_pytorch(networks, segmenter, of_the_paper, size):
    image = photograph(*size)
    expected = their_probabilities(networks[0], image)
    result = segmenter(image)
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-4)
    top_two = np.sort(expected, axis=-1)[..., -2:]
    clear = top_two[..., 1] - top_two[..., 0] > 1e-3
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(result.labels[clear], expected.argmax(-1)[clear])
    assert np.abs(of_the_paper(image).probabilities - expected).max() > 0.01  # the paper's way is another


def test_the_mirror_averages_scores(networks):
    image = photograph(97, 84)
    model = networks[1]
    found = Segmenter(model, align_corners=False, mirror=True, scales=(1.0,))(image).probabilities
    scores = [
        torch.log(torch.from_numpy(their_probabilities(networks[0], view, ()))).numpy()
        for view in (image, np.ascontiguousarray(image[:, ::-1]))
    ]
    expected = tf.nn.softmax((scores[0] + scores[1][:, ::-1]) / 2).numpy()  # of log-probabilities as of scores
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.slow
def test_an_export_and_a_batch_do_the_same(segmenter, tmp_path):
    images = np.stack([photograph(70, 90, seed) for seed in range(2)])
    expected = [segmenter(image) for image in images]
    for alone, together in zip(expected, segmenter.batch_without_crf(images), strict=True):
        np.testing.assert_allclose(together.probabilities, alone.probabilities, atol=1e-5)
    exported = export_saved_model(segmenter, tmp_path)
    served = tf.saved_model.load(str(exported)).signatures["serving_default"](tf.constant(images[:1]))
    np.testing.assert_allclose(served["probabilities"][0], expected[0].probabilities, atol=1e-4)
    np.testing.assert_array_equal(served["labels"][0], expected[0].labels)


@pytest.mark.slow
def test_other_forms_do_the_same(networks, tmp_path):
    """At one scale, in which the image and the map are resized: the converters take long for a larger graph."""
    segmenter = Segmenter(networks[1], info=info("shapes"), align_corners=False, scales=(0.75,))
    image = photograph(70, 90)
    expected = segmenter(image).probabilities
    session = onnxruntime.InferenceSession(export_onnx(segmenter, tmp_path / "x.onnx", outputs=["probabilities"]))
    np.testing.assert_allclose(session.run(None, {"images": image[None]})[0][0], expected, atol=1e-3)
    path = export_litert(segmenter, tmp_path / "x.tflite", image_size=(70, 90), outputs=["probabilities"])
    found = Interpreter(str(path)).get_signature_runner()(images=image[None])
    np.testing.assert_allclose(found["probabilities"][0], expected, atol=1e-3)


@pytest.mark.parametrize("backbone", ["resnet_tiny", pytest.param("efficientnet_lite0", marks=pytest.mark.slow)])
def test_on_the_grid_of_the_method_the_network_of_any_size_is_the_same(backbone):
    model = randomise(DeepLab(backbone, "linear", 3, scales=(1.0,)))
    image = model.preprocess(photograph(57, 65)[np.newaxis])
    network = FoldedNetwork(model, any_size=True)
    expected = FoldedNetwork(model)(image, network.weights())
    np.testing.assert_allclose(network(image, network.weights()), expected, atol=1e-5 * np.abs(expected).max())


def test_what_needs_the_grid_is_refused(networks):
    for options, flag in (({"pad_to": 513}, "--pad_to=513"), ({"tile_size": 513}, "--tile_size=513")):
        with pytest.raises(UserError, match=f"{flag}: .*--eval_align_corners=false"):
            Segmenter(networks[1], align_corners=False, **options)


def test_it_is_written_down(segmenter):
    assert segmenter.settings["align_corners"] is False and "corners not aligned" in repr(segmenter)
