"""The loop on one device: it learns, repeats bit for bit, accumulates micro-batches, writes what it measured."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels

from deeplab_tf import DeepLab, data
from deeplab_tf.data import catalogue
from deeplab_tf.errors import UserError
from deeplab_tf.inference import Segmenter
from deeplab_tf.training import Recipe, assembly, loop
from tests.helpers import randomise
from tests.training import toy
from tests.training.toy import CLASSES, trained

FROZEN = {"batch_norm": "frozen", "learning_rate": 1e-6}
without_network = functools.partial(trained, network=False)


@pytest.mark.slow
def test_runs_repeat_bit_for_bit_also_when_stopped_and_continued(tmp_path):
    reference, _ = trained(tmp_path / "reference")
    assert np.abs(reference).max() > 0.01
    _, stopped = trained(tmp_path / "stopped", stop_at=4)
    assert stopped is None
    continued, result = trained(tmp_path / "stopped")
    assert result.steps == 6
    np.testing.assert_array_equal(continued, reference)
    # The loop after which it was stopped is in TensorBoard too.
    events = (read_scalars(tmp_path / name / "train")["loss/total"] for name in ("reference", "stopped"))
    assert len(next(events)) == len(next(events)) == 4  # Of steps 1, 2, 4 and 6.


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "accumulation"), [("float32", 2), ("mixed_float16", 1)])
def test_the_norm_of_the_gradient_is_told_as_it_is_before_clipping(tmp_path, precision, accumulation):
    """One update without momentum and decay moves the weights by rate times gradient, clipped to half of its norm."""
    settings = FROZEN | {"max_steps": 1, "momentum": 0.0, "weight_decay": 0.0, "learning_rate": 1e-3}
    settings |= {"precision": precision, "accumulation_steps": accumulation, "loss_scale": 8.0}
    norms = []
    note = lambda step, scalars: norms.append(scalars["gradient_norm"])  # noqa: E731
    for name in ("whole", "half"):
        clip = norms[0] / 2 if norms else None
        moved, _ = trained(tmp_path / name, **settings, clip_norm=clip, on_loop=note)
        moved[-CLASSES:] /= 2  # the classifier's bias, which learns twice as fast
        # Weights of up to 1 are rounded by 2^-24 when they move; float16 rounds the gradient by 2^-12, layer by layer.
        tolerance = 2e-2 if precision == "mixed_float16" else 2e-3
        assert np.linalg.norm(moved) / 1e-3 == pytest.approx(clip or norms[0], rel=tolerance)
    assert norms[1] == pytest.approx(norms[0], rel=1e-5) and norms[0] > 0.1


@pytest.mark.slow
def test_micro_batches_equal_the_full_batch(tmp_path):
    """Although the ignored pixels are spread unevenly over them."""
    full, _ = trained(tmp_path / "full", **FROZEN)
    accumulated, _ = trained(tmp_path / "micro", accumulation_steps=2, **FROZEN)
    assert np.abs(full).max() > 1e-5
    # Sums in another order: 1e-4 of a gradient (helpers.assert_same_scores); rounding a weight below 1 six times costs
    # 2e-7 of moves of up to 7e-3. The rest is for a ReLU whose input is within rounding of 0.
    np.testing.assert_allclose(accumulated, full, atol=1e-3 * np.abs(full).max())


@pytest.mark.slow
def test_xla_computes_the_same_step(tmp_path):
    plain, _ = trained(tmp_path / "plain", **FROZEN)
    compiled, _ = trained(tmp_path / "compiled", xla=True, **FROZEN)
    assert not tf.config.optimizer.get_jit()  # Validation, whose images have many sizes, is not compiled.
    # As with micro-batches: fused operations sum in another order.
    np.testing.assert_allclose(compiled, plain, atol=1e-3 * np.abs(plain).max())


@pytest.mark.slow
def test_labels_stay_on_a_gpu(tmp_path, monkeypatch):
    """They are gathered and compared as int64; for uint8 and int32 TensorFlow would go back to the host."""
    seen = []
    for name in ("labels_on_grid", "position_weights"):
        of_labels = getattr(loop.loss, name)

        def spy(labels, *args, of_labels=of_labels):
            seen.append(labels.dtype)
            return of_labels(labels, *args)

        monkeypatch.setattr(loop.loss, name, spy)
    trained(tmp_path / "run", max_steps=1)
    assert set(seen) == {tf.int64} and len(seen) >= 2

    def on_gpus(op: str, attribute: str) -> set[int]:
        """Types for which there is a kernel whose operands are in the memory of a GPU."""
        registered = kernels.get_registered_kernels_for_op(op).kernel
        found = [
            kernel for kernel in registered if kernel.device_type == "GPU" and {*kernel.host_memory_arg} <= {"axis"}
        ]
        return {
            kind
            for kernel in found
            for constraint in kernel.constraint
            if constraint.name == attribute
            for kind in constraint.allowed_values.list.type
        }

    if on_gpus("AddV2", "T"):  # This TensorFlow is built for GPUs.
        for op, attribute, kind in (("GatherV2", "Tparams", tf.uint8), ("NotEqual", "T", tf.int32)):
            assert tf.int64.as_datatype_enum in on_gpus(op, attribute)
            assert kind.as_datatype_enum not in on_gpus(op, attribute)


@pytest.mark.slow
def test_the_release_s_losses_are_taken(tmp_path):
    """Per image, and scale 0.75 on the interpolated map: other updates than those of the default losses."""
    scales = {"scales": (0.75, 1.0), "max_steps": 2, **FROZEN}
    plain, _ = trained(tmp_path / "plain", **scales)
    for name, options in {"a": {"loss_normalization": "image"}, "b": {"interpolated_losses": True}}.items():
        other, _ = trained(tmp_path / name, **scales | options)
        assert 1e-3 * np.abs(plain).max() < np.abs(other - plain).max() < np.abs(plain).max(), name


@pytest.mark.slow
def test_the_masks_of_a_folder_are_trained_on_and_the_run_says_so(tmp_path):
    (tmp_path / "masks").mkdir()
    for number in range(toy.IMAGES):
        label = np.random.default_rng(number).integers(0, 3, (toy.SIDE, toy.SIDE)).astype(np.uint8)
        tf.io.write_file(str(tmp_path / f"masks/{number}.png"), tf.io.encode_png(label[..., None]))
    plain = FROZEN | {"max_steps": 2}  # Statistics of batch norm would move alike: the images are the same.
    settings = plain | {"train_masks": str(tmp_path / "masks")}
    own, _ = trained(tmp_path / "own", **plain)
    other, _ = trained(tmp_path / "other", **settings)
    assert np.abs(own - other).max() > 0.1 * np.abs(own).max()
    made_of = Segmenter.load(tmp_path / "other").settings["train_masks"]
    assert made_of["images"] == toy.IMAGES and made_of["folder"] == str(tmp_path / "masks")
    assert Segmenter.load(tmp_path / "own").settings["train_masks"] is None
    trained(tmp_path / "other", **settings)  # is finished, and may be asked for again
    with pytest.raises(UserError, match="run with other flags: --train_masks=not given"):
        trained(tmp_path / "other", **plain)
    (tmp_path / "masks/3.png").write_bytes((tmp_path / "masks/4.png").read_bytes())
    with pytest.raises(UserError, match="the masks there have changed since the run in .*other began"):
        trained(tmp_path / "other", **settings)


@pytest.mark.slow
def test_it_learns_validates_and_keeps_the_best(tmp_path):
    figures = {20: 0.25, 40: 0.75, 60: 0.5}
    _, result = trained(
        tmp_path / "run",
        scales=(0.5, 1.0),
        max_steps=60,
        eval_every=20,
        max_checkpoints=2,
        profile_steps=(10, 14),
        validate=lambda step: {"mean_iou": figures[step]},
    )
    assert result.validation == {"mean_iou": 0.5}
    assert read_scalars(tmp_path / "run/validation")["mean_iou"] == [0.25, 0.75, 0.5]
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").glob("*.index")) == [
        "ckpt-58.index",
        "ckpt-60.index",
    ]
    best = sorted(path.name for path in (tmp_path / "run/best").iterdir())
    assert best == ["best.json", "ckpt-40.data-00000-of-00001", "ckpt-40.index"]
    assert (
        tf.train.load_checkpoint(str(tmp_path / "run/best/ckpt-40")).get_tensor("step/.ATTRIBUTES/VARIABLE_VALUE") == 40
    )

    assert len(list((tmp_path / "run/train").glob("plugins/profile/*/*.xplane.pb"))) == 1
    scalars = read_scalars(tmp_path / "run/train")
    losses = [np.array(scalars[f"loss/{name}"]) for name in ("scale_0.5", "scale_1", "fused")]
    # A sum of three float32, of means of two.
    np.testing.assert_allclose(scalars["loss/total"], sum(losses), rtol=1e-5)
    assert losses[-1][-1] < 0.6 * losses[-1][0]
    # The schedule ends at 0; float32 of (1 - 60/60)^0.9.
    np.testing.assert_allclose(scalars["learning_rate"][-1], 0.0, atol=1e-8)
    assert min(scalars["images_per_second"]) > 0 and min(scalars["memory_gib/host"]) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "steps"), [("mixed_bfloat16", 40), ("mixed_float16", 4)])
def test_sixteen_bits_track_float32(tmp_path, precision, steps):
    """float16 scales its loss, or small gradients would vanish; few steps of it, as a CPU emulates its convolutions."""
    full_moved, _ = trained(tmp_path / "full", max_steps=steps, learning_rate=0.003)
    half_moved, _ = trained(tmp_path / "half", max_steps=steps, learning_rate=0.003, precision=precision)
    full, half = (np.array(read_scalars(tmp_path / run / "train")["loss/fused"]) for run in ("full", "half"))
    # bfloat16 rounds by 2^-9, float16 by 2^-12: forty roundings, through twenty layers and back, are 1.2% of a
    # gradient, and forty updates feed it back.
    assert np.abs(half - full).mean() < 0.05 * full.mean()
    assert np.corrcoef(half_moved, full_moved)[0, 1] > 0.9
    if steps >= 40:
        assert half[-5:].mean() < 0.9 * half[0]  # It learns.


@pytest.mark.slow
def test_divergence_stops_the_run_and_spoils_no_checkpoint(tmp_path, monkeypatch):
    trained(tmp_path / "run", stop_at=4)
    kept = {path: path.read_bytes() for path in (tmp_path / "run/checkpoints").glob("ckpt-*")}
    monkeypatch.setattr(assembly, "check_same_run", lambda *run: None)
    with pytest.raises(UserError, match=r"diverged.*step 6 at learning rate.*--learning_rate"):
        trained(tmp_path / "run", learning_rate=1e12, max_steps=40)
    for path, content in kept.items():
        assert path.read_bytes() == content


def test_a_loss_that_explodes_stops_the_run_before_it_is_infinite(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_DIVERGED", 0.1)
    with pytest.raises(UserError, match=r"diverged: the loss became \d.* by step 1 at learning rate .*initial_weights"):
        trained(tmp_path / "run")


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    with pytest.raises(UserError, match="--batch_size=4: expected a multiple of --accumulation_steps=3"):
        trained(tmp_path / "run", accumulation_steps=3)


@pytest.mark.slow
@pytest.mark.parametrize("window", [(1, 1), (3, 4), (2, 3), (5, 99)])
def test_any_window_that_the_run_meets_is_profiled(tmp_path, window, capsys):
    """Inside a loop, the first update, over the end of a loop, over the end of the training."""
    without_network(tmp_path / "run", profile_steps=window, steps_per_loop=6)
    assert len(list((tmp_path / "run/train").glob("plugins/profile/*/*.xplane.pb"))) == 1
    assert "profile_steps" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_window_that_the_run_does_not_meet_is_told(tmp_path, capsys):
    without_network(tmp_path / "run", profile_steps=(7, 9), max_steps=2)
    assert "--profile_steps=7,9: no such update was made" in capsys.readouterr().err


def test_prints_of_the_user_are_seen_and_orbits_are_not(tmp_path, capsys):
    without_network(
        tmp_path / "run", max_steps=2, validate=lambda step: print(f"validated at {step}") or {"mean_iou": 0.5}
    )
    assert capsys.readouterr().out == "validated at 2\n"


@pytest.mark.slow
def test_validation_obeys_the_flags_of_inference(tmp_path):
    """A finished run whose validation is gone makes it again, with the flags of that start."""
    plain = without_network(tmp_path / "run", max_steps=2, validate=None)[1].validation
    for options in ({"eval_scales": (0.5,)}, {"eval_mirror": True}, {"tile_size": 33, "tile_overlap": 8}):
        (tmp_path / "run/validation.json").unlink()
        again = without_network(tmp_path / "run", max_steps=2, validate=None, **options)[1].validation
        assert again.keys() == plain.keys() and again != plain, options


def test_balanced_class_weights_decode_no_image(tmp_path, monkeypatch):
    def refuse(encoded):
        raise AssertionError("decoded")

    directory = toy.prepared(tmp_path)
    monkeypatch.setattr("deeplab_tf.data.augmentation.decode_image", refuse)
    recipe = Recipe(class_weights="balanced")
    found = assembly._class_weights(directory, catalogue.read_info(directory), recipe, None)
    assert len(found) == 3 and max(found) > 1


@pytest.mark.slow
def test_a_run_is_resumed_with_its_own_flags_only(tmp_path):
    without_network(tmp_path / "run", max_steps=2)
    with pytest.raises(UserError) as error:
        without_network(tmp_path / "run", max_steps=4, momentum=0.5, max_checkpoints=7)
    assert "--max_steps=4 (there: 2), --momentum=0.5 (there: 0.9); give that run's flags" in str(error.value)
    assert f"give another --model_dir and --initial_weights={tmp_path / 'run'}" in str(error.value)
    _, result = without_network(tmp_path / "further", max_steps=2, momentum=0.5, initial_weights=str(tmp_path / "run"))
    assert result.steps == 2


@pytest.mark.slow
def test_with_the_step_schedule_a_run_can_be_extended(tmp_path):
    reference, _ = without_network(tmp_path / "reference", schedule="step", step_size=3, max_steps=6)
    without_network(tmp_path / "run", schedule="step", step_size=3, max_steps=4)
    extended, _ = without_network(tmp_path / "run", schedule="step", step_size=3, max_steps=6)
    np.testing.assert_array_equal(extended, reference)


@pytest.mark.slow
def test_resuming_needs_no_initial_weights(tmp_path):
    Segmenter(randomise(DeepLab("resnet_tiny", "linear", 5)), info=data.info("shapes")).save(tmp_path / "first")
    options = {"initial_weights": str(tmp_path / "first"), "head": "large_fov"}
    without_network(tmp_path / "reference", **options)
    without_network(tmp_path / "run", stop_at=4, **options)
    (tmp_path / "first").rename(tmp_path / "moved")
    without_network(tmp_path / "run", **options)
    reference, resumed = (toy.saved(tmp_path / name) for name in ("reference", "run"))
    assert reference.keys() == resumed.keys()
    for key, value in reference.items():
        np.testing.assert_array_equal(resumed[key], value)


def read_scalars(folder) -> dict[str, list[float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag: [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }
