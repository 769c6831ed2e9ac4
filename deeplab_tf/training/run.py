"""A whole training: steps, checkpoints, validation, scalars, progress, through `orbit.Controller`."""

import contextlib
import dataclasses
import io
import pathlib
import time
from collections.abc import Callable, Mapping

import keras
import orbit
import tensorflow as tf
import tqdm

from deeplab_tf.models import DeepLab
from deeplab_tf.training.run_files import CHECKPOINTS
from deeplab_tf.training.trainer import DeepLabTrainer


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """What a training came to.

    Attributes:
        steps: updates made in all, those of earlier starts included.
        seconds: of this start.
        validation: the scalars of the last validation, by name.
        checkpoint: path of the last checkpoint.
    """

    steps: int
    seconds: float
    validation: dict[str, float]
    checkpoint: str


def train(
    model: DeepLab,
    optimizer: keras.optimizers.Optimizer,
    make_dataset: Callable[[int, int, int], tf.data.Dataset],
    *,
    model_dir: str | pathlib.Path,
    strategy: tf.distribute.Strategy,
    max_steps: int,
    batch_size: int,
    accumulation_steps: int = 1,
    steps_per_loop: int = 10,
    checkpoint_every: int = 500,
    max_checkpoints: int = 3,
    eval_every: int = 0,
    validate: Callable[[int], Mapping[str, float]] | None = None,
) -> TrainingResult:
    """Trains a DeepLab, or goes on from the last checkpoint in `model_dir`.

    Args:
        model: built inside the scope of `strategy`.
        optimizer: made inside that scope; its learning-rate schedule counts updates.
        make_dataset: (start_step, host, number of hosts) -> this host's part of the batches from that update on, as
          `deeplab_tf.data.training_pipeline` makes them.
        model_dir: folder of the run; gets checkpoints/, train/ and validation/ (TensorBoard).
        strategy: of the variables.
        max_steps: updates in all.
        batch_size: images per update, over all hosts, replicas and micro-batches.
        accumulation_steps: micro-batches that a replica's part of a batch is split into.
        steps_per_loop: updates between two looks of the host.
        checkpoint_every: updates between checkpoints.
        max_checkpoints: checkpoints to keep.
        eval_every: updates between validations; 0: only at the end.
        validate: (step) -> scalars for TensorBoard and the progress line ("mean_iou"); may draw with tf.summary.

    Raises:
        UserError: the loss became infinite or NaN.
    """
    started = time.monotonic()
    model_dir = pathlib.Path(model_dir)
    with strategy.scope():
        optimizer.build(model.trainable_variables)
    global_step = optimizer.iterations.value
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(model=model, optimizer=optimizer),
        str(model_dir / CHECKPOINTS),
        max_to_keep=max_checkpoints,
        step_counter=global_step,
        checkpoint_interval=checkpoint_every,
    )
    with strategy.scope():
        manager.restore_or_initialize()
    first_step = int(global_step.numpy())

    trainer = DeepLabTrainer(
        model,
        optimizer,
        _distributed(make_dataset, first_step, batch_size, strategy),
        strategy=strategy,
        batch_size=batch_size,
        accumulation_steps=accumulation_steps,
    )
    validator = _Validator(validate or (lambda step: {}), global_step)
    with _ProgressLine(first_step, max_steps, validator, global_step) as progress, _orbit_silenced():
        controller = orbit.Controller(
            global_step=global_step,
            trainer=trainer,
            evaluator=validator,
            strategy=strategy,
            steps_per_loop=min(steps_per_loop, max_steps),
            train_actions=[progress],
            checkpoint_manager=manager,
            summary_dir=str(model_dir / "train"),
            eval_summary_dir=str(model_dir / "validation"),
        )
        if first_step < max_steps:
            controller.train_and_evaluate(train_steps=max_steps, eval_interval=eval_every or None)
        else:
            controller.evaluate()
    return TrainingResult(
        steps=int(global_step.numpy()),
        seconds=time.monotonic() - started,
        validation=validator.scalars,
        checkpoint=manager.latest_checkpoint,
    )


def _distributed(
    make_dataset: Callable[[int, int, int], tf.data.Dataset],
    first_step: int,
    batch_size: int,
    strategy: tf.distribute.Strategy,
) -> tf.distribute.DistributedDataset:
    """Every host makes its part of each batch; its replicas take equal shares of that."""

    def host_dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
        dataset = make_dataset(first_step, context.input_pipeline_id, context.num_input_pipelines)
        per_replica = context.get_per_replica_batch_size(batch_size)
        if context.num_replicas_in_sync > context.num_input_pipelines:
            dataset = dataset.rebatch(per_replica, drop_remainder=True)
        return dataset.prefetch(tf.data.AUTOTUNE)

    return strategy.distribute_datasets_from_function(host_dataset)


class _Validator(orbit.AbstractEvaluator):
    """Calls `validate(step)` where Orbit wants an evaluation."""

    def __init__(self, validate: Callable[[int], Mapping[str, float]], global_step: tf.Variable):
        self._validate = validate
        self._global_step = global_step
        self.scalars: dict[str, float] = {}

    def evaluate(self, num_steps: tf.Tensor) -> dict[str, float]:
        del num_steps  # Always the whole validation set.
        self.scalars = dict(self._validate(int(self._global_step.numpy())))
        return dict(self.scalars)


class _ProgressLine:
    """Orbit's train action: one live line with steps, speed, time left, loss, rate and the last validation."""

    def __init__(self, first_step: int, max_steps: int, validator: _Validator, global_step: tf.Variable):
        self._validator = validator
        self._global_step = global_step
        self._line = tqdm.tqdm(
            desc="train", unit="step", initial=first_step, total=max_steps, dynamic_ncols=True, mininterval=0.5
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._line.close()

    def __call__(self, scalars: Mapping[str, float]) -> None:
        shown = {
            "loss": f"{scalars['loss/total']:.3f}",
            "lr": f"{scalars['learning_rate']:.2e}",
            "images/s": f"{scalars['images_per_second']:.1f}",
        }
        if "mean_iou" in self._validator.scalars:
            shown["val mIoU"] = f"{100 * self._validator.scalars['mean_iou']:.1f}%"
        self._line.set_postfix(shown, refresh=False)
        self._line.update(int(self._global_step.numpy()) - self._line.n)


def _orbit_silenced() -> contextlib.AbstractContextManager:
    """Orbit prints a line per loop to the standard output; the progress line says the same."""
    return contextlib.redirect_stdout(io.StringIO())
