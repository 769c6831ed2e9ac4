"""Troubles for the trainings of benchmarks/survival.py, and the comparison of a run with one that met none."""

import dataclasses
import os
import pathlib
import signal
from collections.abc import Callable

import numpy as np

# Where a signal falls, and the most seconds that it waits there.
MOMENTS = {"start": 4.0, "updates": 0.4, "saving": 0.08, "validation": 0.5, "best": 0.02}
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@dataclasses.dataclass(frozen=True)
class Trouble:
    """The trouble that a start meets.

    Attributes:
        kind: "kill", "damage", "full disk", "second process" or "none".
        detail: of a kill its moment, of damage its kind.
        signal_number: of a kill.
        occurrence: of a kill: at which loop, saving, validation or best checkpoint it comes, from 0.
        delay: of a kill, seconds after that has begun.
        share: of a full disk, of `_MOST_ROOM`, that is left.
    """

    kind: str
    detail: str = ""
    signal_number: int = 0
    occurrence: int = 0
    delay: float = 0.0
    share: float = 0.0

    def __str__(self) -> str:
        sent = signal.Signals(self.signal_number).name if self.signal_number else ""
        return " ".join(filter(None, (self.kind, sent, self.detail and f"({self.detail})")))


def draw(rng: np.random.Generator) -> Trouble:
    """A trouble for a start: most are kills."""
    kind = rng.choice(["kill", "damage", "full disk", "second process"], p=[0.7, 0.16, 0.09, 0.05])
    if kind == "kill":
        moment = str(rng.choice([*MOMENTS]))
        most = {"start": 1, "updates": 12, "saving": 8, "validation": 3, "best": 2}[moment]
        occurrence, delay = int(rng.integers(most)), rng.uniform(0, MOMENTS[moment])
        return Trouble("kill", moment, int(rng.choice(SIGNALS)), occurrence, delay)
    if kind == "damage":
        return Trouble("damage", str(rng.choice([*DAMAGES])))
    return Trouble(str(kind), share=rng.uniform(0, 1))


def _cut(path: pathlib.Path, rng: np.random.Generator) -> None:
    os.truncate(path, int(rng.integers(path.stat().st_size)))


def _flip(path: pathlib.Path, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(content)


def _garbage(path: pathlib.Path, rng: np.random.Generator) -> None:
    path.write_bytes(rng.bytes(40))


def _remove(path: pathlib.Path, _) -> None:
    path.unlink()


_DATA, _INDEX, _STATE, _BEST = (
    "{newest}.data-00000-of-00001",
    "{newest}.index",
    "checkpoints/checkpoint",
    "best/best.json",
)
DAMAGES: dict[str, tuple[str, Callable]] = {
    "data cut": (_DATA, _cut),
    "bit of data flipped": (_DATA, _flip),
    "data lost": (_DATA, _remove),
    "index cut": (_INDEX, _cut),
    "bit of index flipped": (_INDEX, _flip),
    "index lost": (_INDEX, _remove),
    "list of checkpoints lost": (_STATE, _remove),
    "list of checkpoints overwritten": (_STATE, _garbage),
    "best.json lost": (_BEST, _remove),
    "best.json cut": (_BEST, _cut),
}


def damage(model_dir: pathlib.Path, kind: str, rng: np.random.Generator) -> bool:
    """Damages the newest checkpoint of a run, or a file that tells of checkpoints; False if there is nothing to lose.

    The only checkpoint of a run is left alone: nothing could bring it back.
    """
    from deeplab_tf import run_folder

    found = run_folder.checkpoints(model_dir)
    if len(found) < 2:
        return False
    name, change = DAMAGES[kind]
    path = model_dir / name.format(newest=pathlib.Path(found[-1]).relative_to(model_dir))
    if not path.is_file():
        return False
    change(path, rng)
    return True


def end_of(model_dir: pathlib.Path) -> dict[str, np.ndarray]:
    """The end of a run, by name: every number of its last checkpoint and of best/, figures of validations."""
    import tensorflow as tf

    from deeplab_tf import run_folder

    found = {}
    for path in (run_folder.latest_checkpoint(model_dir), run_folder.best_checkpoint(model_dir)):
        reader = tf.train.load_checkpoint(path)
        name = os.path.relpath(path, model_dir)
        for key in set(reader.get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}:
            found[f"{name}/{key}"] = reader.get_tensor(key)
    for step, scalars in run_folder.read_validations(model_dir).items():
        found |= {f"validation.json/{step}/{key}": np.asarray(value) for key, value in scalars.items()}
    best = run_folder.read_best(model_dir)
    return found | {f"best.json/{key}": np.asarray(value) for key, value in best.items()}


def difference(model_dir: pathlib.Path, expected: dict[str, np.ndarray]) -> str:
    """The first difference of a run's end from what is expected; empty where there is none. Remains of kills count."""
    try:
        found = end_of(model_dir)
    except Exception as error:  # noqa: BLE001 - whatever a damaged checkpoint raises
        return f"its end cannot be read: {error!r}"
    if found.keys() != expected.keys():
        return f"found {sorted(found.keys() ^ expected.keys())[:3]} in one of the two alone"
    for name, value in expected.items():
        if not np.array_equal(found[name], value, equal_nan=value.dtype.kind == "f"):
            return f"{name} differs"
    remains = [path for path in model_dir.rglob("*") if ".part" in path.name or path.name.endswith("_temp")]
    return f"{remains[0]} is left behind" if remains else ""
