"""Our own files: everything back, or all but a classifier for other classes; and nothing when they are broken."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf import DeepLab, weights
from deeplab_tf.classes import DatasetInfo
from deeplab_tf.errors import UserError
from deeplab_tf.inference import Segmenter
from deeplab_tf.training import Recipe, write_config
from deeplab_tf.training.assembly import initial_model
from deeplab_tf.training.config import check_same_run

IMAGE = np.random.default_rng(0).integers(0, 256, (1, 65, 73, 3), dtype=np.uint8)
THEIRS = {"scales": (1.0,), "block_style": "pytorch", "preprocessing": "keras"}  # of the fixture `tiny`
FORMATS = ("weights.h5", "keras", "run", "folder", "copied", "prefix")


def written(model: DeepLab, folder, form: str) -> str:
    """Writes a model in one of `FORMATS`, the checkpoints with the optimizer that belongs to training."""
    if form == "weights.h5":
        weights.save(model, folder / "x.weights.h5")
        return str(folder / "x.weights.h5")
    if form == "keras":
        model.save(folder / "x.keras")
        return str(folder / "x.keras")
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(model.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, step=tf.Variable(7, dtype=tf.int64))
    prefix = tf.train.CheckpointManager(checkpoint, str(folder / "run" / "checkpoints"), 3).save(7)
    if form == "copied":  # As best/ of a run, and as downloaded: without the list of checkpoints beside them.
        (folder / "run" / "checkpoints" / "checkpoint").unlink()
    return {"run": str(folder / "run"), "prefix": prefix}.get(form, str(folder / "run" / "checkpoints"))


@pytest.mark.parametrize("form", FORMATS)
def test_everything_comes_back(form, tiny, tmp_path):
    other = DeepLab("resnet_tiny", "aspp_l", 5, **THEIRS)
    report = weights.load(other, written(tiny, tmp_path, form))
    assert not report.left and not report.initialised and report.preprocessing == "keras"
    assert set(report.taken) == {layer.name for layer in tiny.network.layers if layer.weights}
    for ours, theirs in zip(other.get_weights(), tiny.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(other(IMAGE), tiny(IMAGE))


@pytest.mark.parametrize("form", FORMATS)
def test_another_number_of_classes_leaves_the_classifier_fresh(form, tiny, tmp_path):
    other = DeepLab("resnet_tiny", "aspp_l", 12, **THEIRS)
    before = {name: other.network.get_layer(name).get_weights() for name in other.classifier_layers}
    report = weights.load(other, written(tiny, tmp_path, form))
    assert list(report.initialised) == other.classifier_layers
    assert "5 classes in the source, 12 here" in str(report)
    for name, arrays in before.items():
        for old, new in zip(arrays, other.network.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
    for layer in other.network.layers:
        if layer.weights and layer.name not in before:
            for old, new in zip(tiny.network.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True):
                np.testing.assert_array_equal(old, new)


def test_a_checkpoint_in_the_folder_of_a_run_keeps_its_strides(tiny, tmp_path):
    run = written(tiny, tmp_path, "run")
    info = DatasetInfo("x", tuple("abcde"), np.zeros((5, 3), np.uint8))
    Segmenter(tiny, info=info).save_description(run)
    other = DeepLab("resnet_tiny", "aspp_l", 5, **THEIRS)
    weights.load(other, run)
    np.testing.assert_array_equal(other(IMAGE), tiny(IMAGE))


def test_a_description_that_tells_nonsense(tiny, tmp_path, unchanged):
    run = written(tiny, tmp_path, "run")
    (tmp_path / "run/segmenter.json").write_text('{"model": {"backbone": "resnet_tiny", "block_style": "sideways"}}')
    other = DeepLab("resnet_tiny", "aspp_l", 5, **THEIRS)
    check = unchanged(other)
    with pytest.raises(UserError, match="block_style='sideways'"):
        weights.load(other, run)
    check()


def test_another_head_is_left_fresh(tiny, tmp_path):
    other = DeepLab("resnet_tiny", "large_fov", 5, **THEIRS)
    report = weights.load(other, written(tiny, tmp_path, "weights.h5"))
    assert report.initialised == {"fc1": "not in the source"}
    assert report.left == ("fc1_c0", "fc1_c1", "fc1_c2", "fc1_c3")


@pytest.mark.parametrize("form", ["weights.h5", "keras", "run"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.95])
def test_truncated_files(form, keep, tiny, tmp_path, unchanged):
    source = written(tiny, tmp_path, form)
    files = [file for file in tmp_path.rglob("*") if file.suffix in (".h5", ".keras") or ".data-" in file.name]
    assert len(files) == 1
    content = files[0].read_bytes()
    files[0].write_bytes(content[: int(keep * len(content))])
    other = DeepLab("resnet_tiny", "aspp_l", 5, **THEIRS)
    check = unchanged(other)
    with pytest.raises(UserError, match="cannot be read") as caught:
        weights.load(other, source)
    assert "\n" not in str(caught.value) and source in str(caught.value)
    check()


def test_a_shape_that_does_not_fit(tiny, tmp_path, unchanged):
    source = written(tiny, tmp_path, "weights.h5")
    other = DeepLab("resnet50", "linear", 5)
    check = unchanged(other)
    with pytest.raises(UserError, match="build the model with backbone='resnet_tiny', .*block_style='pytorch'"):
        weights.load(other, source)
    check()


def test_another_backbone(tiny, tmp_path, unchanged):
    other = DeepLab("vgg16", "large_fov", 5)
    check = unchanged(other)
    with pytest.raises(UserError, match="build the model with backbone='resnet_tiny'"):
        weights.load(other, written(tiny, tmp_path, "weights.h5"))
    check()


def test_values_that_are_not_finite(tiny, tmp_path, unchanged):
    layer = tiny.network.get_layer("res5a_branch2c")
    layer.set_weights([np.full(layer.kernel.shape, np.nan)])
    other = DeepLab("resnet_tiny", "aspp_l", 5, **THEIRS)
    check = unchanged(other)
    with pytest.raises(UserError, match="layer res5a_branch2c: its kernel holds values that are not finite"):
        weights.load(other, written(tiny, tmp_path, "weights.h5"))
    check()


@pytest.mark.parametrize("name, match", [("x.onnx", "not known; expected imagenet, "), ("gone.pth", "no such file")])
def test_unknown_and_missing_files_list_what_is_known(name, match, tiny, tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"?")
    with pytest.raises(UserError, match=match) as caught:
        weights.load(tiny, tmp_path / name)
    assert all(kind in str(caught.value) for kind in ("imagenet", ".caffemodel", ".pth", ".weights.h5", "checkpoint"))


def test_an_empty_folder(tiny, tmp_path):
    with pytest.raises(UserError, match="folder without checkpoints"):
        weights.load(tiny, tmp_path)


def test_files_are_written_whole_or_not_at_all(tiny, tmp_path, monkeypatch):
    def full_disk(path):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(tiny, "save_weights", full_disk)
    with pytest.raises(UserError, match="x.weights.h5: cannot be written .No space left on device"):
        weights.save(tiny, tmp_path / "x.weights.h5")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="must end in .weights.h5"):
        weights.save(tiny, tmp_path / "x.h5")


@pytest.mark.slow
def test_the_average_pool_of_the_weights_is_overruled_by_a_recipe_that_says_so(tmp_path):
    pooled = DeepLab("vgg16", "large_fov", 3, scales=(1.0,), average_pool=True)
    path = tmp_path / "x.weights.h5"
    weights.save(pooled, path)
    for asked, expected in ((None, True), (True, True), (False, False)):
        recipe = Recipe(
            backbone="vgg16", head="large_fov", scales=(1.0,), initial_weights=str(path), average_pool=asked
        )
        model = initial_model(recipe, 3)[0]
        assert model.average_pool is expected
        np.testing.assert_array_equal(model.network.get_layer("fc6").bias, pooled.network.get_layer("fc6").bias)


def test_a_run_of_an_older_version_that_named_no_pool_goes_on(tmp_path):
    recipe = Recipe(backbone="resnet_tiny", head="linear")
    write_config(tmp_path, tmp_path, "shapes", recipe)
    config = tmp_path / "config.flags"
    config.write_text(config.read_text() + "--average_pool=false\n")
    check_same_run(tmp_path, recipe, "shapes")
    with pytest.raises(UserError, match="average_pool"):
        check_same_run(tmp_path, dataclasses.replace(recipe, average_pool=True), "shapes")
