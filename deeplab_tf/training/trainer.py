"""One training step of DeepLab, and the loop around it: Orbit's."""

import time

import keras
import orbit
import tensorflow as tf

from deeplab_tf.errors import UserError
from deeplab_tf.models import DeepLab
from deeplab_tf.training import loss


class DeepLabTrainer(orbit.StandardTrainer):
    """Updates a DeepLab by the gradient of the sum of the losses of its score maps (Sec. 4.2).

    With multi-scale inputs there is one loss for the map of each scale and one for the fused map. Each is the mean
    over all labelled positions of the whole batch, however they are spread over replicas and micro-batches.

    Args:
        model: built inside the scope of `strategy`.
        optimizer: made and built inside that scope.
        dataset: distributed; infinite; {"image": [b, H, W, 3] RGB in 0..255, "label": [b, H, W]} for each replica.
        strategy: of the variables and of the data set.
        batch_size: images per update over all replicas, to report the throughput.
        accumulation_steps: micro-batches to split a replica's batch into; a divisor of b.
        ignore_label: the label of pixels without a class.
    """

    def __init__(
        self,
        model: DeepLab,
        optimizer: keras.optimizers.Optimizer,
        dataset: tf.distribute.DistributedDataset,
        *,
        strategy: tf.distribute.Strategy,
        batch_size: int,
        accumulation_steps: int = 1,
        ignore_label: int = loss.IGNORE_LABEL,
    ):
        super().__init__(dataset, orbit.StandardTrainerOptions(use_tf_while_loop=True))
        self.model = model
        self.optimizer = optimizer
        self.strategy = strategy
        self.batch_size = batch_size
        self.accumulation_steps = accumulation_steps
        self.ignore_label = ignore_label
        with strategy.scope():
            self._steps = _loop_counter("steps")
            self._loss_sums = {name: _loop_counter(name) for name in _score_map_scales(model)}

    def train_loop_begin(self) -> None:
        """Starts the means of the loop anew."""
        self._started = time.monotonic()
        for variable in (self._steps, *self._loss_sums.values()):
            variable.assign(0.0)

    def train_step(self, iterator) -> None:
        """One update, on every replica."""
        losses = self.strategy.run(self._update, args=(next(iterator),))
        for name, value in losses.items():
            self._loss_sums[name].assign_add(self.strategy.reduce("SUM", value, axis=None))
        self._steps.assign_add(1.0)

    def train_loop_end(self) -> dict[str, float]:
        """The scalars of the loop, by their names in TensorBoard."""
        steps = float(self._steps.numpy())
        losses = {f"loss/{name}": float(total.numpy()) / steps for name, total in self._loss_sums.items()}
        scalars = {
            "loss/total": sum(losses.values()),
            **losses,
            "learning_rate": float(self.optimizer.learning_rate),
            "images_per_second": steps * self.batch_size / (time.monotonic() - self._started),
        }
        if not tf.math.is_finite(scalars["loss/total"]):
            raise UserError(
                f"the loss became {scalars['loss/total']} by step {int(self.optimizer.iterations)} at learning rate "
                f"{scalars['learning_rate']:.3g}: lower --learning_rate, or look at the data; "
                "the checkpoints so far are as they were"
            )
        return scalars

    def _update(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One replica's part of one update; returns its share of each loss."""
        labels = {
            name: loss.labels_on_grid(batch["label"], self.model.output_stride, scale)
            for name, scale in _score_map_scales(self.model).items()
        }
        counts = {name: self._labelled_positions(label) for name, label in labels.items()}
        images = tf.split(batch["image"], self.accumulation_steps)
        labels = {name: tf.split(label, self.accumulation_steps) for name, label in labels.items()}

        variables = self.model.trainable_variables
        gradients, shares = None, None
        for i in range(self.accumulation_steps):
            # One micro-batch after the other, so that the activations of one at a time are in memory.
            with tf.control_dependencies(gradients or []):
                micro_images = tf.identity(images[i])
            with tf.GradientTape() as tape:
                losses = {
                    name: loss.summed_cross_entropy(score_map, labels[name][i], self.ignore_label) / counts[name]
                    for name, score_map in self.model.score_maps(micro_images, training=True).items()
                }
                total = tf.add_n(list(losses.values()))
            gradients = _added(gradients, tape.gradient(total, variables))
            shares = _added(shares, list(losses.values()))
        self.optimizer.apply(gradients, variables)
        return dict(zip(losses, shares, strict=True))

    def _labelled_positions(self, labels: tf.Tensor) -> tf.Tensor:
        """Labelled positions of the whole batch, over all replicas, at least 1; float32 []."""
        count = tf.reduce_sum(tf.cast(labels != self.ignore_label, tf.float32))
        return tf.maximum(tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, count), 1.0)


def _score_map_scales(model: DeepLab) -> dict[str, float]:
    """The scale of the input of each map that `model.score_maps` returns; the fused one is on the image's own grid."""
    scales = model.scales if len(model.scales) > 1 else ()
    return {f"scale_{scale:g}": scale for scale in scales} | {"fused": 1.0}


def _added(sums: list[tf.Tensor] | None, values: list[tf.Tensor]) -> list[tf.Tensor]:
    """Element by element; `values` themselves where there is no sum yet."""
    return values if sums is None else [a + b for a, b in zip(sums, values, strict=True)]


def _loop_counter(name: str) -> tf.Variable:
    """A float that a loop adds up on the device."""
    return tf.Variable(0.0, trainable=False, name=name, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)
