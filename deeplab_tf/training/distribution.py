"""Which devices and hosts a training uses."""

import tensorflow as tf

from deeplab_tf.errors import UserError


def make_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """The distribution strategy of a training; make model and optimizer inside its scope.

    Args:
        name: "auto" (several hosts where TF_CONFIG names a cluster, else all local GPUs), "one_device", "mirrored" (all
          local GPUs, or all logical CPU devices where there is no GPU), or "multi_worker" (TF_CONFIG names the hosts).

    Raises:
        UserError: the name is none of these.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if name == "auto":
        if tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec().as_dict():
            name = "multi_worker"
        else:
            name = "mirrored" if len(gpus) > 1 else "one_device"
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")
    if name == "mirrored":
        return tf.distribute.MirroredStrategy([device.name for device in gpus or tf.config.list_logical_devices("CPU")])
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    raise UserError(f"strategy: found {name!r}, expected auto, one_device, mirrored or multi_worker")
