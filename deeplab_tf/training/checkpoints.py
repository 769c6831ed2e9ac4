"""Checkpoints that survive a kill, a full disk and a divergence, and the best one by validation."""

import json
import os
import pathlib
import shutil
import sys

import tensorflow as tf

from deeplab_tf import files
from deeplab_tf.errors import UserError
from deeplab_tf.run_folder import BEST, BEST_FILE, CHECKPOINTS


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
        self._chief = chief
        self._folder = model_dir / (CHECKPOINTS if chief else f".{CHECKPOINTS}-of-host-{os.getpid()}")
        self._manager = tf.train.CheckpointManager(
            checkpoint, str(self._folder), max_to_keep=keep, step_counter=step, checkpoint_interval=every
        )

    @property
    def latest(self) -> str | None:
        """Path of the last checkpoint saved, without suffix."""
        return self._manager.latest_checkpoint

    def restore(self) -> None:
        """Restores the last checkpoint that is whole; does nothing where there is none at all.

        Raises:
            UserError: there are checkpoints, and none can be read.
        """
        state = tf.train.get_checkpoint_state(str(self._model_dir / CHECKPOINTS))
        paths = list(reversed(state.all_model_checkpoint_paths)) if state else []
        for path in paths:
            try:
                self._checkpoint.restore(path).assert_existing_objects_matched()
                return
            except (tf.errors.OpError, ValueError, AssertionError, IndexError, RuntimeError) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
                print(f"checkpoint {path} cannot be read and is passed over: {reason}", file=sys.stderr)
        if paths:
            raise UserError(
                f"none of the {len(paths)} checkpoints in {self._model_dir / CHECKPOINTS} can be read; delete that "
                "folder to train from the beginning, or use another --model_dir"
            )

    def save(self, *, if_due: bool = False) -> None:
        """Saves a checkpoint of this step, unless it is saved already.

        Args:
            if_due: only when enough steps have passed since the last one.

        Raises:
            UserError: a weight is infinite or no number; or the disk does not take it. Earlier checkpoints stay as
                they were.
        """
        step = int(self._step.numpy())
        if self.latest and self.latest.endswith(f"-{step}"):
            return
        if if_due and step - self._last_step() < self._manager.checkpoint_interval:
            return
        self._check_finite()
        try:
            self._manager.save(checkpoint_number=step, check_interval=False)
        except (tf.errors.OpError, OSError) as error:
            self._remove_remains(step)
            reason = str(error).strip().splitlines()[0][:200]
            raise UserError(
                f"the checkpoint of step {step} could not be written to {self._folder} ({reason}); make room, or give "
                f"another --model_dir; {self._last_good()}"
            ) from None

    def keep_best(self, mean_iou: float) -> None:
        """Keeps a copy of the last checkpoint in best/ if no earlier one had as high a validation mean IoU."""
        best_file = self._model_dir / BEST / BEST_FILE
        best = json.loads(best_file.read_text(encoding="utf-8"))["mean_iou"] if best_file.is_file() else -1.0
        if not self._chief or not mean_iou > best:  # Also where it is no number: nothing was labelled.
            return
        latest = pathlib.Path(self.latest)
        for source in latest.parent.glob(f"{latest.name}.*"):
            with files.written_aside(self._model_dir / BEST / source.name) as aside:
                shutil.copyfile(source, aside)
        # From here on the new one counts; what else lies there is the old one.
        files.write_json(best_file, {"checkpoint": latest.name, "mean_iou": mean_iou})
        for other in best_file.parent.glob("ckpt-*"):
            if other.stem != latest.name:
                other.unlink()

    def clean_up(self) -> None:
        """Removes what a host that is not the chief has saved."""
        if not self._chief:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _last_step(self) -> int:
        return int(self.latest.rsplit("-", 1)[1]) if self.latest else 0

    def _last_good(self) -> str:
        return f"the last good checkpoint is {self.latest}" if self.latest else "there is no earlier checkpoint"

    def _check_finite(self) -> None:
        """A checkpoint never holds weights that are no numbers."""
        for variable in self._checkpoint.model.variables:
            is_number = variable.value.dtype.is_floating  # the state of dropout's random numbers is none
            if is_number and not bool(tf.reduce_all(tf.math.is_finite(variable.value))):
                raise UserError(
                    f"the training diverged: {variable.path} is not finite at step {int(self._step.numpy())}; lower "
                    f"--learning_rate; {self._last_good()}"
                )

    def _remove_remains(self, step: int) -> None:
        """Removes the files of a checkpoint that could not be written."""
        for remains in self._folder.glob(f"ckpt-{step}*"):
            shutil.rmtree(remains) if remains.is_dir() else remains.unlink()


def best_checkpoint(model_dir: str | os.PathLike) -> str | None:
    """Path of the checkpoint with the best validation mean IoU, without suffix; None where there is none."""
    best_file = pathlib.Path(model_dir) / BEST / BEST_FILE
    if not best_file.is_file():
        return None
    return str(best_file.parent / json.loads(best_file.read_text(encoding="utf-8"))["checkpoint"])
