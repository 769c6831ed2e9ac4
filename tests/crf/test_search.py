"""The search for the CRF's parameters."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from deeplab_tf import crf
from deeplab_tf.crf import DenseCRF, searching
from deeplab_tf.crf.search_result import Trial
from deeplab_tf.errors import UserError

GRID = {"weights": (2, 6), "spatial_stds": (10, 30), "color_stds": (4, 12)}


def scene(seed, shape=(40, 48)):
    """A two-coloured image with its label map, and noisy probabilities of three classes, the last not there."""
    generator = np.random.default_rng(seed)
    label = (np.arange(shape[1]) > generator.integers(15, 30)).astype(np.uint8) * np.ones((shape[0], 1), np.uint8)
    label[:3] = 255
    image = np.where(label[..., None] == 1, (180, 90, 40), (60, 90, 150)) + generator.normal(0, 8, (*shape, 3))
    scores = generator.normal(0, 1.2, (*shape, 3))
    for c in (0, 1):
        scores[label == c, c] += 1
    probabilities = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    return np.clip(image, 0, 255).astype(np.uint8), probabilities.astype(np.float32), label


class Scenes(list):
    """Samples that count how often they are asked for, and can stop."""

    taken = 0
    stop_at = None

    def __getitem__(self, index):
        if self.taken == self.stop_at:
            raise KeyboardInterrupt
        self.taken += 1
        return super().__getitem__(index)


@pytest.fixture
def scenes():
    return Scenes(scene(seed) for seed in range(3))


def iou_by_hand(parameters, samples, num_classes=3):
    confusion = np.zeros((num_classes, num_classes))
    for image, probabilities, label in samples:
        found = parameters(image, probabilities).argmax(-1) if parameters else probabilities.argmax(-1)
        np.add.at(confusion, (label[label != 255], found[label != 255]), 1)
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    return (np.diag(confusion)[union > 0] / union[union > 0]).mean()


def test_trials_are_what_the_crf_gives(scenes):
    result = crf.search(scenes, 3, **GRID, fine=False)
    assert len(result.trials) == 8
    for trial in result.trials:
        # Sums in another order: a pixel in doubt may get another label, of the hundreds of a class.
        assert trial.mean_iou == pytest.approx(iou_by_hand(trial.crf, list(scenes)), abs=2e-3)
    assert result.without_crf == pytest.approx(iou_by_hand(None, list(scenes)))
    assert result.best.mean_iou == max(trial.mean_iou for trial in result.trials) > result.without_crf


def test_finer_steps_surround_the_best(scenes):
    result = crf.search(iter(list(scenes)), 3, **GRID)
    coarse = max((t for t in result.trials if t.stage == "coarse"), key=lambda t: t.mean_iou).crf
    fine = [t.crf for t in result.trials if t.stage == "fine1"]
    assert fine
    assert {c.bilateral_weight for c in fine} <= {coarse.bilateral_weight + s for s in (-2, 0, 2)}
    assert {c.bilateral_spatial_std for c in fine} <= {coarse.bilateral_spatial_std + s for s in (-10, 0, 10)}
    assert {c.bilateral_color_std for c in fine} <= {coarse.bilateral_color_std + s for s in (-4, 0, 4)}
    assert len({(c.bilateral_weight, c.bilateral_spatial_std, c.bilateral_color_std) for c in fine}) == len(fine)


@pytest.mark.parametrize(
    ("target", "stages"),
    [
        ((4.3, 67, 4.4), {"coarse", "fine1", "fine2", "fine3"}),
        ((4.3, 67, 3.4), {"coarse", "beyond1", "fine1", "fine2", "fine3"}),  # the best of the grid is at its edge
        # LargeFOV's 121 pixels with a small weight and a narrow colour: beyond the edges of the paper's grid.
        ((1.7, 121, 1.2), {"coarse", "beyond1", "beyond2", "beyond3", "fine1", "fine2", "fine3"}),
    ],
)
def test_searches_until_the_steps_are_fine(target, stages, monkeypatch, caplog):
    """Values between those of the grid, such as 67 pixels, and beyond it are found where they are the best."""

    def run(self, stage, grid):
        def quality(point):
            return 1 - sum(abs(found - best) / best for found, best in zip(point, target, strict=True)) / 10

        return 0.5, [Trial(stage, self._crf(point), quality(point)) for point in grid]

    monkeypatch.setattr(searching._Stages, "run", run)
    result = crf.search([scene(0)], 3)
    best = result.best.crf
    assert (best.bilateral_weight, best.bilateral_spatial_std, best.bilateral_color_std) == target
    assert {trial.stage for trial in result.trials} == stages
    assert not caplog.records


def test_warns_at_the_edge_of_the_grid(scenes, caplog):
    crf.search(scenes[:1], 3, weights=(2, 4), spatial_stds=(10,), color_stds=(4,), fine=False)
    (line,) = [record.getMessage() for record in caplog.records if "edge" in record.getMessage()]
    assert "best bilateral_weight" in line and "edge of what was tried (2 to 4)" in line


@pytest.mark.parametrize("parameters", [{"normalization": "after"}, {"compatibility": 1.5 - 1.5 * np.eye(3)}])
def test_searches_with_what_is_fixed(scenes, parameters):
    result = crf.search(scenes, 3, **GRID, fixed=DenseCRF(**parameters), fine=False)
    for trial in result.trials[::3]:
        assert trial.mean_iou == pytest.approx(iou_by_hand(trial.crf, list(scenes)), abs=2e-3)


def test_goes_on_where_it_was_interrupted(scenes, tmp_path):
    expected = crf.search(list(scenes), 3, **GRID, fine=False)
    scenes.stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        crf.search(scenes, 3, **GRID, fine=False, state_dir=tmp_path)
    scenes.stop_at, scenes.taken = None, 0
    result = crf.search(scenes, 3, **GRID, fine=False, state_dir=tmp_path)
    assert scenes.taken == 2  # the first was done; the second was under way
    assert result == expected
    scenes.taken = 0
    assert crf.search(scenes, 3, **GRID, fine=False, state_dir=tmp_path) == expected
    assert scenes.taken == 0


@pytest.mark.slow
def test_goes_on_after_it_was_killed(scenes, tmp_path):
    """A process killed in the middle, and another one that ends what it began."""
    code = """
