"""Which devices and hosts a training uses."""

import tensorflow as tf

from deeplab_tf.errors import UserError


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
