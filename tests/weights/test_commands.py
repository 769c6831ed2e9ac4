"""tools/convert_weights.py and the flags of train.py, as a user runs them."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab_tf import DeepLab, weights
from deeplab_tf.inference import Segmenter
from deeplab_tf.serving import export_saved_model
from tests.helpers import REPOSITORY, randomise, run_command

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("whole_network")]
NETWORK = ("--backbone=resnet_tiny", "--head=aspp_l", "--scales=1")


@pytest.fixture
def voc_network(tmp_path) -> DeepLab:
    """A network for VOC's 21 classes, in x.weights.h5, with strides and colours that are not the usual ones."""
    model = DeepLab("resnet_tiny", "aspp_l", 21, scales=(1.0,), block_style="garden", preprocessing="torch")
    randomise(model)
    weights.save(model, tmp_path / "x.weights.h5")
    return model


def test_weights_become_a_run_that_predicts(voc_network, refused, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(image).save(tmp_path / "photos/1.png")
    flags = ("x.weights.h5", "--model_dir=released")
    result = run_command("tools/convert_weights.py", *flags, "--output=y.weights.h5", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "taken        56 layers" in result.stdout and "preprocessing  torch" in result.stdout

    result = run_command("predict.py", "--model_dir=released", "--input=photos", "--output_dir=out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    expected = Segmenter(voc_network)(image).labels
    np.testing.assert_array_equal(np.asarray(Image.open(next((tmp_path / "out/masks").iterdir()))), expected)

    exported = export_saved_model(Segmenter.load(tmp_path / "released"), tmp_path / "exported")
    served = tf.saved_model.load(str(exported)).signatures["serving_default"](tf.constant(image[None]))
    np.testing.assert_array_equal(served["labels"][0], expected)

    other = DeepLab(**weights.describe(tmp_path / "y.weights.h5"))
    weights.load(other, tmp_path / "y.weights.h5")
    np.testing.assert_array_equal(other(image[None]), voc_network(image[None]))

    assert "holds a run already" in refused("tools/convert_weights.py", *flags, cwd=tmp_path)


def test_a_weight_file_keeps_the_classifier_and_a_run_needs_its_classes(voc_network, refused, tmp_path):
    result = run_command(
        "tools/convert_weights.py", "x.weights.h5", "--dataset=shapes", "--output=y.weights.h5", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert weights.describe(tmp_path / "y.weights.h5") == weights.describe(tmp_path / "x.weights.h5")
    flags = ("x.weights.h5", "--dataset=shapes", "--model_dir=released")
    assert "a classifier for 21 classes, --dataset=shapes has" in refused(
        "tools/convert_weights.py", *flags, cwd=tmp_path
    )
    assert not (tmp_path / "released").exists()


def test_training_starts_from_weights_with_frozen_layers(voc_network, data_dir, shapes_dir, tmp_path):
    result = run_command(
        "train.py",
        *(
            f"--flagfile={REPOSITORY / 'demo.flags'}",
            *NETWORK,
            f"--data_dir={data_dir}",
            "--model_dir=run",
            "--export_dir=",
        ),
        *("--initial_weights=x.weights.h5", "--freeze=backbone", "--batch_norm=frozen", "--nocrf", "--overlays=0"),
        *("--max_steps=2", "--eval_every=0", "--eval_limit=1", "--batch_size=2", "--crop_size=65"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert "21 classes in the source" in result.stdout and "frozen       52 layers" in result.stdout
    trained = Segmenter.load(tmp_path / "run").model
    assert (trained.preprocessing, trained.block_style) == ("torch", "garden")
    for layer in voc_network.network.layers:
        if layer.weights and not layer.name.startswith("fc1"):
            for before, after in zip(
                layer.get_weights(), trained.network.get_layer(layer.name).get_weights(), strict=True
            ):
                np.testing.assert_array_equal(before, after)
