"""The loop on one device: it learns, repeats bit for bit, accumulates micro-batches, writes what it measured."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf.errors import UserError
from tests.training.toy import trained

FROZEN = {"batch_norm": "frozen", "learning_rate": 1e-6}


def test_runs_repeat_bit_for_bit_also_when_stopped_and_continued(tmp_path):
    reference, _ = trained(tmp_path / "reference")
    assert np.abs(reference).max() > 0.01
    trained(tmp_path / "stopped", stop_at=4)
    continued, result = trained(tmp_path / "stopped")
    assert result.steps == 6
    np.testing.assert_array_equal(continued, reference)


def test_micro_batches_equal_the_full_batch(tmp_path):
    """Although the ignored pixels are spread unevenly over them."""
    full, _ = trained(tmp_path / "full", **FROZEN)
    accumulated, _ = trained(tmp_path / "micro", accumulation_steps=2, **FROZEN)
    assert np.abs(full).max() > 1e-5
    np.testing.assert_allclose(accumulated, full, atol=1e-3 * np.abs(full).max())


def test_it_learns_validates_and_keeps_the_best(tmp_path):
    figures = {20: 0.25, 40: 0.75, 60: 0.5}
    _, result = trained(
        tmp_path,
        scales=(0.5, 1.0),
        max_steps=60,
        eval_every=20,
        max_checkpoints=2,
        profile_steps=(10, 14),
        validate=lambda step: {"mean_iou": figures[step]},
    )
    assert result.validation == {"mean_iou": 0.5}
    assert read_scalars(tmp_path / "validation")["mean_iou"] == [0.25, 0.75, 0.5]
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("*.index")) == [
        "ckpt-58.index",
        "ckpt-60.index",
    ]
    best = sorted(path.name for path in (tmp_path / "best").iterdir())
    assert best == ["best.json", "ckpt-40.data-00000-of-00001", "ckpt-40.index"]
    assert tf.train.load_checkpoint(str(tmp_path / "best/ckpt-40")).get_tensor("step/.ATTRIBUTES/VARIABLE_VALUE") == 40

    assert len(list((tmp_path / "train").glob("plugins/profile/*/*.xplane.pb"))) == 1
    scalars = read_scalars(tmp_path / "train")
    losses = [np.array(scalars[f"loss/{name}"]) for name in ("scale_0.5", "scale_1", "fused")]
    np.testing.assert_allclose(scalars["loss/total"], sum(losses), rtol=1e-5)
    assert losses[-1][-1] < 0.6 * losses[-1][0]
    np.testing.assert_allclose(scalars["learning_rate"][-1], 0.0, atol=1e-8)
    assert min(scalars["images_per_second"]) > 0 and min(scalars["memory_gib/host"]) > 0.1


@pytest.mark.parametrize(("precision", "steps"), [("mixed_bfloat16", 40), ("mixed_float16", 4)])
def test_sixteen_bits_track_float32(tmp_path, precision, steps):
    """float16 scales its loss, or small gradients would vanish; few steps of it, as a CPU emulates its convolutions."""
    full_moved, _ = trained(tmp_path / "full", max_steps=steps, learning_rate=0.003)
    half_moved, _ = trained(tmp_path / "half", max_steps=steps, learning_rate=0.003, precision=precision)
    full, half = (np.array(read_scalars(tmp_path / run / "train")["loss/fused"]) for run in ("full", "half"))
    assert np.abs(half - full).mean() < 0.05 * full.mean()
    assert np.corrcoef(half_moved, full_moved)[0, 1] > 0.9
    if steps >= 40:
        assert half[-5:].mean() < 0.9 * half[0]  # It learns.


def test_divergence_stops_the_run_and_spoils_no_checkpoint(tmp_path):
    trained(tmp_path, stop_at=4)
    kept = {path: path.read_bytes() for path in (tmp_path / "checkpoints").glob("ckpt-*")}
    with pytest.raises(UserError, match=r"diverged.*step.*learning_rate"):
        trained(tmp_path, learning_rate=1e12, max_steps=40)
    for path, content in kept.items():
        assert path.read_bytes() == content


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    with pytest.raises(UserError, match="--batch_size=4 .*--accumulation_steps=3; expected a multiple of 3"):
        trained(tmp_path, accumulation_steps=3)


def read_scalars(folder) -> dict[str, list[float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag: [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }
