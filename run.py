"""A whole training: steps, checkpoints, validation, scalars, progress, through `orbit.Controller`."""

import contextlib
import dataclasses
import io
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import keras
import orbit
import tensorflow as tf
import tqdm

from deeplab_tf.errors import UserError
from deeplab_tf.models import DeepLab
from deeplab_tf.stopping import Stopped, StopRequest
from deeplab_tf.training.checkpoints import Checkpoints
from deeplab_tf.training.distribution import is_chief
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
    class_weights: Sequence[float] | None = None,
    hard_fraction: float = 1.0,
    steps_per_loop: int = 10,
    checkpoint_every: int = 500,
    max_checkpoints: int = 3,
    eval_every: int = 0,
    validate: Callable[[int], Mapping[str, float]] | None = None,
    profile_steps: tuple[int, int] | None = None,
) -> TrainingResult:
    """Trains a DeepLab, or goes on from the last whole checkpoint in `model_dir`.

    Stopped at any moment and started again with the same arguments, the run ends as one that was never stopped: the
    weights, the optimizer, the place in the data and what is drawn at random all go on.

    Args:
        model: built inside the scope of `strategy`.
        optimizer: made inside that scope; its learning-rate schedule counts updates.
        make_dataset: (start_step, host, number of hosts) -> this host's part of the batches from that update on, as
            `deeplab_tf.data.training_pipeline` makes them.
        model_dir: folder of the run, shared by all hosts; gets checkpoints/, best/, and train/ and validation/ for
            TensorBoard.
        strategy: of the variables.
        max_steps: updates in all.
        batch_size: images per update, over all hosts, replicas and micro-batches.
        accumulation_steps: micro-batches that a replica's part of a batch is split into.
        class_weights: weights of the classes in the loss; None: 1 each, as in the paper.
        hard_fraction: of the labelled positions, those of the largest loss, that count; 1, all, in the paper.
        steps_per_loop: updates between two looks of the host.
        checkpoint_every: updates between checkpoints.
        max_checkpoints: checkpoints to keep.
        eval_every: updates between validations; 0: only at the end.
        validate: (step) -> scalars for TensorBoard and the progress line; may draw with `tf.summary`. The checkpoint
            with the highest "mean_iou" is kept in best/.
        profile_steps: first and last update of which TensorBoard gets a profile.

    Raises:
        UserError: the batch does not divide evenly, the loss became infinite or NaN, the disk is full.
        Stopped: SIGTERM or Ctrl-C came; the state is saved.
    """
    started = time.monotonic()
    model_dir = pathlib.Path(model_dir)
    _check_division(batch_size, strategy.num_replicas_in_sync, accumulation_steps)
    with strategy.scope():
        optimizer.build(model.trainable_variables)
        step = orbit.utils.create_global_step()
        checkpoints = Checkpoints(
            model_dir,
            tf.train.Checkpoint(model=model, optimizer=optimizer, step=step),
            step,
            every=checkpoint_every,
            keep=max_checkpoints,
            chief=is_chief(strategy),
        )
        checkpoints.restore()
    first_step = int(step.numpy())
    _check_same_step(first_step, strategy, model_dir)

    trainer = DeepLabTrainer(
        model,
        optimizer,
        _distributed(make_dataset, first_step, batch_size, strategy),
        step=step,
        strategy=strategy,
        batch_size=batch_size,
        accumulation_steps=accumulation_steps,
        class_weights=class_weights,
        hard_fraction=hard_fraction,
    )
    stop = StopRequest(strategy)

    def save_or_stop(scalars: Mapping[str, float]) -> None:
        signal_number = stop.signal_number()
        checkpoints.save(if_due=not signal_number)
        if signal_number:
            print(f"\nstopped, all is in {checkpoints.latest}; the same command goes on from there", file=sys.stderr)
            raise Stopped(signal_number)

    validator = _Validator(validate if is_chief(strategy) else None, checkpoints, step)
    with (
        _ProgressLine(first_step, max_steps, validator, step, shown=is_chief(strategy)) as progress,
        _orbit_silenced(),
        stop.listening(),
    ):
        controller = orbit.Controller(
            global_step=step,
            trainer=trainer,
            evaluator=validator,
            strategy=strategy,
            steps_per_loop=min(steps_per_loop, max_steps),
            train_actions=[progress, save_or_stop, _Profiler(profile_steps, step, model_dir / "train")],
            summary_dir=str(model_dir / "train") if is_chief(strategy) else None,
            eval_summary_dir=str(model_dir / "validation") if is_chief(strategy) else None,
        )
        if first_step < max_steps:
            controller.train_and_evaluate(train_steps=max_steps, eval_interval=eval_every or None)
        else:
            controller.evaluate()
    checkpoints.clean_up()
    return TrainingResult(int(step.numpy()), time.monotonic() - started, validator.scalars, checkpoints.latest)


