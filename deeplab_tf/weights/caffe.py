"""Caffe's `.caffemodel`: the models released with the paper, in either generation of the format."""

import functools
import math
import pathlib
import re

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from deeplab_tf.errors import UserError
from deeplab_tf.weights.source import EPSILON, Array, Layers, Source, fold_biases, network_of

# The part of caffe.proto that holds weights and tells the network: message -> field -> (number, type). A list type is a
# repeated field. V1 is the format of the release of 2015, whose atrous rate is called hole.
_MESSAGES = {
    "BlobShape": {"dim": (1, ["int64"])},
    "BlobProto": {
        **{"num": (1, "int32"), "channels": (2, "int32"), "height": (3, "int32"), "width": (4, "int32")},
        **{"data": (5, ["float"]), "shape": (7, "BlobShape"), "double_data": (8, ["double"])},
    },
    "BatchNormParameter": {"eps": (3, "float")},
    "ConvolutionParameter": {"stride": (6, ["uint32"]), "dilation": (18, ["uint32"])},
    "V1ConvolutionParameter": {"stride": (6, ["uint32"]), "hole": (17, ["uint32"]), "hole_h": (18, ["uint32"])},
    "PoolingParameter": {"kernel_size": (2, "uint32"), "stride": (3, "uint32")},
    "LayerParameter": {
        **{"name": (1, "string"), "type": (2, "string"), "blobs": (7, ["BlobProto"])},
        **{"convolution_param": (106, "ConvolutionParameter"), "pooling_param": (121, "PoolingParameter")},
        "batch_norm_param": (139, "BatchNormParameter"),
    },
    "V1LayerParameter": {
        **{"name": (4, "string"), "type": (5, "int32"), "blobs": (6, ["BlobProto"])},
        **{"convolution_param": (10, "V1ConvolutionParameter"), "pooling_param": (19, "PoolingParameter")},
    },
    "NetParameter": {"name": (1, "string"), "layers": (2, ["V1LayerParameter"]), "layer": (100, ["LayerParameter"])},
}
# The branches of the other scales of the image, which share the blobs of the first: conv1_res05, fc1_voc12_res075_c0.
_OTHER_SCALES = re.compile(r"_res0?(\d+)(?=$|_c\d+$)")
# The classifiers on the image and on pools 1 to 4 of DeepLab-MSc.
_SIDE_BRANCHES = re.compile(r"(data|pool\d)_ms(_.*)?")
# Rates of the last two stages (ResNet) and of conv5 (VGG-16) by output stride.
_RESNET_RATES = {8: (2, 4), 16: (1, 2), 32: (1, 1)}

# Parameters of the CRF that users of the release found in its files, by backbone, head and average pool; the release
# normalises a kernel after filtering alone.
_RELEASED_CRFS = {
    ("resnet101", "aspp_l", False): (4, 67, 3, 3, 1),
    ("vgg16", "aspp_l", False): (4, 65, 3, 2, 2),
    ("vgg16", "large_fov", True): (4, 121, 5, 3, 3),
}


def read(path: pathlib.Path) -> Source:
    """Reads the layers of a caffemodel, and the network that they make."""
    net = _net_parameter()()
    net.ParseFromString(path.read_bytes())
    messages = [*net.layer, *net.layers]
    if not any(message.blobs for message in messages):
        raise UserError(f"{path} holds no layers with blobs; is it a whole caffemodel?")
    sides = [message.name for message in messages if _SIDE_BRANCHES.fullmatch(message.name)]
    if sides:
        raise UserError(
            f"{path} is DeepLab-MSc, whose scores are those of fc8 plus those of {', '.join(sides[:3])} ...; there is "
            "no such network here"
        )

    layers, rates, repeated = {}, {}, []
    for message in messages:
        if _OTHER_SCALES.search(message.name):
            repeated.append(message)
        elif message.blobs:
            name, arrays = _layer(message, path)
            if layers.get(name, {}).keys() & arrays.keys():
                raise UserError(f"{path} holds layer {name} twice, the second time as {message.name}")
            layers.setdefault(name, {}).update(arrays)
            if message.HasField("convolution_param"):
                rates[name] = _rate(message.convolution_param)
    fold_biases(layers)
    dense = len(layers.get("fc6", {"kernel": Array((), None)})["kernel"].shape) == 2
    notes = _repetitions(repeated, messages)
    if dense:
        flat = layers["fc6"]["kernel"]  # [25088, filters]; Caffe flattens [c, h, w].
        shape = (512, 7, 7, flat.shape[1])
        kernel = Array((7, 7, 512, flat.shape[1]), lambda: flat.read().reshape(shape).transpose(1, 2, 0, 3))
        layers["fc6"]["kernel"] = kernel
    network = {"preprocessing": "caffe"} | _network(layers, rates, messages, dense, path)
    crf = None
    if network.get("num_classes") == 21:
        crf = _RELEASED_CRFS.get((network["backbone"], network.get("head"), network.get("average_pool", False)))
    return Source("Caffe", layers, network, dense=dense, crf=crf and _crf(*crf), notes=notes)


