"""Caffe's `.caffemodel`: the models released with the paper, in either generation of the format."""

import functools
import math
import pathlib
import re

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from deeplab_tf.errors import UserError
from deeplab_tf.weights.imagenet import fully_connected
from deeplab_tf.weights.source import EPSILON, Source, fold_biases

# The part of caffe.proto that holds weights: message -> field -> (number, type). A list type is a repeated field.
_MESSAGES = {
    "BlobShape": {"dim": (1, ["int64"])},
    "BlobProto": {
        **{"num": (1, "int32"), "channels": (2, "int32"), "height": (3, "int32"), "width": (4, "int32")},
        **{"data": (5, ["float"]), "shape": (7, "BlobShape"), "double_data": (8, ["double"])},
    },
    "BatchNormParameter": {"eps": (3, "float")},
    "LayerParameter": {
        **{"name": (1, "string"), "type": (2, "string"), "blobs": (7, ["BlobProto"])},
        "batch_norm_param": (139, "BatchNormParameter"),
    },
    "V1LayerParameter": {"name": (4, "string"), "type": (5, "int32"), "blobs": (6, ["BlobProto"])},
    "NetParameter": {"name": (1, "string"), "layers": (2, ["V1LayerParameter"]), "layer": (100, ["LayerParameter"])},
}
# The branches of the other scales of the image, which share the blobs of the first.
_OTHER_SCALES = re.compile(r"_res0?\d+$")


def read(path: pathlib.Path, model, seed: int) -> Source:
    """Reads a caffemodel."""
    net = _net_parameter()()
    net.ParseFromString(path.read_bytes())
    messages = [message for message in (*net.layer, *net.layers) if message.blobs]
    if not messages:
        raise UserError(f"{path} holds no layers with blobs; is it a whole caffemodel?")

    layers, epsilons, repeated = {}, {}, []
    for message in messages:
        if _OTHER_SCALES.search(message.name):
            repeated.append(message)
            continue
        name, arrays = _layer(message, path)
        layers.setdefault(name, {}).update(arrays)
        if "moving_variance" in arrays and message.batch_norm_param.HasField("eps"):
            epsilons[name] = message.batch_norm_param.eps
    for name, epsilon in epsilons.items():
        layers[name]["moving_variance"] += np.float32(epsilon - np.float32(EPSILON))
    fold_biases(layers)

    notes = []
    if repeated:
        notes.append(
            f"{len(repeated)} layers repeat these for the other scales of the image; here the scales share them"
        )
        own = _unshared(repeated, {message.name: message for message in messages})
        if own:
            notes.append(f"{len(own)} of them, such as {own[0]}, have weights of their own, which are left")
    if layers.get("fc6", {}).get("kernel", np.empty(0)).ndim == 2 and model.backbone == "vgg16":
        fc6, fc7 = layers.pop("fc6"), layers.pop("fc7")
        fc6["kernel"] = fc6["kernel"].T.reshape(-1, 512, 7, 7).transpose(2, 3, 1, 0)  # Caffe flattens [c, h, w].
        layers |= fully_connected(fc6, fc7, model, seed)
        notes.append(f"fc6 and fc7 are the dense layers, subsampled (seed {seed})")
    return Source("Caffe", layers, preprocessing="caffe", bottleneck="caffe", notes=notes)


def _layer(message, path: pathlib.Path) -> tuple[str, dict[str, np.ndarray]]:
    """Our name and layout of one layer's blobs."""
    blobs = [_array(blob, message.name, path) for blob in message.blobs]
    if message.type == "BatchNorm":
        if len(blobs) != 3:
            raise UserError(
                f"{path}: layer {message.name}: found {len(blobs)} blobs, expected mean, variance and factor"
            )
        mean, variance, (factor,) = (blob.reshape(-1) for blob in blobs)
        scale = np.float32(0 if factor == 0 else 1 / factor)
        return message.name, {"moving_mean": mean * scale, "moving_variance": variance * scale}
    if message.type == "Scale":
        name = re.sub(r"^scale", "bn", message.name)
        return name, dict(zip(("gamma", "beta"), (blob.reshape(-1) for blob in blobs), strict=False))
    kernel = blobs[0].squeeze((0, 1)) if _is_legacy_matrix(blobs[0]) else blobs[0]
    arrays = {"kernel": kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T}
    if len(blobs) > 1:
        arrays["bias"] = blobs[1].reshape(-1)
    return _classifier_name(message.name), arrays


def _is_legacy_matrix(blob: np.ndarray) -> bool:
    """Whether a dense layer's matrix [out, in] is written as [1, 1, out, in], as older files do."""
    return blob.ndim == 4 and blob.shape[:2] == (1, 1) and blob.shape[2] > 1 and blob.shape[3] > 1


def _classifier_name(name: str) -> str:
    """Without the data set: fc1_voc12_c0 -> fc1_c0, fc8_voc12_1 -> fc8_1, fc8_pascal -> fc8."""
    match = re.fullmatch(r"(fc1|fc8)[_-].*?(?:_(c?\d))?", name)
    return name if match is None else match[1] + (f"_{match[2]}" if match[2] else "")


def _array(blob, layer: str, path: pathlib.Path) -> np.ndarray:
    """A blob as float32."""
    data = _values(blob)
    values = np.fromiter(data, np.float32, len(data))
    shape = list(blob.shape.dim) if blob.HasField("shape") else [blob.num, blob.channels, blob.height, blob.width]
    if math.prod(shape) != len(values):
        raise UserError(
            f"{path}: layer {layer}: found {len(values)} numbers in a blob of shape {shape}; is the file whole?"
        )
    return values.reshape(shape)


def _unshared(repeated: list, by_name: dict) -> list[str]:
    """Names of the layers of other scales' branches whose weights are not those of the first branch."""
    pairs = [(message, by_name.get(_OTHER_SCALES.sub("", message.name))) for message in repeated]
    return [
        message.name
        for message, first in pairs
        if first is None or not all(map(_same_numbers, first.blobs, message.blobs))
    ]


def _same_numbers(a, b) -> bool:
    """Whether two blobs hold the same; their bytes are compared first, which is much faster."""
    return a.SerializeToString() == b.SerializeToString() or _values(a) == _values(b)


def _values(blob):
    return blob.data or blob.double_data


@functools.cache
def _net_parameter() -> type:
    """The message class `NetParameter`, made at run time."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="deeplab_tf/caffe.proto", package="deeplab_tf.caffe", syntax="proto2"
    )
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for name, (number, kind) in fields.items():
            repeated = isinstance(kind, list)
            kind = kind[0] if repeated else kind
            entry = message.field.add(
                name=name, number=number, label=field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            )
            if kind in _MESSAGES:
                entry.type, entry.type_name = field.TYPE_MESSAGE, f".deeplab_tf.caffe.{kind}"
            else:
                entry.type = getattr(field, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("deeplab_tf.caffe.NetParameter"))
