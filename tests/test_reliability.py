"""A small part of benchmarks/fuzz.py and benchmarks/survival.py, which docs/reliability.md tells of."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from benchmarks import fuzz_kinds, fuzz_mutations, fuzz_outcomes, survival_troubles
from tests.training.toy import trained


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("images", 200),
        ("masks", 200),
        ("annotations", 60),
        pytest.param("weights", 60, marks=pytest.mark.slow),
        pytest.param("requests", 80, marks=pytest.mark.slow),
    ],
)
def test_mutated_files_are_read_or_refused(name, count, tmp_path):
    kind = fuzz_kinds.KINDS[name](tmp_path)
    outcomes = []
    for index in range(count):
        file, content = fuzz_mutations.mutated(np.random.default_rng([9, index]), kind.starts, index)
        outcomes.append(fuzz_outcomes.outcome_of(kind, index, file, content, fuzz_outcomes.Limits(seconds=60)))
    assert [f"{outcome.name}: {outcome.words}" for outcome in outcomes if outcome.status == "failed"] == []
    assert {outcome.status for outcome in outcomes} == {"answered", "refused"}


class Careless:
    """A reader with three defects."""

    starts = {"a.bin": bytes(100)}

    def read(self, name: str, content: bytes) -> None:
        if content == b"memory":
            np.ones(64 << 20, np.uint8)  # up to 32 MiB glibc may give pages that the process has already
        if content == b"long":
            raise fuzz_kinds.UserError("name, " * 1000)
        raise {b"refused": fuzz_kinds.UserError("no"), b"crash": KeyError("x")}.get(content, fuzz_kinds.UserError("no"))


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"refused", "refused", ""),
        (b"crash", "failed", "KeyError: 'x'"),
        (b"long", "failed", "a message of 5999 characters: name, name"),
        (b"memory", "failed", "refused after"),
        (bytes(100), "failed", "the whole file is refused"),
    ],
)
def test_what_counts_as_a_failure(content, status, words):
    outcome = fuzz_outcomes.outcome_of(Careless(), 7, "a.bin", content, fuzz_outcomes.Limits(megabytes=20))
    assert outcome.status == status and outcome.words.startswith(words)


OPTIONS = {"max_steps": 9, "steps_per_loop": 3, "checkpoint_every": 3, "eval_every": 3}


def validated(model_dir):
    figures = {3: 0.2, 6: 0.6, 9: 0.3}
    return trained(model_dir, validate=lambda step: {"mean_iou": figures[step]}, network=False, **OPTIONS)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    validated(folder / "run")
    return folder


@pytest.mark.parametrize("kind", ["data cut", "index lost", "list of checkpoints overwritten", "best.json cut"])
@pytest.mark.slow
def test_a_damaged_run_ends_as_the_undisturbed_one(kind, run, tmp_path):
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    assert survival_troubles.damage(tmp_path / "run", kind, np.random.default_rng(3))
    validated(tmp_path / "run")
    assert survival_troubles.difference(tmp_path / "run", survival_troubles.end_of(run / "run")) == ""


def test_differences_are_found(run, tmp_path):
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    expected = survival_troubles.end_of(run / "run")
    assert survival_troubles.difference(tmp_path / "run", expected) == ""
    name = next(name for name in expected if "moving_mean" in name)
    changed = expected | {name: np.nextafter(expected[name], 1)}
    assert survival_troubles.difference(tmp_path / "run", changed) == f"{name} differs"
    best = tmp_path / "run/best/best.json"
    best.write_text(json.dumps(json.loads(best.read_text()) | {"mean_iou": 0.5}))
    assert survival_troubles.difference(tmp_path / "run", expected) == "best.json/mean_iou differs"
    (tmp_path / "run/checkpoints/ckpt-9.index").unlink()
    assert survival_troubles.difference(tmp_path / "run", expected) != ""


def test_troubles_are_drawn_of_every_kind_and_the_same_again():
    drawn, again = ([survival_troubles.draw(rng) for _ in range(200)] for rng in map(np.random.default_rng, (0, 0)))
    assert drawn == again
    assert {trouble.kind for trouble in drawn} == {"kill", "damage", "full disk", "second process"}
    assert {trouble.detail for trouble in drawn if trouble.kind == "kill"} == survival_troubles.MOMENTS.keys()