def _crf(bilateral_weight, spatial, color, spatial_weight, spatial_std) -> dict:
    return {
        **{"bilateral_weight": bilateral_weight, "bilateral_spatial_std": spatial, "bilateral_color_std": color},
        **{"spatial_weight": spatial_weight, "spatial_std": spatial_std, "normalization": "after"},
    }


def _network(layers: Layers, rates: dict[str, int], messages: list, dense: bool, path: pathlib.Path) -> dict:
    """The arguments of `DeepLab` that layers, rates, strides and pools tell."""
    told = {name: arrays for name, arrays in layers.items() if not (dense and name in ("fc6", "fc7", "fc8"))}
    network = network_of(told, rates)
    if network.get("backbone") == "vgg16":
        network |= _vgg(rates, messages, dense, "fc6" in layers or "fc6_1" in layers, path)
    elif network.get("backbone", "").startswith("resnet"):
        strides = {message.name: list(message.convolution_param.stride) for message in messages}
        network["block_style"] = "pytorch" if strides.get("res3a_branch2b", [1])[:1] == [2] else "caffe"
        if rates:
            network["output_stride"] = _resnet_stride(rates, path)
    others = {match[1] for match in (_OTHER_SCALES.search(message.name) for message in messages) if match}
    if others or "head" in network:
        network["scales"] = (*sorted(float(f"0.{digits}") for digits in others), 1.0)
    if "head" not in network and rates and not dense:
        head = [f"{name} (rate {rate})" for name, rate in rates.items() if re.match("fc(6|1)", name)]
        if head:
            raise UserError(f"{path}: no head here is made of {', '.join(head)} with these kernels")
    return network


def _vgg(rates: dict[str, int], messages: list, dense: bool, has_head: bool, path: pathlib.Path) -> dict:
    """Average pool and output stride, where the file lists pools; dense ones of 2x2 are refused."""
    pools = {message.name: message.pooling_param for message in messages if message.HasField("pooling_param")}
    if dense or not has_head or not pools:
        return {}
    if "pool4" in pools and pools["pool4"].kernel_size == 2 and (pools["pool4"].stride or 1) == 1:
        raise UserError(
            f"{path} is the DeepLab of 2x2 pools (vgg128_noup, 2015), whose grid is another than that of 3x3 pools; "
            "there is no such network here"
        )
    told = {"average_pool": "pool5a" in pools}
    if rates:
        conv5 = {rates.get(f"conv5_{i}", 1) for i in (1, 2, 3)}
        if conv5 != {2}:
            raise UserError(f"{path}: conv5 has the rates {sorted(conv5)}, expected 2")
        told["output_stride"] = 8
    return told


def _resnet_stride(rates: dict[str, int], path: pathlib.Path) -> int:
    """The output stride that the rates of stages 4 and 5 belong to."""
    fourth, fifth = (
        {rate for name, rate in rates.items() if re.fullmatch(rf"res{stage}\w+_branch2b", name)} for stage in (4, 5)
    )
    for stride, expected in _RESNET_RATES.items():
        if (fourth, fifth) == ({expected[0]}, {expected[1]}):
            return stride
    raise UserError(f"{path}: stages 4 and 5 have the rates {sorted(fourth)} and {sorted(fifth)}, expected 2 and 4")


