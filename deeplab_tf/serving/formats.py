"""Other forms of the served model, by their makers' converters: ONNX and LiteRT, in float32 and quantised.

Neither has the operations of the dense CRF, nor a loop over tiles: they hold the network, with the scales and the
mirror of the segmenter, for whole images. `deeplab_tf.crf.DenseCRF` refines what they return. In int8 the convolutions
and what is between them are computed with 8 bits; the ranges are those seen on real images (calibration). The softmax
and the interpolation stay in float32.
"""

import contextlib
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from deeplab_tf import files
from deeplab_tf.errors import UserError
from deeplab_tf.inference.segmenter import Segmenter
from deeplab_tf.serving.outputs import Outputs

# The file of each form in the export's folder.
FILES = {
    "onnx": "model.onnx",
    "onnx_int8": "model_int8.onnx",
    "litert": "model.tflite",
    "litert_float16": "model_float16.tflite",
    "litert_int8": "model_int8.tflite",
}
LITERT_PRECISIONS = ("float32", "float16", "int8")
_OPSET = 17
# What ONNX Runtime computes in 8 bits; all else costs more in conversions than it saves.
_INT8_OPERATIONS = ["Conv", "MatMul", "Add", "MaxPool", "AveragePool", "Relu", "Clip"]


def export_onnx(
    segmenter: Segmenter,
    path: str | os.PathLike,
    *,
    outputs: Sequence[str] = ("labels", "probabilities"),
    calibration: Sequence[np.ndarray] | None = None,
) -> pathlib.Path:
    """Writes an ONNX model, by tf2onnx: `images` uint8 [B, H, W, 3] of any size -> the outputs.

    Args:
        segmenter: with `info`, without a CRF and without tiles.
        path: the file to write.
        outputs: as for `export_saved_model`.
        calibration: images, uint8 [H, W, 3] of any sizes, such as the model will see: the model is quantised to int8 by
            ONNX Runtime's own quantiser, with the ranges of values that these have. None: float32.

    Returns:
        the path.

    Raises:
        UserError: the segmenter has a CRF or tiles, or no `info`; an output is not known; there is no image; or
            tf2onnx, or for int8 onnxruntime, is not installed.
    """
    classes = segmenter.classes_to_json()
    try:
        import tf2onnx
    except ImportError as error:
        raise UserError(f"ONNX needs tf2onnx ({error}); pip install 'deeplab_tf[export]'") from None
    function = _function(segmenter, outputs, [None, None, None, 3], "ONNX")
    with _quiet():
        model, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=_OPSET)
        for node in model.graph.node:
            _make_padding_explicit(node)
        model = model if calibration is None else _quantised_onnx(model, calibration)
    for name, value in classes.items():
        model.metadata_props.add(key=name, value=json.dumps(value))
    return _write(path, model.SerializeToString())


def export_litert(
    segmenter: Segmenter,
    path: str | os.PathLike,
    *,
    image_size: tuple[int, int],
    outputs: Sequence[str] = ("labels", "probabilities"),
    precision: str = "float32",
    calibration: Sequence[np.ndarray] | None = None,
) -> pathlib.Path:
    """Writes a LiteRT (TensorFlow Lite) model: `images` uint8 [1, height, width, 3] -> the outputs.

    Args:
        segmenter: without a CRF and without tiles.
        path: the file to write.
        image_size: height and width of every image, pixels: LiteRT lacks some of the arithmetic of sizes.
        outputs: as for `export_saved_model`.
        precision: "float32"; "float16": the weights take half the space, for GPUs and for downloads; "int8": weights
            and feature maps have 8 bits, for the processors and accelerators of phones.
        calibration: for int8: images, uint8 [H, W, 3] of any sizes, such as the model will see; they are scaled.

    Returns:
        the path.

    Raises:
        UserError: the segmenter has a CRF or tiles; an output or the precision is not known; or there is no image.
    """
    if precision not in LITERT_PRECISIONS:
        raise UserError(f"precision={precision!r}: expected one of {', '.join(LITERT_PRECISIONS)}")
    function = _function(segmenter, outputs, [1, *image_size, 3], "LiteRT")
    module = tf.Module()  # gives the model its signature
    module.segment = function
    module.preprocessing = [variable.value for variable in segmenter.model.preprocess.variables]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], module)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        scaled = [tf.image.resize(image, image_size).numpy() for image in _checked(calibration)]
        converter.representative_dataset = lambda: ([image[np.newaxis].round().astype(np.uint8)] for image in scaled)
    with _quiet():
        content = converter.convert()
    return _write(path, content)


def _function(segmenter: Segmenter, outputs: Sequence[str], shape: list[int | None], form: str):
    """The segmenter as a function of images, in operations that converters know."""
    if segmenter.crf is not None:
        raise UserError(f"crf: {form} lacks the operations of the dense CRF; export without it and call DenseCRF after")
    if segmenter.tiling is not None:
        raise UserError(f"tile_size: the {form} form segments whole images; export it without tiles")
    graph = Outputs(segmenter, outputs, "float32", in_bands=False)
    return tf.function(graph, input_signature=[tf.TensorSpec(shape, tf.uint8, name="images")], autograph=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Holds back what the converters tell on the standard error, in C++ too; shows it where they fail."""
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except Exception:
            said.seek(0)
            os.write(shown, said.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)


def _checked(calibration: Sequence[np.ndarray] | None) -> Sequence[np.ndarray]:
    if not calibration:
        raise UserError("calibration: found no image; int8 needs some such as the model will see")
    return calibration


def _quantised_onnx(model, calibration: Sequence[np.ndarray]):
    """An ONNX model in int8: weights by channel, feature maps by the smallest and largest value seen.

    Weights have seven bits: processors without VNNI add two products of eight bits in sixteen, which would overflow.
    """
    try:
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise UserError(
            f"int8 needs onnxruntime ({error}); install it with: pip install 'deeplab_tf[export]'"
        ) from None
    import onnx

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self._images = iter(_checked(calibration))

        def get_next(self):
            image = next(self._images, None)
            return None if image is None else {"images": image[np.newaxis]}

    with tempfile.TemporaryDirectory() as folder:
        given, prepared, written = (os.path.join(folder, f"{name}.onnx") for name in ("given", "prepared", "written"))
        onnx.save(model, given)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            written,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=_INT8_OPERATIONS,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return onnx.load(written)


def _make_padding_explicit(node) -> None:
    """Writes out the padding of an atrous convolution: onnxruntime works it out for rate 1 only."""
    import onnx

    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    rates = attributes.get("dilations", [1])
    if node.op_type != "Conv" or attributes.get("auto_pad") != b"SAME_UPPER" or max(rates) == 1:
        return
    reach = [(side - 1) * rate for side, rate in zip(attributes["kernel_shape"], rates, strict=True)]
    pads = [side // 2 for side in reach] + [side - side // 2 for side in reach]
    kept = [attribute for attribute in node.attribute if attribute.name not in ("auto_pad", "pads")]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute("pads", pads)])


def _write(path: str | os.PathLike, content: bytes) -> pathlib.Path:
    path = pathlib.Path(path).expanduser()
    with files.written_aside(path) as aside:
        aside.write_bytes(content)
    return path