def _check_division(batch_size: int, replicas: int, accumulation_steps: int) -> None:
    if batch_size % (replicas * accumulation_steps):
        raise UserError(
            f"--batch_size={batch_size} cannot be shared evenly by {replicas} replicas with "
            f"--accumulation_steps={accumulation_steps}; expected a multiple of {replicas * accumulation_steps}"
        )


def _check_same_step(step: int, strategy: tf.distribute.Strategy, model_dir: pathlib.Path) -> None:
    """All hosts must go on from the same step."""

    @tf.function
    def summed():
        return strategy.reduce("SUM", strategy.run(lambda: tf.constant(float(step))), axis=None)

    if float(summed()) != step * strategy.num_replicas_in_sync:
        raise UserError(
            f"--model_dir={model_dir} must be one folder that all hosts share; they found other checkpoints"
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
        if context.num_replicas_in_sync > context.num_input_pipelines:
            dataset = dataset.rebatch(context.get_per_replica_batch_size(batch_size), drop_remainder=True)
        return dataset.prefetch(tf.data.AUTOTUNE)

    return strategy.distribute_datasets_from_function(host_dataset)


class _Validator(orbit.AbstractEvaluator):
    """Where Orbit wants an evaluation: saves a checkpoint, calls `validate(step)`, keeps the best checkpoint."""

    def __init__(
        self, validate: Callable[[int], Mapping[str, float]] | None, checkpoints: Checkpoints, step: tf.Variable
    ):
        self._validate = validate or (lambda step: {})
        self._checkpoints = checkpoints
        self._step = step
        self.scalars: dict[str, float] = {}

    def evaluate(self, num_steps: tf.Tensor) -> dict[str, float]:
        del num_steps  # Always the whole validation set.
        self._checkpoints.save()
        self.scalars = dict(self._validate(int(self._step.numpy())))
        if "mean_iou" in self.scalars:
            self._checkpoints.keep_best(self.scalars["mean_iou"])
        return dict(self.scalars)


class _ProgressLine:
    """Orbit's train action: one live line with steps, speed, time left, loss, rate and the last validation."""

    def __init__(self, first_step: int, max_steps: int, validator: _Validator, step: tf.Variable, shown: bool):
        self._validator = validator
        self._step = step
        self._line = tqdm.tqdm(
            desc="train",
            unit="step",
            initial=first_step,
            total=max_steps,
            dynamic_ncols=True,
            mininterval=0.5,
            disable=not shown,
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
        self._line.update(int(self._step.numpy()) - self._line.n)


class _Profiler:
    """Orbit's train action: a profile of the loops that hold the steps asked for."""

    def __init__(self, steps: tuple[int, int] | None, step: tf.Variable, folder: pathlib.Path):
        self._first, self._last = steps or (0, -1)
        self._step = step
        self._folder = str(folder)
        self._running = False

    def __call__(self, scalars: Mapping[str, float]) -> None:
        step = int(self._step.numpy())
        if self._running and step >= self._last:
            tf.profiler.experimental.stop()
            self._running, self._last = False, -1
        elif not self._running and self._first <= step + 1 <= self._last:
            tf.profiler.experimental.start(self._folder)
            self._running = True


@contextlib.contextmanager
def _orbit_silenced() -> Iterator[None]:
    """Orbit prints a line per loop to the standard output; the progress line says the same."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