def _rate(parameters) -> int:
    """The atrous rate of a convolution in either format."""
    fields = {field.name: value for field, value in parameters.ListFields()}
    values = fields.get("dilation") or fields.get("hole") or fields.get("hole_h") or [1]
    return int(values[0])


def _repetitions(repeated: list, messages: list) -> list[str]:
    """Notes on the layers of the other scales' branches."""
    repeated = [message for message in repeated if message.blobs]
    if not repeated:
        return []
    notes = [f"{len(repeated)} layers repeat these for the other scales of the image; here the scales share them"]
    by_name = {message.name: message for message in messages}
    pairs = [(message, by_name.get(_OTHER_SCALES.sub("", message.name))) for message in repeated]
    own = [m.name for m, first in pairs if first is None or not all(map(_same_numbers, first.blobs, m.blobs))]
    if own:
        notes.append(f"{len(own)} of them, such as {own[0]}, have weights of their own, which are left")
    return notes


def _layer(message, path: pathlib.Path) -> tuple[str, dict[str, Array]]:
    """Our name and layout of one layer's blobs."""
    blobs = [_array(blob, message.name, path) for blob in message.blobs]
    if message.type == "BatchNorm":
        return message.name, _statistics(message, blobs, path)
    if message.type == "Scale":
        name = re.sub(r"^scale", "bn", message.name)
        return name, dict(zip(("gamma", "beta"), map(_flat, blobs), strict=False))
    kernel = blobs[0]
    if _is_legacy_matrix(kernel):
        kernel = Array(kernel.shape[2:], lambda legacy=kernel: legacy.read()[0, 0])
    axes = (2, 3, 1, 0) if len(kernel.shape) == 4 else reversed(range(len(kernel.shape)))
    arrays = {"kernel": kernel.transposed(*axes)}
    if len(blobs) > 1:
        arrays["bias"] = _flat(blobs[1])
    return _classifier_name(message.name), arrays


def _statistics(message, blobs: list[Array], path: pathlib.Path) -> dict[str, Array]:
    """Mean and variance of a BatchNorm layer, which are stored times a factor; its epsilon becomes ours."""
    if len(blobs) != 3 or math.prod(blobs[2].shape) != 1:
        raise UserError(f"{path}: layer {message.name}: found {len(blobs)} blobs, expected mean, variance and factor")
    factor = float(blobs[2].read().reshape(()))
    scale = np.float32(0 if factor == 0 else 1 / factor)
    mean, variance = (Array(_flat(b).shape, lambda b=b: _flat(b).read() * scale) for b in blobs[:2])
    if message.batch_norm_param.HasField("eps"):
        variance = variance.plus(float(message.batch_norm_param.eps - np.float32(EPSILON)))
    return {"moving_mean": mean, "moving_variance": variance}


def _flat(array: Array) -> Array:
    return Array((math.prod(array.shape),), lambda: array.read().reshape(-1))


def _is_legacy_matrix(blob: Array) -> bool:
    """Whether a dense layer's matrix [out, in] is written as [1, 1, out, in], as older files do."""
    return len(blob.shape) == 4 and blob.shape[:2] == (1, 1) and blob.shape[2] > 1 and blob.shape[3] > 1


def _classifier_name(name: str) -> str:
    """Without the data set: fc1_voc12_c0 -> fc1_c0, fc8_voc12_1 -> fc8_1, fc8_pascal -> fc8."""
    match = re.fullmatch(r"(fc1|fc8)[_-].*?(?:_(c?\d))?", name)
    return name if match is None else match[1] + (f"_{match[2]}" if match[2] else "")


def _array(blob, layer: str, path: pathlib.Path) -> Array:
    """A blob as float32."""
    data = _values(blob)
    shape = list(blob.shape.dim) if blob.HasField("shape") else [blob.num, blob.channels, blob.height, blob.width]
    if math.prod(shape) != len(data) or min(shape, default=1) < 0:
        raise UserError(
            f"{path}: layer {layer}: found {len(data)} numbers in a blob of shape {shape}; is the file complete?"
        )
    return Array(tuple(shape), lambda: np.fromiter(data, np.float32, len(data)).reshape(shape))


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
