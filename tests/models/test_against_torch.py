"""The networks written down in PyTorch, from the paper and the Caffe definitions: same weights, same logits."""

import numpy as np
import pytest
import torch

from benchmarks import pytorch_networks
from deeplab_tf import DeepLab
from tests.helpers import assert_same_scores, randomise

pytestmark = pytest.mark.usefixtures("whole_network")


@pytest.mark.parametrize(
    "backbone, network", [("vgg16", pytorch_networks.VGG16), ("resnet101", pytorch_networks.ResNet)]
)
@pytest.mark.slow
def test_logits_equal_pytorchs(backbone, network):
    model = randomise(DeepLab(backbone, "aspp_l", num_classes=21))
    theirs = pytorch_networks.take_weights(network(), model)
    images = np.random.default_rng(0).uniform(0, 255, (1, 129, 161, 3)).astype("float32")
    scales = (1, 0.75, 0.5)
    with torch.no_grad():
        maps = pytorch_networks.score_maps(theirs, pytorch_networks.preprocess(torch.from_numpy(images)), scales)
    ours = model.score_maps(images)
    for name, expected in zip([*(f"scale_{scale}" for scale in scales), "fused"], maps, strict=True):
        expected = expected.permute(0, 2, 3, 1).numpy()
        assert np.abs(expected).max() > 0.1
        assert_same_scores(ours[name], expected, name)
