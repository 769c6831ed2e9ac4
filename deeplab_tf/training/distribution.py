"""Devices and hosts of a training: the strategy, each one's part of the data, and what all hosts must agree on."""

import pathlib
from collections.abc import Callable, Sequence

import tensorflow as tf

from deeplab_tf.errors import UserError
from deeplab_tf.stopping import SIGNALS, StopRequest


def make_strategy(name: str = "auto", tpu: str = "") -> tf.distribute.Strategy:
    """The distribution strategy of a training; make model and optimizer inside its scope.

    For several hosts, make it before anything else of TensorFlow runs.

    Args:
        name: "auto" (several hosts where TF_CONFIG names a cluster, else all local GPUs), "one_device", "mirrored" (all
            local GPUs, or all logical CPU devices where there is no GPU), "multi_worker" (TF_CONFIG names the hosts),
            or "tpu".
        tpu: name or address of the TPU; "" or "local" for the one of this machine.

    Raises:
        UserError: the name is none of these, or there is no such device.
    """
    cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec().as_dict()
    if name == "auto" and cluster:
        name = "multi_worker"
    if name == "multi_worker":
        if not cluster:
            raise UserError(
                "strategy: multi_worker needs the environment variable TF_CONFIG, the cluster and this task, such "
                'as {"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
            )
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "tpu":
        try:
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(tpu)
        except (tf.errors.OpError, ValueError) as error:
            raise UserError(f"strategy: found no TPU {tpu!r} ({str(error).splitlines()[0]}); see --tpu") from None
        return tf.distribute.TPUStrategy(resolver)
    gpus = tf.config.list_logical_devices("GPU")
    if name == "auto":
        name = "mirrored" if len(gpus) > 1 else "one_device"
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")
    if name == "mirrored":
        return tf.distribute.MirroredStrategy([device.name for device in gpus or tf.config.list_logical_devices("CPU")])
    raise UserError(f"strategy: found {name!r}, expected auto, one_device, mirrored, multi_worker or tpu")


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this host is the one that writes what stays: the only one, or the first of several."""
    resolver = strategy.cluster_resolver
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or resolver is None:
        return True
    return resolver.task_type in (None, "chief") or (
        resolver.task_type == "worker" and resolver.task_id == 0 and "chief" not in resolver.cluster_spec().as_dict()
    )


def distributed(
    make_dataset: Callable[[int, int], tf.data.Dataset], batch_size: int, strategy: tf.distribute.Strategy
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Every host makes its part of each batch; its replicas take equal shares of that.

    Args:
        make_dataset: (host, number of hosts) -> this host's part of every batch.
        batch_size: images of a batch over all hosts.
        strategy: of the replicas.
    """

    def host_dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
        dataset = make_dataset(context.input_pipeline_id, context.num_input_pipelines)
        if context.num_replicas_in_sync > context.num_input_pipelines:
            dataset = dataset.rebatch(context.get_per_replica_batch_size(batch_size), drop_remainder=True)
        return dataset.prefetch(2)

    if isinstance(strategy, tf.distribute.OneDeviceStrategy) and "CPU" in strategy.extended.worker_devices[0]:
        # The iterators that a strategy makes for its devices are tuned whatever the dataset says (`pipeline._stream`).
        return host_dataset(tf.distribute.InputContext())
    return strategy.distribute_datasets_from_function(host_dataset)


def summed_over_replicas(values):
    """The sum over all replicas and hosts of a tensor, or of each tensor of a list; within `strategy.run`."""
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)


def check_same_step(step: int, strategy: tf.distribute.Strategy, model_dir: pathlib.Path) -> None:
    """Raises a UserError where the hosts go on from different steps."""

    @tf.function
    def summed():
        return strategy.reduce("SUM", strategy.run(lambda: tf.constant(float(step))), axis=None)

    if float(summed()) != step * strategy.num_replicas_in_sync:
        raise UserError(
            f"--model_dir={model_dir} must be one folder that all hosts share; they found different checkpoints"
        )


def signal_of_hosts(strategy: tf.distribute.Strategy, stop: StopRequest) -> Callable[[], int]:
    """A function that returns the signal that any host has received, or 0; all hosts must call it at the same step."""
    any_host = any_of_hosts(strategy)

    def signal_number() -> int:
        received = any_host([stop.signal_number() == number for number in SIGNALS])
        return next((int(number) for number, was in zip(SIGNALS, received, strict=True) if was), 0)

    return signal_number


def any_of_hosts(strategy: tf.distribute.Strategy) -> Callable[[Sequence[bool]], list[bool]]:
    """A function that tells, of each of some statements, whether any host makes it; all hosts must call it together."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return list

    @tf.function
    def summed(made: tf.Tensor) -> tf.Tensor:
        return strategy.reduce("SUM", strategy.run(tf.identity, args=(made,)), axis=None)

    return lambda made: [bool(hosts) for hosts in summed(tf.constant(made, tf.float32)).numpy()]
