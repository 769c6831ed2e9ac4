"""Runs, weight files, exports and prepared data of commit a40b266 go on working; README.md tells what they are."""

import json
import pathlib
import shutil
import tarfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf import DeepLab, Segmenter, data, weights
from deeplab_tf.evaluation import evaluate
from tests.helpers import run_command

pytestmark = pytest.mark.usefixtures("whole_network")

HERE = pathlib.Path(__file__).parent
# The same network, weights and image: the scores (up to 4) differ by the order of float32 sums only.
SCORES = {"atol": 1e-4, "rtol": 0}


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory) -> pathlib.Path:
    """The files, to be read only."""
    folder = tmp_path_factory.mktemp("a40b266")
    with tarfile.open(HERE / "files.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def workplace(unpacked, tmp_path) -> pathlib.Path:
    """A copy of the files in which commands may write; config.flags names `data` and the first weights from here."""
    for name in ("data", "run"):
        shutil.copytree(unpacked / name, tmp_path / name)
    shutil.copy(unpacked / "start.weights.h5", tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def expected() -> dict[str, np.ndarray]:
    with np.load(HERE / "expected.npz") as file:
        return dict(file)


def assert_same_labels(found: np.ndarray, expected: np.ndarray) -> None:
    """All but those at the boundary of two classes whose probabilities agree in six digits."""
    assert found.dtype == np.uint8 and found.shape == expected.shape
    assert (found != expected).mean() <= 1e-3


def test_prepared_data(unpacked, expected):
    directory = data.prepared_directory("shapes", unpacked / "data")
    info = data.info("shapes", unpacked / "data")
    assert info.splits == {"train": 4, "val": 3} and info.class_names[7] == "table" and info.ignore_label == 255
    first, *_ = data.evaluation_pipeline(directory, "val").as_numpy_iterator()
    # JPEG leaves the interpolation of colours to the decoder; another picture would differ by tens.
    assert np.abs(first["image"][:97, :120].astype(int) - expected["image"]).mean() < 3
    np.testing.assert_array_equal(first["label"][:97, :120], expected["mask"])
    batch = next(iter(data.training_pipeline(directory, "train", batch_size=2, crop_size=65)))
    assert batch["image"].shape == (2, 65, 65, 3) and batch["label"].shape == (2, 65, 65)


def test_prepared_folder_of_images(unpacked):
    info = data.info("image_folder/pets", unpacked / "data")
    assert info.class_names == ("background", "cat", "dog") and info.splits == {"train": 2, "val": 1}
    directory = data.prepare("image_folder/pets", unpacked / "data")
    assert {example["image"].shape for example in data.evaluation_pipeline(directory, "train").as_numpy_iterator()} == {
        (70, 90, 3)
    }


@pytest.mark.parametrize("checkpoint", ["latest", "best"])
def test_a_run_is_loaded(checkpoint, unpacked, expected):
    segmenter = Segmenter.load(unpacked / "run", checkpoint=checkpoint)
    image = expected["image"]
    np.testing.assert_allclose(segmenter.model(image[np.newaxis]), expected["scores"], **SCORES)
    result = segmenter(image)
    np.testing.assert_allclose(result.probabilities[::8, ::8], expected["probabilities_every_8"], atol=1e-4)
    assert_same_labels(result.labels, expected["labels"])
    assert segmenter.info.class_names[3] == "star"


def test_the_parameters_of_its_crf(unpacked, expected):
    segmenter = Segmenter.load(unpacked / "run", crf=True)
    parameters = json.loads((unpacked / "run/crf.json").read_text())
    assert {name: getattr(segmenter.crf, name) for name in parameters} == parameters
    assert_same_labels(segmenter(expected["image"]).labels, expected["crf_labels"])


@pytest.mark.parametrize("file", ["caffe.weights.h5", "caffe.keras", "run/checkpoints", "run"])
def test_weights_of_the_run(file, unpacked, expected):
    model = DeepLab("resnet_tiny", "linear", 8, scales=(1.0,))
    report = weights.load(model, unpacked / file)
    assert not report.left and not report.initialised
    np.testing.assert_allclose(model(expected["image"][np.newaxis]), expected["scores"], **SCORES)


@pytest.mark.parametrize("file", ["torchvision.weights.h5", "torchvision.keras"])
def test_weights_of_another_stride_of_the_blocks(file, unpacked, expected):
    model = DeepLab("resnet_tiny", "linear", 8, scales=(1.0,), preprocessing="keras", block_style="pytorch")
    weights.load(model, unpacked / file)
    np.testing.assert_allclose(model(expected["image"][np.newaxis]), expected["torchvision_scores"], **SCORES)


@pytest.mark.parametrize("file, scores", [("caffe.keras", "scores"), ("torchvision.keras", "torchvision_scores")])
def test_keras_files(file, scores, unpacked, expected):
    model = keras.saving.load_model(unpacked / file)
    np.testing.assert_allclose(model(expected["image"][np.newaxis]), expected[scores], **SCORES)


@pytest.mark.slow
def test_an_export_is_served(unpacked, expected):
    """Plain TensorFlow reads it: nothing of it is this package's."""
    served = tf.saved_model.load(str(unpacked / "export/1")).signatures["serving_default"]
    found = served(images=tf.constant(expected["image"][np.newaxis]))
    assert_same_labels(found["labels"][0].numpy(), expected["crf_labels"])


@pytest.mark.slow
def test_training_continues(workplace, expected):
    """To the weights that the old code had reached: data, momentum and schedule go on where they were."""
    before = trained_weights(workplace / "run")
    result = run_command("train.py", "--flagfile=run/config.flags", "--model_dir=run", cwd=workplace)
    assert result.returncode == 0, result.stderr
    after = trained_weights(workplace / "run")
    steps = {
        name.removeprefix("step_4.").replace(".", "/"): value for name, value in expected.items() if "step" in name
    }
    assert len(steps) == 14
    # Gradients summed in another order; a tenth of the last two updates, or momentum, lost would be ten times as much.
    moved = max(np.abs(value - before[name]).max() for name, value in steps.items())
    for name, value in steps.items():
        np.testing.assert_allclose(after[name], value, atol=0.01 * moved, err_msg=name)


def trained_weights(model_dir: pathlib.Path) -> dict[str, np.ndarray]:
    model = Segmenter.load(model_dir).model
    return {weight.path.removeprefix("deeplab/"): weight.numpy() for weight in model.trainable_weights}


def as_it_was_decoded(directory: str, split: str):
    """Examples with the pictures that the old code saw: TensorFlow's fast JPEG decoder, not Pillow's."""
    files = sorted(str(path) for path in pathlib.Path(directory).glob(f"*-{split}.tfrecord-*"))
    encoded = {}
    for record in tf.data.TFRecordDataset(files).as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        encoded[features["image/filename"].bytes_list.value[0]] = features["image/encoded"].bytes_list.value[0]
    for example in data.evaluation_pipeline(directory, split).as_numpy_iterator():
        image = tf.io.decode_image(encoded[example["filename"]], channels=3, expand_animations=False)
        yield example | {"image": image.numpy()}


def test_its_evaluation_is_repeated(unpacked):
    segmenter = Segmenter.load(unpacked / "run", crf=True)
    directory = data.prepared_directory("shapes", unpacked / "data")
    evaluation = evaluate(segmenter, as_it_was_decoded(directory, "val"))
    before = json.loads((unpacked / "run/evaluation.json").read_text())
    for stage in ("network", "crf"):
        old, new = np.array(before[stage]["confusion"]), getattr(evaluation, stage).counts
        assert np.abs(new - old).sum() <= 1e-3 * old.sum()


@pytest.mark.slow
def test_a_run_is_evaluated(workplace):
    before = json.loads((workplace / "run/evaluation.json").read_text())
    result = run_command("evaluate.py", "--model_dir=run", "--crf", cwd=workplace)
    assert result.returncode == 0, result.stderr
    after = json.loads((workplace / "run/evaluation_crf.json").read_text())
    assert after["images"] == 3 and after["made_with"]["checkpoint"] == "ckpt-2"
    for stage in ("network", "crf"):
        old, new = np.array(before[stage]["confusion"]), np.array(after[stage]["confusion"])
        # The same pixels; their labels differ with the JPEG decoder, which the test before takes out of the comparison.
        np.testing.assert_array_equal(new.sum(axis=1), old.sum(axis=1))
