"""Checkpoints that survive a kill, a full disk, damage and a divergence, and the best one by validation."""

import os
import pathlib
import shutil
import sys
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from deeplab_tf import files, run_folder
from deeplab_tf.errors import UserError


class Checkpoints:
    """The checkpoints of a run.

    Args:
        model_dir: folder of the run, shared by all hosts.
        checkpoint: what is saved: model, optimizer, step.
        step: batches used so far.
        every: steps between checkpoints.
        keep: how many to keep.
        chief: whether this host's files are the ones that stay; the others save too, as some variables live on all
            hosts, but into a folder that is thrown away.

    Attributes:
        latest: path of the checkpoint that was last restored or saved, without suffix; None before.
        validations: the scalars of each validation up to the present step, by step.
    """

    def __init__(
        self,
        model_dir: pathlib.Path,
        checkpoint: tf.train.Checkpoint,
        step: tf.Variable,
        *,
        every: int,
        keep: int,
        chief: bool = True,
    ):
        self._model_dir = model_dir
        self._checkpoint = checkpoint
        self._step = step
        self._every = every
        self._keep = keep
        self._chief = chief
        self._folder = model_dir / (
            run_folder.CHECKPOINTS if chief else f".{run_folder.CHECKPOINTS}-of-host-{os.getpid()}"
        )
        self.latest: str | None = None
        self.validations: dict[int, dict[str, float]] = {}

    def restore(self) -> None:
        """Restores the last checkpoint that can be read; does nothing where there is none at all.

        One that cannot be read is written again when its step comes.

        Raises:
            UserError: there are checkpoints, and none can be read.
        """
        self.latest = run_folder.restore_newest(self._checkpoint, run_folder.checkpoints(self._model_dir))
        validations = run_folder.read_validations(self._model_dir)
        if self._chief:
            self._mend_best(validations)
        self.validations = {step: scalars for step, scalars in validations.items() if step <= self._last_step()}

    def save(self, *, if_due: bool = False) -> None:
        """Saves a checkpoint of this step, unless it is saved already.

        Args:
            if_due: only when enough steps have passed since the last one.

        Raises:
            UserError: a weight is infinite or NaN, or the disk is full. Earlier checkpoints stay as they were.
        """
        step = int(self._step.numpy())
        if self.latest and step == self._last_step() or if_due and step - self._last_step() < self._every:
            return
        self._check_finite()
        path = self._folder / f"ckpt-{step}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._checkpoint.write(str(path))
            earlier = [known for known in self._paths() if run_folder.checkpoint_step(known) <= step]
            kept = earlier[-self._keep :]
            self._list(kept)
        except (tf.errors.OpError, OSError) as error:
            _remove(self._folder, step)
            reason = str(error).strip().splitlines()[0][:200]
            raise UserError(
                f"the checkpoint of step {step} could not be written to {self._folder} ({reason}); make room, or give "
                f"another --model_dir; {self._last_good()}"
            ) from None
        self.latest = str(path)
        for known in earlier[: -self._keep]:
            _remove(self._folder, run_folder.checkpoint_step(known))

    def record(self, scalars: Mapping[str, float]) -> None:
        """Notes a validation of the last checkpoint, and keeps a copy of it in best/ if no mean IoU was higher yet."""
        if "mean_iou" in scalars and scalars["mean_iou"] > self._best_mean_iou():  # False for NaN: nothing is labelled.
            self._copy_to_best(self.latest, scalars["mean_iou"])
        self.validations[self._last_step()] = dict(scalars)
        run_folder.write_validations(self._model_dir, self.validations)

    def last_validation(self) -> dict[str, float]:
        """The scalars of the last validation; empty where there was none."""
        return self.validations[max(self.validations)] if self.validations else {}

    def waited(self) -> int:
        """Number of validations since the one with the highest mean IoU, 0 where none has one."""
        found = [self.validations[step].get("mean_iou", 0.0) for step in sorted(self.validations)]
        best = int(np.nan_to_num(found).argmax()) if found else 0
        return len(found) - 1 - best if found and found[best] > 0 else 0

    def clean_up(self) -> None:
        """Removes what a host that is not the chief has saved."""
        if not self._chief:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _list(self, paths: list[str]) -> None:
        """Writes the list that `tf.train.latest_checkpoint` reads; nothing here depends on it."""
        names = [os.path.basename(path) for path in paths]
        lines = [f'model_checkpoint_path: "{names[-1]}"', *(f'all_model_checkpoint_paths: "{n}"' for n in names)]
        files.write_text(self._folder / "checkpoint", "\n".join(lines) + "\n")

    def _paths(self) -> list[str]:
        return run_folder.complete_checkpoints(self._folder)

    def _last_step(self) -> int:
        return run_folder.checkpoint_step(self.latest) if self.latest else 0

    def _last_good(self) -> str:
        return f"the last good checkpoint is {self.latest}" if self.latest else "there is no earlier checkpoint"

    def _best_mean_iou(self) -> float:
        """That of the checkpoint in best/; below 0 where there is none."""
        return run_folder.read_best(self._model_dir).get("mean_iou", -1.0)

    def _mend_best(self, validations: Mapping[int, Mapping[str, float]]) -> None:
        """Writes best.json again where it is lost, and best/ from the best checkpoint that is whole where that is."""
        found = {step: scalars.get("mean_iou") for step, scalars in validations.items()}
        noted = {step: mean_iou for step, mean_iou in found.items() if isinstance(mean_iou, float) and mean_iou >= 0}
        path, best_file = run_folder.best_checkpoint(self._model_dir), run_folder.read_best(self._model_dir)
        if path and _readable(path):
            step = run_folder.checkpoint_step(path)
            if step in noted and "mean_iou" not in best_file:
                self._write_best_file(os.path.basename(path), noted[step])
            return
        if not (path or best_file):
            return
        shutil.rmtree(self._model_dir / run_folder.BEST, ignore_errors=True)
        there = {run_folder.checkpoint_step(known): known for known in run_folder.checkpoints(self._model_dir)}
        for step in sorted(there.keys() & noted, key=noted.get, reverse=True):
            if _readable(there[step]):
                self._copy_to_best(there[step], noted[step])
                break
        now = run_folder.best_checkpoint(self._model_dir)
        print(f"best/ is damaged; it now holds {os.path.basename(now) if now else 'nothing'}", file=sys.stderr)

    def _write_best_file(self, name: str, mean_iou: float) -> None:
        best_file = self._model_dir / run_folder.BEST / run_folder.BEST_FILE
        files.write_json(best_file, {"checkpoint": name, "mean_iou": mean_iou})

    def _copy_to_best(self, path: str, mean_iou: float) -> None:
        source, best = pathlib.Path(path), self._model_dir / run_folder.BEST
        if not _readable(path):
            print(f"checkpoint {source} is damaged on the disk, so best/ stays as it is", file=sys.stderr)
            return
        for part in source.parent.glob(f"{source.name}.*"):
            with files.written_aside(best / part.name) as aside:
                shutil.copyfile(part, aside)
        # From here on the new one counts; what else lies there is the old one.
        self._write_best_file(source.name, mean_iou)
        for other in best.glob("ckpt-*"):
            if other.stem != source.name:
                other.unlink()

    def _check_finite(self) -> None:
        """Refuses to save weights that are infinite or NaN."""
        for variable in self._checkpoint.model.variables:
            is_number = variable.value.dtype.is_floating  # Not so the state of random numbers.
            if is_number and not bool(tf.reduce_all(tf.math.is_finite(variable.value))):
                raise UserError(
                    f"the training diverged: {variable.path} is not finite at step {int(self._step.numpy())}; lower "
                    f"--learning_rate; {self._last_good()}"
                )


def _readable(path: str) -> bool:
    """Whether every tensor of a checkpoint can be read; TensorFlow compares the checksums."""
    try:
        reader = tf.train.load_checkpoint(path)
        for key in reader.get_variable_to_shape_map():
            reader.get_tensor(key)
    except (tf.errors.OpError, ValueError, IndexError, RuntimeError):
        return False
    return True


def _remove(folder: pathlib.Path, step: int) -> None:
    """Removes the files of a checkpoint, also those that are half-written."""
    for path in folder.glob(f"ckpt-{step}.*"):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder / f"ckpt-{step}_temp", ignore_errors=True)
