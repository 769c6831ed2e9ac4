"""Warm-up requests: TF Serving runs them when it loads a version, so that no user's request is the slow first one."""

import math
import pathlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

WARMUP_FILE = pathlib.PurePath("assets.extra", "tf_serving_warmup_requests")

# Height and width of the image in the requests, pixels, where that is not too large for the model.
_SIZE = 513


def write_warmup_requests(
    version: pathlib.Path, signatures: Mapping[str, tf.types.experimental.ConcreteFunction], max_pixels: int
) -> bool:
    """Writes a request of one image for every signature, as TFRecords of `PredictionLog` messages.

    Args:
        version: folder of a SavedModel; the file is `assets.extra/tf_serving_warmup_requests` in it.
        signatures: of the model, by name; each with one input, uint8 [B, H, W, 3] or encoded images, string [B].
        max_pixels: of an image.

    Returns:
        whether there is such a file now: not without the package tensorflow-serving-api, which has the messages.
    """
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError:
        return False
    image = _image(min(_SIZE, math.isqrt(max_pixels)))
    path = version / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name, signature in signatures.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = name
            for spec in tf.nest.flatten(signature.structured_input_signature):
                value = image if spec.dtype == tf.uint8 else tf.io.encode_png(image).numpy()
                request.inputs[spec.name].CopyFrom(tf.make_tensor_proto(np.array([value]), spec.dtype))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())
    return True


def _image(size: int) -> np.ndarray:
    """A few colours that change slowly, as a photograph's do: uint8 [size, size, 3]."""
    ramp = np.linspace(0, 255, size, dtype=np.float32)
    across, down = np.broadcast_arrays(ramp[np.newaxis, :], ramp[:, np.newaxis])
    return np.stack([across, down, (across + down) / 2], axis=-1).astype(np.uint8)
