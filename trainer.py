"""One training step of DeepLab: the loss of its score maps, the gradient over all replicas, one update."""

import resource
import time
from collections.abc import Sequence

import keras
import orbit
import tensorflow as tf

from deeplab_tf.errors import UserError
from deeplab_tf.models import DeepLab
from deeplab_tf.training import loss
from deeplab_tf.training.network import training_network


class DeepLabTrainer(orbit.StandardTrainer):
    """Updates a DeepLab by the gradient of the sum of the losses of its score maps (Sec. 4.2).

    With multi-scale inputs there is one loss for the map of each scale and one for the fused map. Each is the mean
    over all labelled positions of the whole batch, however they are spread over replicas and micro-batches.

    Args:
        model: built inside the scope of `strategy`.
        optimizer: made and built inside that scope; takes gradients that are summed over the replicas (`CaffeSGD`).
        dataset: distributed; infinite; {"image": [b, H, W, 3] RGB in 0..255, "label": [b, H, W]} for each replica.
        step: counts the batches that were used.
        strategy: of the variables and of the data set.
        batch_size: images per update over all replicas, to report the throughput.
        accumulation_steps: micro-batches to split a replica's batch into; a divisor of b.
        class_weights: weights of the classes in the loss; None: 1 each.
        hard_fraction: of the positions that count, those with the largest loss.
        ignore_label: the label of pixels without a class.
    """

    def __init__(
        self,
        model: DeepLab,
        optimizer: keras.optimizers.Optimizer,
        dataset: tf.distribute.DistributedDataset,
        *,
        step: tf.Variable,
        strategy: tf.distribute.Strategy,
        batch_size: int,
        accumulation_steps: int = 1,
        class_weights: Sequence[float] | None = None,
        hard_fraction: float = 1.0,
        ignore_label: int = loss.IGNORE_LABEL,
    ):
        super().__init__(dataset, orbit.StandardTrainerOptions(use_tf_while_loop=True))
        self.model = model
        self.optimizer = optimizer
        self.step = step
        self.strategy = strategy
        self.batch_size = batch_size
        self.accumulation_steps = accumulation_steps
        self.class_weights = class_weights
        self.hard_fraction = hard_fraction
        self.ignore_label = ignore_label
        with strategy.scope():
            self._loop_steps = _loop_counter("loop_steps")
            self._loss_sums = {name: _loop_counter(name) for name in _score_map_scales(model)}

    def train_loop_begin(self) -> None:
        """Starts the means of the loop anew."""
        self._started = time.monotonic()
        for variable in (self._loop_steps, *self._loss_sums.values()):
            variable.assign(0.0)

    def train_step(self, iterator) -> None:
        """One update, on every replica."""
        losses = self.strategy.run(self._update, args=(next(iterator),))
        for name, value in losses.items():
            self._loss_sums[name].assign_add(self.strategy.reduce("SUM", value, axis=None))
        self._loop_steps.assign_add(1.0)
        self.step.assign_add(1)

    def train_loop_end(self) -> dict[str, float]:
        """The scalars of the loop, by their names in TensorBoard.

        Raises:
            UserError: a loss is infinite or no number.
        """
        steps = float(self._loop_steps.numpy())
        losses = {f"loss/{name}": float(total.numpy()) / steps for name, total in self._loss_sums.items()}
        total = sum(losses.values())
        learning_rate = float(tf.convert_to_tensor(self.optimizer.learning_rate))
        if not tf.math.is_finite(total):
            raise UserError(
                f"the training diverged: the loss became {total} by step {int(self.step.numpy())} at learning rate "
                f"{learning_rate:.3g}; lower --learning_rate, or look at the data"
            )
        return {
            "loss/total": total,
            **losses,
            "learning_rate": learning_rate,
            "images_per_second": steps * self.batch_size / (time.monotonic() - self._started),
            **_peak_memory(),
        }

    def _update(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One replica's part of one update; returns its share of each loss."""
        scales = _score_map_scales(self.model)
        labels = {
            name: loss.labels_on_grid(batch["label"], self.model.output_stride, scale) for name, scale in scales.items()
        }
        weights = {
            name: loss.position_weights(label, self.ignore_label, self.class_weights) for name, label in labels.items()
        }
        totals = {name: _summed_over_replicas(tf.reduce_sum(weight)) for name, weight in weights.items()}
        micro_batches = [
            tf.nest.map_structure(lambda part, i=i: tf.split(part, self.accumulation_steps)[i], (labels, weights))
            for i in range(self.accumulation_steps)
        ]

        variables = self.model.trainable_variables
        gradients, shares = None, None
        for images, (label, weight) in zip(
            tf.split(batch["image"], self.accumulation_steps), micro_batches, strict=True
        ):
            # One micro-batch after the other, so that the activations of one at a time are in memory.
            with tf.control_dependencies(gradients or []):
                images = tf.identity(images)
            with tf.GradientTape() as tape:
                score_maps = self.model.score_maps(images, training=True, network=training_network(self.model))
                losses = [
                    loss.summed_cross_entropy(score_map, label[name], weight[name], self.hard_fraction)
                    / tf.maximum(totals[name], 1e-6)
                    for name, score_map in score_maps.items()
                ]
                scaled = self.optimizer.scale_loss(tf.add_n(losses))
            gradients = _added(gradients, tape.gradient(scaled, variables))
            shares = _added(shares, losses)
        self.optimizer.apply(_summed_over_replicas(gradients), variables)
        return dict(zip(scales, shares, strict=True))


def _score_map_scales(model: DeepLab) -> dict[str, float]:
    """The scale of the input of each map that `model.score_maps` returns, in that order; the fused one is unscaled."""
    scales = model.scales if len(model.scales) > 1 else ()
    return {f"scale_{scale:g}": scale for scale in scales} | {"fused": 1.0}


def _summed_over_replicas(values):
    """The sum over all replicas and hosts of a tensor, or of each tensor of a list."""
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)


def _added(sums: list[tf.Tensor] | None, values: list[tf.Tensor]) -> list[tf.Tensor]:
    """Element by element; `values` themselves where there is no sum yet."""
    return values if sums is None else [a + b for a, b in zip(sums, values, strict=True)]


def _peak_memory() -> dict[str, float]:
    """The most memory used so far, GiB, of this process and of each GPU."""
    peaks = {"memory_gib/host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    for device in tf.config.list_logical_devices("GPU"):
        gpu = device.name.removeprefix("/device:")
        peaks[f"memory_gib/{gpu.replace(':', '_')}"] = tf.config.experimental.get_memory_info(gpu)["peak"] / 2**30
    return peaks


def _loop_counter(name: str) -> tf.Variable:
    """A float that a loop adds up on the device."""
    return tf.Variable(0.0, trainable=False, name=name, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)