import sys, time, numpy as np
from deeplab_tf import crf
class Slow(list):
    def __getitem__(self, index):
        time.sleep(0.5)
        return super().__getitem__(index)
arrays = np.load(sys.argv[1])
samples = Slow(zip(arrays["image"], arrays["probabilities"], arrays["label"]))
crf.search(samples, 3, weights=(2, 6), spatial_stds=(10, 30), color_stds=(4, 12), fine=False, state_dir=sys.argv[2])
"""
    image, probabilities, label = (np.stack(arrays) for arrays in zip(*list(scenes), strict=True))
    np.savez(tmp_path / "samples.npz", image=image, probabilities=probabilities, label=label)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "samples.npz"), str(tmp_path)], stderr=subprocess.DEVNULL
    )
    while not (tmp_path / "crf_search_coarse.npz").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    result = crf.search(scenes, 3, **GRID, fine=False, state_dir=tmp_path)
    assert scenes.taken < 3
    assert result == crf.search(list(scenes), 3, **GRID, fine=False)


def test_starts_afresh_for_other_probabilities(scenes, tmp_path):
    crf.search(scenes, 3, **GRID, fine=False, state_dir=tmp_path, identity="checkpoint 1")
    scenes.taken = 0
    crf.search(scenes, 3, **GRID, fine=False, state_dir=tmp_path, identity="checkpoint 2")
    assert scenes.taken == 3


def test_writes_table_picture_and_parameters(scenes, tmp_path):
    result = crf.search(scenes, 3, **GRID, fixed=DenseCRF(spatial_weight=2.0, iterations=3))
    result.write(tmp_path)
    loaded = DenseCRF.load(tmp_path / "crf.json")
    assert loaded == result.best.crf
    assert json.loads((tmp_path / "crf.json").read_text())["spatial_weight"] == 2.0
    lines = (tmp_path / "crf_search.csv").read_text().splitlines()
    assert len(lines) == 1 + len(result.trials)
    assert (tmp_path / "crf_search.png").read_bytes().startswith(b"\x89PNG")


def test_complains(scenes):
    with pytest.raises(UserError, match="no samples"):
        crf.search([], 3)
    with pytest.raises(UserError, match="sample 0 have 3 classes, expected 4"):
        crf.search(scenes, 4, **GRID)
    image, probabilities, label = scenes[0]
    with pytest.raises(UserError, match="values up to 7"):
        crf.search([(image, probabilities, label * 0 + 7)], 3, **GRID)


@pytest.mark.parametrize(
    ("weights", "active"),
    [((2.0, 6.0), [1, 1, 1]), ((0.0, 3.0, 9.0), [1, 0, 1]), ((1.0, 2.0, 3.0, 4.0, 50.0), [1, 1, 0])],
)
def test_weights_computed_together_are_as_each_alone(scenes, weights, active):
    """In groups of 2, 4 and 8, with a class left out and without."""
    from deeplab_tf.crf.features import bilateral_features, spatial_features
    from deeplab_tf.crf.lattice import Lattice
    from deeplab_tf.crf.mean_field import MeanField, Potential, Unaries

    image, probabilities, _ = scenes[0]
    bilateral = Lattice(bilateral_features(image, 20, 10))
    spatial = Potential(Lattice(spatial_features(image.shape[:2], 3)), "symmetric", 3.0)

    def field(weights):
        unaries = Unaries.of_probabilities(probabilities.reshape(-1, 3), np.array(active, bool), len(weights))
        made = MeanField([Potential(bilateral, "symmetric", 1.0), spatial], unaries, factors=weights)
        for _ in range(5):
            made.update()
        return made

    together = field(weights)
    # Rows of 2, 4 and 8 are summed by other vector instructions: roundings of scores of up to 20, five iterations.
    np.testing.assert_allclose(together.marginals(), field(weights[:1]).marginals(), atol=1e-5)
    np.testing.assert_allclose(together.scores(), field(weights[:1]).scores(), atol=1e-4)
    alone = [field((weight,)).labels() for weight in weights]
    assert together.labels_of_all().shape == (len(weights), probabilities[..., 0].size)
    assert (together.labels_of_all() == alone).mean() > 0.999
    assert (alone[0] != alone[-1]).mean() > 0.01
