"""The training loop on Orbit: one update, the loop over updates, and what happens between loops."""

import contextlib
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import keras
import orbit
import tensorflow as tf
import tqdm

from deeplab_tf import run_folder
from deeplab_tf.classes import IGNORE_LABEL
from deeplab_tf.errors import UserError
from deeplab_tf.models import DeepLab
from deeplab_tf.models.dropout import masks_of_examples
from deeplab_tf.stopping import Stopped, StopRequest
from deeplab_tf.training import diagnosis, loss
from deeplab_tf.training.averaging import WeightAverage
from deeplab_tf.training.checkpoints import Checkpoints
from deeplab_tf.training.distribution import any_of_hosts, is_chief, signal_of_hosts, summed_over_replicas
from deeplab_tf.training.profiling import Profile, peak_memory
from deeplab_tf.training.recipe import Recipe

Validate = Callable[[int, StopRequest], Mapping[str, float]]
_DIVERGED = 1e5  # A sum of mean cross-entropies starts at about ln(classes) per score map.


class DeepLabTrainer(orbit.StandardTrainer):
    """Updates a DeepLab by the gradient of the sum of the losses of its score maps.

    With multi-scale inputs there is one loss for the map of each scale and one for the fused map, as in the release.
    Each is the mean over all labelled positions of the whole batch, however they are spread over replicas and
    micro-batches; with `loss_normalization="image"` the mean over the images of the means over their positions.

    Args:
        model: built inside the scope of `strategy`.
        optimizer: made and built inside that scope; takes gradients that are summed over the replicas (`CaffeSGD`).
        dataset: distributed; infinite; {"image": [b, H, W, 3] RGB in 0..255, "label": [b, H, W]} for each replica.
        step: counts the batches that were used.
        strategy: of the variables and of the data set.
        recipe: batch_size, accumulation_steps, seed, xla and the options of the loss.
        class_weights: weights of the classes in the loss; None: 1 each.
        ignore_label: the label of pixels without a class.
        averaged: the moving average of the weights, updated with them; None: no average.
    """

    def __init__(
        self,
        model: DeepLab,
        optimizer: keras.optimizers.Optimizer,
        dataset: tf.distribute.DistributedDataset,
        *,
        step: tf.Variable,
        strategy: tf.distribute.Strategy,
        recipe: Recipe,
        class_weights: Sequence[float] | None = None,
        ignore_label: int = IGNORE_LABEL,
        averaged: WeightAverage | None = None,
    ):
        super().__init__(dataset, orbit.StandardTrainerOptions(use_tf_while_loop=True))
        self.model = model
        self.optimizer = optimizer
        self.step = step
        self.strategy = strategy
        self.recipe = recipe
        self.class_weights = class_weights
        self.ignore_label = ignore_label
        self.averaged = averaged
        # The scale of the grid on which each of the model's score maps is compared with the labels; and the maps that
        # are interpolated first, as their positions are not on the grid of the unscaled image.
        scales = model.scales if len(model.scales) > 1 else ()
        self.grids = {f"scale_{scale:g}": scale for scale in scales} | {"fused": 1.0}
        off_grid = {name: scale for name, scale in self.grids.items() if not (1 / scale).is_integer()}
        self.interpolated = off_grid if recipe.interpolated_losses else {}
        self.grids |= dict.fromkeys(self.interpolated, 1.0)
        compute = self._losses_and_gradients
        self._compute = tf.function(compute, jit_compile=True) if recipe.xla else compute
        counter = {"trainable": False, "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA}
        with strategy.scope():
            self._loop_steps = tf.Variable(0.0, name="loop_steps", **counter)
            self._loss_sums = {name: tf.Variable(0.0, name=name, **counter) for name in self.grids}
            self._norm_sum = tf.Variable(0.0, name="gradient_norm", **counter)

    def train_loop_begin(self) -> None:
        """Starts the means of the loop anew."""
        self._started = time.monotonic()
        for variable in (self._loop_steps, self._norm_sum, *self._loss_sums.values()):
            variable.assign(0.0)

    @tf.autograph.experimental.do_not_convert  # There is no `if` or `for` over tensors in it.
    def train_step(self, iterator) -> None:
        """One update, on every replica."""
        losses, norm = self.strategy.run(self._update, args=(next(iterator), self.step.read_value()))
        for name, value in losses.items():
            self._loss_sums[name].assign_add(self.strategy.reduce("SUM", value, axis=None))
        self._norm_sum.assign_add(self.strategy.experimental_local_results(norm)[0])  # the same on every replica
        if self.averaged:
            self.averaged.update(self.step.read_value())
        self._loop_steps.assign_add(1.0)
        self.step.assign_add(1)

    def train_loop_end(self) -> dict[str, float]:
        """The scalars of the loop, by their names in TensorBoard.

        Raises:
            UserError: a loss is infinite or NaN, or has exploded.
        """
        steps = float(self._loop_steps.numpy())
        losses = {f"loss/{name}": float(total.numpy()) / steps for name, total in self._loss_sums.items()}
        total = sum(losses.values())
        learning_rate = float(tf.convert_to_tensor(self.optimizer.learning_rate))
        if not total < _DIVERGED:
            raise UserError(
                f"the training diverged: the loss became {total:.3g} by step {int(self.step.numpy())} at learning rate "
                f"{learning_rate:.3g}; lower --learning_rate, or look at the data and --initial_weights"
            )
        steps_per_second = steps / (time.monotonic() - self._started)
        return {
            "loss/total": total,
            **losses,
            "gradient_norm": float(self._norm_sum.numpy()) / steps,
            "learning_rate": learning_rate,
            "steps_per_second": steps_per_second,
            "images_per_second": steps_per_second * self.recipe.batch_size,
            **peak_memory(),
        }

    def _update(self, batch: dict[str, tf.Tensor], step: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """One replica's part of one update.

        Returns:
            its share of each loss, and the norm of the gradient of the whole batch, before clipping.
        """
        label = tf.cast(batch["label"], tf.int64)  # GPUs have no gather of uint8.
        labels = [loss.labels_on_grid(label, self.model.output_stride, grid) for grid in self.grids.values()]
        by_image = self.recipe.loss_normalization == "image"
        weights = [loss.position_weights(label, self.ignore_label, self.class_weights, by_image) for label in labels]
        totals = summed_over_replicas([tf.reduce_sum(weight) for weight in weights])
        replica = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int64)
        share = self.recipe.batch_size // self.strategy.num_replicas_in_sync
        positions = step * self.recipe.batch_size + replica * share + tf.range(share, dtype=tf.int64)

        sums = None
        for part in range(self.recipe.accumulation_steps):
            images, *micro_batch = tf.nest.map_structure(
                lambda whole, part=part: tf.split(whole, self.recipe.accumulation_steps)[part],
                (batch["image"], labels, weights, positions),
            )
            # One micro-batch after the other, so that the activations of one at a time are in memory.
            with tf.control_dependencies(tf.nest.flatten(sums) if sums else []):
                images = tf.identity(images)
            of_part = self._compute(images, *micro_batch, totals)
            sums = tf.nest.map_structure(tf.add, sums, of_part) if sums else of_part
        losses, gradients = sums
        gradients = summed_over_replicas(gradients)
        norm = tf.linalg.global_norm(gradients) / self.optimizer.scale_loss(1.0)
        self.optimizer.apply(gradients, self.model.trainable_variables)
        return dict(zip(self.grids, losses, strict=True)), norm

    def _losses_and_gradients(self, images, labels, weights, positions, totals) -> tuple[list, list]:
        """Of one micro-batch: its share of each loss, and the gradient of their sum."""
        with tf.GradientTape() as tape, masks_of_examples(self.recipe.seed, positions):
            score_maps = self.model.score_maps(images, training=True)
            for name, scale in self.interpolated.items():
                sides, stride = images.shape[1:3], self.model.output_stride
                score_maps[name] = loss.interpolated_to_labels(score_maps[name], scale, *sides, stride)
            losses = [
                loss.summed_cross_entropy(score_maps[name], label, weight, self.recipe.hard_fraction)
                / tf.maximum(total, 1e-6)
                for name, label, weight, total in zip(self.grids, labels, weights, totals, strict=True)
            ]
            scaled = self.optimizer.scale_loss(tf.add_n(losses))
        return losses, tape.gradient(scaled, self.model.trainable_variables)


def run(
    trainer: DeepLabTrainer,
    checkpoints: Checkpoints,
    validate: Validate,
    model_dir: pathlib.Path,
    on_loop: Callable[[int, Mapping[str, float]], None] | None = None,
) -> None:
    """Trains up to `max_steps`, from the step that the checkpoints restored; saves, validates, shows progress.

    Validations are those of the multiples of `eval_every` and of the last step, wherever the run was stopped: one that
    a stop cut off is made first.

    Args:
        trainer: makes the updates; its recipe says how many, and when to look.
        checkpoints: of its model, optimizer and step, restored.
        validate: (step, stop) -> scalars; raises `Stopped` when `stop` has received a signal.
        model_dir: folder of the run.
        on_loop: called after every loop with the step and the scalars of the loop.

    Raises:
        UserError: the loss diverged, or the disk is full.
        Stopped: SIGTERM or Ctrl-C came; the state is saved.
    """
    step, recipe, chief = trainer.step, trainer.recipe, is_chief(trainer.strategy)
    stop = StopRequest(
        lambda: (
            f"stopping: within {recipe.steps_per_loop} updates a checkpoint is saved; Ctrl-C again ends at once "
            f"and loses the updates since {checkpoints.latest or 'the start'}"
        )
    )
    signal_number, any_host = signal_of_hosts(trainer.strategy, stop), any_of_hosts(trainer.strategy)
    profile = Profile(recipe.profile_steps, model_dir / run_folder.TRAIN_EVENTS)
    train_events, validation_events = (
        tf.summary.create_file_writer(str(model_dir / name)) if chief else tf.summary.create_noop_writer()
        for name in (run_folder.TRAIN_EVENTS, run_folder.VALIDATION_EVENTS)
    )
    progress = {"desc": "train", "unit": "step", "dynamic_ncols": True, "mininterval": 0.5, "disable": not chief}
    line = tqdm.tqdm(initial=int(step.numpy()), total=recipe.max_steps, **progress)
    with line, stop.listening(), contextlib.closing(profile):
        while True:
            now = int(step.numpy())
            validates = now >= recipe.max_steps or bool(recipe.eval_every and now and now % recipe.eval_every == 0)
            checkpoints.save(if_due=not validates)
            if validates and chief and now not in checkpoints.validations:
                # All hosts stop below, and the next start validates first.
                with contextlib.suppress(Stopped), validation_events.as_default(now):
                    scalars = validate(now, stop)
                    _write(scalars, validation_events, now)
                    checkpoints.record(scalars)
            if number := signal_number():
                checkpoints.save()
                print(f"\nstopped, all is in {checkpoints.latest}; the same command resumes there", file=sys.stderr)
                raise Stopped(number)
            if now >= recipe.max_steps:
                return
            if validates and recipe.patience and any_host([chief and checkpoints.waited() >= recipe.patience])[0]:
                if chief:
                    diagnosis.tell(f"ended at step {now} by --patience={recipe.patience}: the mean IoU did not rise")
                return

            profile.before(now)
            end = _end_of_loop(now, recipe)
            scalars = trainer.train(tf.constant(end - now))
            _write(scalars, train_events, end)
            line.set_postfix(_shown(scalars, checkpoints.last_validation()), refresh=False)
            line.update(end - now)
            if on_loop:
                on_loop(end, scalars)


def _end_of_loop(step: int, recipe: Recipe) -> int:
    """The step at which the host looks next: after a loop, at a validation, at an end of the profile.

    The first two updates are loops of their own: one that compiles, and one that tells how long the others will take.
    """
    ends = [(step // recipe.steps_per_loop + 1) * recipe.steps_per_loop, recipe.max_steps]
    ends += range(1, diagnosis.TIMED_STEP + 1)
    if recipe.eval_every:
        ends.append((step // recipe.eval_every + 1) * recipe.eval_every)
    if recipe.profile_steps:
        ends += [recipe.profile_steps[0] - 1, recipe.profile_steps[1]]
    return min(end for end in ends if end > step)


def _write(scalars: Mapping[str, float], events: tf.summary.SummaryWriter, step: int) -> None:
    """Writes scalars for TensorBoard."""
    with events.as_default(step):
        for name, value in scalars.items():
            tf.summary.scalar(name, value)
    events.flush()


def _shown(scalars: Mapping[str, float], validation: Mapping[str, float]) -> dict[str, str]:
    """Entries of the line of progress, of a loop and of the last validation."""
    shown = {"loss": f"{scalars['loss/total']:.3f}", "lr": f"{scalars['learning_rate']:.2e}"}
    shown["images/s"] = f"{scalars['images_per_second']:.1f}"
    if "mean_iou" in validation:
        shown["val mIoU"] = f"{100 * validation['mean_iou']:.1f}%"
    return shown
